#!/usr/bin/env bash
# mpi_cli_test.sh SPROCKET SOURCE_DIR MAKE_CLIP: the commands as a user runs them under mpirun. What a job says is
# said once, exit codes are the documented ones, and the newest checkpoint outlives every failure.
set -euo pipefail
sprocket=$1
make_clip=$3
cd "$2"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# expect CODE TEXT ARGUMENT...: runs two ranks; TEXT must stand in exactly one line of the output.
expect() {
  local code=0 wanted=$1 text=$2
  shift 2
  timeout 100 mpirun --oversubscribe --mca mpi_yield_when_idle 1 -np 2 "$sprocket" "$@" >"$folder/log" 2>&1 || code=$?
  local lines
  lines=$(grep -cF -- "$text" "$folder/log" || true)
  if [[ $code != "$wanted" || $lines != 1 ]]; then
    echo "sprocket $*: expected exit code $wanted, found $code; expected one line with '$text', found $lines:"
    cat "$folder/log"
    exit 1
  fi
}

config=(--config configs/quickstart.txtpb)
tiny=(--set "data.path: \"$folder/data\"" --set 'model.dim: 32 model.layers: 2 model.ffn_dim: 64'
  --set 'training.optimizer.warmup_steps: 0' --set 'sampling.steps: 2')
run=(train "${config[@]}" "${tiny[@]}" --output "$folder/run")

expect 0 '2 ranks = data 1 x outer 2 x ulysses 1' train "${config[@]}" --dry-run
expect 2 'parallel.ulysses: 3 does not divide model.heads: 4; legal: 1, 2, 4' \
  train "${config[@]}" --set 'parallel.ulysses: 3'
# Times depend on the machine; what is looked at does not.
for ranks in 2 4; do
  code=0
  timeout 100 "$sprocket" doctor --np $ranks >"$folder/log" 2>&1 || code=$?
  for text in "$ranks on 1 host" 'the same sprocket and MPI on all ranks' 'farthest from rank 0' 'steady clock' \
    'pairs of a host' 'pml ob1' 'Jobs can run on this machine'; do
    if [[ $code != 0 ]] || ! grep -qF -- "$text" "$folder/log"; then
      echo "doctor --np $ranks: expected exit code 0 and '$text', found exit code $code:"
      cat "$folder/log"
      exit 1
    fi
  done
done
expect 0 '2 on 1 host' doctor
expect 2 'doctor: --np 3: mpirun started 2 ranks; legal: --np 2' doctor --np 3

expect 3 "$folder/data/index.json" "${run[@]}"

"$make_clip" "$folder/clip.mp4"
"$sprocket" data encode "$folder/clip.mp4" --output "$folder/data" --width 128 --height 80 --frames 17 --max-clips 1 \
  --text-tokens 16 --text-dim 64
"$sprocket" data validate "$folder/data"

check=(check-parity "${config[@]}" "${tiny[@]}" --set 'training.steps: 60')
expect 0 'PASSED: all ' "${check[@]}" --report "$folder/parity.json"
grep -q '"passed": true' "$folder/parity.json"
expect 0 'twice that of one rank in BF16' "${check[@]}" --precision as-configured --set 'compute.precision: BF16 parallel.ulysses: 2'
expect 0 'latents drawn at random, [16, 5, 12, 16]' "${check[@]}" \
  --set 'data { path: "nowhere" latent { t: 5 h: 12 w: 16 } }'
# Each rank with a seed of its own: their parameters differ.
code=0
timeout 100 mpirun --oversubscribe --mca mpi_yield_when_idle 1 -np 1 "$sprocket" "${check[@]}" : \
  -np 1 "$sprocket" "${check[@]}" --set 'training.seed: 9' >"$folder/log" 2>&1 || code=$?
if [[ $code != 8 ]] || ! grep -q '^FAILED: ' "$folder/log"; then
  echo "ranks of two seeds: expected exit code 8 and a verdict, found $code:"
  cat "$folder/log"
  exit 1
fi

expect 0 'Communication against compute' "${run[@]}" --set 'training.steps: 3 parallel.check_collectives: true'
expect 4 "$folder/run already holds a run" "${run[@]}" --set 'training.steps: 4'
expect 3 'model.dim: checkpoint 32, job 64' "${run[@]}" --set 'training.steps: 4 model.dim: 64' --resume latest
expect 3 'attention.order: checkpoint KD, job RASTER' "${run[@]}" \
  --set 'training.steps: 4 attention.order: RASTER' --resume latest
expect 7 'the loss is' "${run[@]}" --set 'training.steps: 9 training.optimizer.learning_rate: 1e30
  training.max_skipped_steps: 1' --resume latest
expect 0 'step_00000004' "${run[@]}" --set 'training.steps: 4' --resume "$folder/run"

"$sprocket" checkpoint list "$folder/run" | grep -qE '^step_00000004 .* in [0-9]+ files +complete +weights, moments$'
"$sprocket" checkpoint verify "$folder/run" | grep -qF 'step_00000004: intact'
cp -r "$folder/run/step_00000004" "$folder/step_00000005"
truncate -s -1 "$folder/step_00000005/state.txtpb"
code=0
"$sprocket" checkpoint verify "$folder/step_00000005" >"$folder/log" 2>&1 || code=$?
if [[ $code != 3 ]] || ! grep -qF '1 of 1 checkpoint damaged' "$folder/log"; then
  echo "checkpoint verify of a damaged one: expected exit code 3 and its name, found $code:"
  cat "$folder/log"
  exit 1
fi
"$sprocket" checkpoint export "$folder/run" --output "$folder/weights.safetensors" | grep -q 'step 4$'

expect 0 "$folder/videos/step_00000004_0.mp4" sample --resume "$folder/run" --output "$folder/videos" --set 'sampling.prompt: "a clip"'
expect 0 "$folder/both/compare_0.mp4" sample --compare "$folder/run" "$folder/run" --output "$folder/both" \
  --set 'sampling { prompt: "a clip" sampler: TDM timestep: [999, 499] }'
grep -q '"speed_up": 1.0' "$folder/both/compare.json"

printf 'a clip\nanother\n' >"$folder/prompts.txt"
"$sprocket" data embed-prompts "$folder/prompts.txt" --like "$folder/data" --negative 'blurry' --output "$folder/prompts"
"$sprocket" data validate "$folder/prompts"
"$sprocket" data inspect "$folder/prompts" | grep -q 'negative prompt "blurry"'
expect 0 "$folder/prompted/step_00000004_1.mp4" sample --resume "$folder/run" --output "$folder/prompted" \
  --set "data.path: \"$folder/prompts\" sampling.count: 2"

# A student beside the run's weights, its adapters by themselves, and where a step of it goes.
distill=("${config[@]}" "${tiny[@]}" --set "distillation { teacher { weights: \"$folder/run\" } guidance: 2 }"
  --set 'training { steps: 2 lora { rank: 2 } }')
expect 0 "saved $folder/student/step_00000002" distill "${distill[@]}" --output "$folder/student"
# The ranks that a student was trained on are not those that it is sampled on.
expect 0 "saved $folder/replicas/step_00000001" distill "${distill[@]}" --output "$folder/replicas" \
  --set 'training { steps: 1 global_batch: 2 } parallel { data: 2 }'
expect 0 "$folder/replica_videos/step_00000001_0.mp4" sample --resume "$folder/replicas" --output "$folder/replica_videos" \
  --set 'sampling.prompt: "a clip"'
"$sprocket" lora export --checkpoint "$folder/student" --output "$folder/adapters.safetensors" | grep -q 'step 2'
"$sprocket" checkpoint export "$folder/student" --output "$folder/merged.safetensors" | grep -q 'step 2, adapters merged'
expect 0 'Communication against compute' profile --job distill "${distill[@]}" --steps 2 --warmup 1 \
  --output "$folder/distill_profile"
grep -q '"kind": *"distill"' "$folder/distill_profile/profile.json"
# Evaluations, and what each of the two trained networks learns by.
for phase in student teacher fake_score {,fake_score_}{forward,backward,optimizer}; do
  grep -q "\"phase\": *\"$phase\"" "$folder/distill_profile/profile.json" || { echo "no phase $phase"; exit 1; }
done

# The other family of models: the text in the sequence, v-prediction.
cogvideox=("${config[@]}" "${tiny[@]}"
  --set 'model { family: COGVIDEOX dim: 64 cogvideox { time_dim: 32 positions: SCALED_ROPE } }')
expect 0 'behind 16 tokens of text in 1 block: a sequence of' train "${cogvideox[@]}" --dry-run
expect 2 'EULER is for models of flow matching; legal with COGVIDEOX: DDIM, DPM, TDM' train "${cogvideox[@]}" \
  --output "$folder/none" --set 'sampling.sampler: EULER'
expect 0 'PASSED: all ' check-parity "${cogvideox[@]}" --set 'training.steps: 60'
expect 0 'Communication against compute' train "${cogvideox[@]}" --output "$folder/joint" \
  --set 'training.steps: 3' --set 'attention { method: DENSE max_coverage { start: 1 } }'
expect 0 "$folder/joint_videos/step_00000003_0.mp4" sample --resume "$folder/joint" --output "$folder/joint_videos" \
  --set 'sampling { prompt: "a clip" sampler: DPM }'
expect 3 'model.family: checkpoint COGVIDEOX, job WAN' train "${config[@]}" "${tiny[@]}" --set 'training.steps: 4' \
  --output "$folder/joint" --resume latest
expect 0 "saved $folder/few_steps/step_00000002" distill "${cogvideox[@]}" --output "$folder/few_steps" --set 'training.steps: 2' \
  --set "distillation { teacher { weights: \"$folder/joint\" } guidance: 2 tdm { normalise_limit: 5 skip_above: 0 } }"
expect 0 "$folder/few_videos/step_00000002_0.mp4" sample --resume "$folder/few_steps" --output "$folder/few_videos" \
  --set 'sampling { prompt: "a clip" sampler: TDM timestep: [999, 749, 499, 249] guidance: 1 }'

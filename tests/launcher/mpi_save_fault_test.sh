#!/usr/bin/env bash
# mpi_save_fault_test.sh SPROCKET SOURCE_DIR MAKE_CLIP FAULT_LIBRARY: a rank of four dies, is asked to stop, or cannot
# write in the middle of a save. Older checkpoints stay, and what goes on from them has the bits of a run that nothing
# happened to.
set -euo pipefail
sprocket=$1
make_clip=$3
library=$4
cd "$2"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

mpirun=(timeout 100 mpirun --oversubscribe --mca mpi_yield_when_idle 1)
train=("$sprocket" train --config configs/quickstart.txtpb --set "data.path: \"$folder/data\""
  --set 'model.dim: 32 model.layers: 2 model.ffn_dim: 64 training.optimizer { warmup_steps: 0 decay: CONSTANT } sampling.steps: 2'
  --set 'training.steps: 7 output { checkpoint_interval: 2 keep_checkpoints: 0 } parallel.timeout_seconds: 20'
  --set 'output.tensorboard: false')

fail() {
  echo "$1"
  cat "$folder/log"
  exit 1
}

# run CODE RANKS ARGUMENT...: a job that must end with CODE.
run() {
  local wanted=$1 ranks=$2 code=0
  shift 2
  "${mpirun[@]}" -np "$ranks" "${train[@]}" "$@" >"$folder/log" 2>&1 || code=$?
  [[ $code == "$wanted" ]] || fail "$* on $ranks ranks: expected exit code $wanted, found $code:"
}

# run_with FAULT RANK CODE ARGUMENT...: four ranks, of which RANK has the fault in the save of step 4.
run_with() {
  local fault=$1 rank=$2 wanted=$3 code=0 parts=()
  shift 3
  local own=("${train[@]}" --output "$folder/run" "$@")
  rm -rf "$folder/run"
  ((rank == 0)) || parts+=(-np "$rank" "${own[@]}" :)
  parts+=(-np 1 env "SAVE_FAULT=$fault:step_00000004" "LD_PRELOAD=$library" "${own[@]}")
  ((rank == 3)) || parts+=(: -np $((3 - rank)) "${own[@]}")
  "${mpirun[@]}" "${parts[@]}" >"$folder/log" 2>&1 || code=$?
  [[ $code == "$wanted" ]] || fail "$fault on rank $rank: expected exit code $wanted, found $code:"
}

newest() { "$sprocket" checkpoint list "$folder/run" | tail -1; }

expect_newest() {
  newest | grep -qE "^$1 .*complete" || fail "expected $1 to be the newest checkpoint, found $(newest):"
}

# The weights and moments of the last step, whatever happened on the way.
expect_same_bits() {
  for part in model optim; do
    diff -r "$folder/whole/step_00000007/$part" "$folder/run/step_00000007/$part" || fail "$1: other $part:"
  done
}

"$make_clip" "$folder/clip.mp4"
"$sprocket" data encode "$folder/clip.mp4" --output "$folder/data" --width 128 --height 80 --frames 17 --max-clips 1 \
  --text-tokens 16 --text-dim 64 >/dev/null
run 0 4 --output "$folder/whole"
"$sprocket" checkpoint verify "$folder/whole" | grep -c intact | grep -qx 4 || fail 'expected four intact checkpoints:'

for death in kill_in_shards:2 kill_before_manifest:0 kill_after_manifest:0; do
  run_with "${death%:*}" "${death#*:}" 137
  expect_newest step_00000002
  run 0 4 --output "$folder/run" --resume latest
  grep -qF 'which a save left unfinished' "$folder/log" || fail "$death: expected the leftover to be removed:"
  expect_same_bits "$death"
done

# Half and double the ranks: the same samples, sums in another order.
for layout in '2 parallel.ulysses: 1' '8 parallel.ulysses: 2'; do
  ranks=${layout%% *}
  cp -r "$folder/whole" "$folder/other"
  rm -r "$folder/other/step_00000006" "$folder/other/step_00000007"
  run 0 "$ranks" --output "$folder/other" --resume latest --set "${layout#* }"
  grep -qF 'resuming from' "$folder/log" || fail "expected a resumed run on $ranks ranks:"
  "$sprocket" checkpoint verify "$folder/other/step_00000007" >/dev/null || fail "on $ranks ranks:"
  rm -r "$folder/other"
done

# Asked to stop while its files are being written: both that save and one of the step it ends with.
run_with terminate_in_shards 1 75 --set 'training.steps: 1000000'
"$sprocket" checkpoint verify "$folder/run" | grep -qF 'step_00000004: intact' || fail 'after SIGTERM:'
grep -qF "saved $(ls -d "$folder/run/step_"* | tail -1)" "$folder/log" || fail 'expected the step that it ended with:'
for later in "$folder/run/step_"*; do
  [[ $later == */step_0000000[24] ]] || rm -r "$later"
done
run 0 4 --output "$folder/run" --resume latest
expect_same_bits 'after SIGTERM'

# A save on the way that fails is said and left out, the job goes on.
for failure in full:3 rename:0; do
  run_with "${failure%:*}" "${failure#*:}" 0
  grep -c 'step 4 was not saved, the job goes on' "$folder/log" | grep -qx 1 || fail "$failure: expected one warning:"
  [[ ! -e $folder/run/step_00000004 ]] || fail "$failure: expected no checkpoint of step 4:"
  "$sprocket" checkpoint verify "$folder/run" | grep -c intact | grep -qx 3 || fail "$failure: expected three checkpoints:"
  tail -1 "$folder/run/metrics.jsonl" | grep -q '"failed_saves":1' || fail "$failure: expected it in the metrics:"
  expect_same_bits "$failure"
done

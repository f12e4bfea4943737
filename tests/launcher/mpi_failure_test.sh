#!/usr/bin/env bash
# mpi_failure_test.sh SPROCKET SOURCE_DIR MAKE_CLIP: a rank of a running job is killed, or stops answering. The job
# ends by itself with the documented exit code, and goes on from the newest checkpoint.
set -euo pipefail
sprocket=$1
make_clip=$3
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
folder=$(mktemp -d)
config=$2/configs/quickstart.txtpb
trap 'pkill -KILL -f -- "--output $folder/" || true; rm -rf "$folder"' EXIT

# Where a job's ranks leave their last words.
cd "$folder"
mpirun=(mpirun --oversubscribe --mca mpi_yield_when_idle 1 -np 2)
train=("$sprocket" train --config "$config" --output "$folder/run" --set "data.path: \"$folder/data\""
  --set 'model.dim: 32 model.layers: 2 model.ffn_dim: 64 training.optimizer.warmup_steps: 0 sampling.steps: 2'
  --set 'training.steps: 1000000 output.checkpoint_interval: 5 parallel.timeout_seconds: 3')

fail() {
  echo "$1"
  cat "$folder/log"
  exit 1
}

# until_true SECONDS COMMAND…: polls.
until_true() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < deadline)) || fail "waited in vain for: $*"
    sleep 0.05
  done
}

# What is being written, or was when a job broke, is called step_N.tmp-*.
checkpoints() { ls "$folder/run" 2>/dev/null | grep -xE 'step_[0-9]+'; }
has_checkpoint() { checkpoints >/dev/null; }
has_ended() { ! kill -0 "$job" 2>/dev/null; }

# break_job SIGNAL CODE: sends SIGNAL to the second rank of a running job, which must then end with CODE.
break_job() {
  local signal=$1 wanted=$2 code=0
  rm -rf "$folder/run"
  "${mpirun[@]}" "${train[@]}" >"$folder/log" 2>&1 &
  job=$!
  until_true 60 has_checkpoint
  local victim
  victim=$(pgrep -f -P "$job" -- "--output $folder/run" | sed -n 2p)
  [[ -n $victim ]] || fail "found no second rank"
  kill "-$signal" "$victim"
  until_true 60 has_ended
  wait "$job" || code=$?
  [[ $code == "$wanted" ]] || fail "rank sent $signal: expected exit code $wanted, found $code:"
}

continues() {
  local newest steps
  newest=$(checkpoints | tail -1)
  steps=$((10#${newest#step_} + 2))
  timeout 100 "${mpirun[@]}" "${train[@]}" --set "training.steps: $steps" --resume latest >"$folder/log" 2>&1 ||
    fail "resume after a failure: exit code $?:"
  grep -qF "$newest" "$folder/log" || fail "expected the run to go on from $newest:"
}

"$make_clip" "$folder/clip.mp4"
"$sprocket" data encode "$folder/clip.mp4" --output "$folder/data" --width 128 --height 80 --frames 17 --max-clips 1 \
  --text-tokens 16 --text-dim 64 >/dev/null

break_job STOP 5
grep -qE "\[rank 0/2 (world|sp)[a-z.]* seq [0-9]+\] .*waiting for rank 1" "$folder/log" ||
  fail "expected the message to name the communicator and the rank:"
grep -qE '^hang: rank 1 left no word: .*; the others wait in [a-z_]+ #[0-9]+ of (world|sp)' "$folder/log" ||
  fail 'expected one sentence about the hang:'
grep -q '^rank 0 (.*): section' "$folder"/sprocket_hang_*/report.txt || fail "expected rank 0's last operations:"
continues
break_job KILL 137
continues

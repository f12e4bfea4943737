#!/usr/bin/env bash
# mpi_cli_test.sh SPROCKET SOURCE_DIR: what a user sees under mpirun is said once, by rank 0.
set -euo pipefail
sprocket=$1
cd "$2"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
launch=(timeout 60 mpirun --oversubscribe --mca mpi_yield_when_idle 1 -np 2 "$sprocket")

"${launch[@]}" train --config configs/quickstart.txtpb --dry-run >"$folder/out"
[[ $(grep -c '2 ranks = data 1 x outer 2 x ulysses 1' "$folder/out") == 1 ]]
[[ $(grep -c 'nothing was run' "$folder/out") == 1 ]]

code=0
"${launch[@]}" train --config configs/quickstart.txtpb --set 'parallel.ulysses: 3' >"$folder/out" 2>"$folder/err" || code=$?
[[ $code == 2 ]] || { echo "expected exit code 2, found $code"; cat "$folder/err"; exit 1; }
[[ $(grep -c 'parallel.ulysses: 3 does not divide model.heads: 4; legal: 1, 2, 4' "$folder/err") == 1 ]]

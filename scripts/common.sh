# Sourced by the scripts in this folder: the project's root, messages, and commands shown before they run.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

say() { printf '== %s\n' "$*" >&2; }

fail() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# The lines of a list file without comments and blank lines.
pins() { sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$root/scripts/pins/$1"; }

# Compiler processes that fit: one per core, and 1.5 GiB of memory for each.
jobs() {
  local cores memory_gib
  cores=$(nproc)
  memory_gib=$(awk '/MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo)
  local fitting=$((memory_gib * 2 / 3))
  echo $((fitting < 1 ? 1 : fitting < cores ? fitting : cores))
}

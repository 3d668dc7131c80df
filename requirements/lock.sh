#!/usr/bin/env bash
# Rewrites the locks cpu.txt, gpu.txt and test.txt from the .in files beside it. Needs uv.
# cpu_left_out.txt names what a CPU rehearsal does without; torch is installed apart (CPU build).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

lock() { # lock NAME [uv options]: NAME.in -> NAME.txt, for Python 3.10-3.13 on Linux
  local name=$1
  shift
  {
    printf '# Made by requirements/lock.sh from %s.in\n' "$name"
    uv pip compile "$name.in" "$@" --universal --python-version 3.10 \
      --quiet --no-header --no-annotate --no-emit-index-url | grep -v "sys_platform == 'never'"
  } >"$name.txt.new"
  mv "$name.txt.new" "$name.txt"
}

lock cpu --override cpu_left_out.txt
lock gpu --override gpu_overrides.txt
lock test --constraint cpu.txt

#!/usr/bin/env bash
# Rewrites the locks (.txt, with hashes) from the .in files beside them. Needs uv.
#   bash requirements/lock.sh [NAME...]     only those; default all
# cpu_left_out.txt names what a CPU rehearsal does without; torch is installed apart (CPU build).
# releases/<version>.in: a release of sglang with its own torch. Two of its comment lines are read:
#   # python: the oldest Python that it takes
#   # until:  only packages that were published before that day, as an installation had then
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

lock() { # lock NAME PYTHON [uv options]: NAME.in -> NAME.txt, for PYTHON to 3.13 on Linux
  local name=$1 python=$2
  shift 2
  {
    printf '# Made by requirements/lock.sh from %s.in\n' "$name"
    uv pip compile "$name.in" "$@" --universal --python-version "$python" --generate-hashes \
      --quiet --no-header --no-annotate --no-emit-index-url |
      awk '!/^ / { left_out = /sys_platform == .never./ } !left_out'
  } >"$name.txt.new"
  mv "$name.txt.new" "$name.txt"
  printf '%s: %s packages\n' "$name.txt" "$(grep -c '==' "$name.txt")"
}

said() { # said KEY FILE: the value of a comment line "# KEY: VALUE"
  sed -n "s/^# $1: *//p" "$2"
}

lock_one() { # lock_one NAME
  local until
  case $1 in
    cpu) lock cpu 3.10 --override cpu_left_out.txt ;;
    test) lock test 3.10 --constraint cpu.txt ;;
    uv) lock uv 3.10 ;;
    releases/*)
      until=$(said until "$1.in")
      lock "$1" "$(said python "$1.in")" ${until:+--exclude-newer "$until"}
      ;;
  esac
}

names=("$@")
if ((!$#)); then
  names=(cpu test uv)
  for file in releases/*.in; do names+=("${file%.in}"); done
fi
for name in "${names[@]}"; do lock_one "$name"; done

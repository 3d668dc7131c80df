# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # the script that sources this sets and reads them
# The interpreter that runs sglang: the one at hand, or an environment made here once.
# Uses: here, state, options, opt_python, opt_dry_run, opt_cpu, engine_module, say, die, step.
# Sets: python

# Prints its path where it has the engine: a later cd or PATH does not change that. Without importing
# the engine, which takes seconds.
with_engine() { # with_engine PYTHON
  # a folder named sglang in the current directory is a package without an origin
  "$1" -c 'import importlib.util as u, sys
getattr(u.find_spec(sys.argv[1]), "origin", 0) or sys.exit(1)
print(sys.executable)' "$engine_module" 2>/dev/null
}

suits() { # suits PYTHON: 3.10 to 3.13, and able to make a venv
  "$1" -c 'import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' \
    2>/dev/null
}

absolute() { # absolute PYTHON: its path, so that a later cd or PATH does not change it
  "$1" -c 'import sys; print(sys.executable)'
}

environment_kind() { # gpu or cpu; what cannot be counted is no "cpu", and ends the run
  local base
  if ((opt_cpu)); then
    printf 'cpu'
    return
  fi
  base=$(base_python) || exit 2
  PYTHONPATH=$here "$base" -m repro_pp_graphs gpus
}

choose_python() {
  local candidate kind
  if [[ -n $opt_python ]]; then
    python=$(with_engine "$opt_python") || die 2 "--python $opt_python: it cannot find \
$engine_module; install it there, or leave --python out and an environment is made here"
    return
  fi
  for candidate in "${PYTHON:-}" python3; do
    [[ -z $candidate ]] || ! python=$(with_engine "$candidate") || return 0
  done
  kind=$(environment_kind) || exit 2
  use_environment "$kind"
}

use_environment() { # use_environment KIND: .venv-KIND, made or completed where its lock changed
  local kind=$1 venv=$here/.venv-$1 lock=$here/requirements/$1.txt
  python=$venv/bin/python
  local wanted
  wanted=$(sha256sum "$lock" | cut -d' ' -f1)
  [[ $(cat "$venv/.lock" 2>/dev/null) != "$wanted" ]] || return 0
  if ((opt_dry_run)); then
    say "# no sglang found: a real run first makes $venv from requirements/$kind.txt" >&2
    python=$(absolute python3)
    return
  fi
  make_environment "$kind" "$venv" "$lock"
  printf '%s\n' "$wanted" >"$venv/.lock"
}

base_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3 python3.12 python3.11 python3.13 python3.10; do
    if [[ -n $candidate ]] && suits "$candidate"; then
      absolute "$candidate"
      return
    fi
  done
  die 2 "no Python 3.10-3.13 with venv: install one (Debian: apt-get install python3-venv), or \
name it with PYTHON=/path/to/python3"
}

make_environment() { # make_environment KIND VENV LOCK
  local kind=$1 venv=$2 lock=$3 base need_gib=4 torch
  [[ $kind == cpu ]] || need_gib=16
  base=$(base_python) || exit 2
  # a wrong option is no reason to install gigabytes first
  PYTHONPATH=$here "$base" -m repro_pp_graphs.run.options "${options[@]}" || exit 2
  has_room "$here" "$need_gib"
  mkdir -p "$state"
  say "no sglang found: making .venv-$kind from requirements/$kind.txt ($base, once)"
  step "$base" -m venv "$venv" || die 2 "$base -m venv failed: remove $venv and run again"
  : >"$state/setup.log"
  if [[ $kind == gpu ]]; then
    install "$venv" "$lock"
    return
  fi
  torch=$(grep '^torch==' "$lock")
  install_cpu_torch "$venv" "$torch"
  grep -v '^torch==' "$lock" >"$state/cpu_without_torch.txt"
  install "$venv" "$state/cpu_without_torch.txt"
}

has_room() { # has_room FOLDER GIB
  local free_kib
  free_kib=$(df -Pk "$1" | awk 'NR == 2 { print $4 }')
  ((free_kib >= $2 * 1048576)) ||
    die 2 "$1: $((free_kib / 1048576)) GiB free, the environment takes up to $2: free some, or \
use an interpreter that has sglang (--python)"
}

# PyPI's torch for x86-64 is the CUDA build (several GB): ask for the CPU one by its version, and
# where the configured indexes lack it let uv fetch it, which knows PyTorch's own index.
install_cpu_torch() { # install_cpu_torch VENV torch==VERSION
  local venv=$1 torch=$2
  say "  $torch, CPU build"
  step "$venv/bin/python" -m pip install --quiet --no-input --no-deps "$torch+cpu" \
    >>"$state/setup.log" 2>&1 && return
  step "$venv/bin/python" -m pip install --quiet --no-input uv >>"$state/setup.log" 2>&1 &&
    step "$venv/bin/python" -m uv pip install --python "$venv/bin/python" --no-deps \
      --torch-backend cpu "$torch" >>"$state/setup.log" 2>&1 && return
  failed_install "$torch (CPU build)"
}

install() { # install VENV LOCK: all of a complete lock, with a running count
  local venv=$1 lock=$2 show="repro_pp_graphs/sh/pip_progress.awk" tty=0
  [[ ! -t 1 ]] || tty=1
  # shellcheck disable=SC2016 # the inner shell expands them
  step bash -c 'set -o pipefail; "${@:5}" 2>&1 | tee -a "$1" | awk -v of="$2" -v tty="$3" -f "$4"' \
    install "$state/setup.log" "$(grep -c == "$lock")" "$tty" "$here/$show" \
    "$venv/bin/python" -m pip install --no-input --no-deps -r "$lock" || failed_install "$lock"
}

failed_install() { # failed_install WHAT
  grep -E '^(ERROR|error:|  ×|Caused by)|[Nn]o matching|^Collecting' "$state/setup.log" |
    tail -n 3 >&2 || true
  die 2 "could not install $1 (log: $state/setup.log). Run again to go on, what is there is kept; \
behind a proxy or mirror set PIP_INDEX_URL, or use an interpreter that has sglang (--python)"
}

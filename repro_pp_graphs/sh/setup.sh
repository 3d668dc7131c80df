# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # the script that sources this sets and reads them
# The interpreter that runs sglang: the one at hand, or an environment made here once.
# Uses: here, state, say, die, step, and what is set here unless the caller has set it.
# Calls: before_install PYTHON VERSION, if the caller has defined it, before gigabytes are installed.
# Sets: python, found_by (what named it; empty for an environment made here); in a dry run, where a real run would make that environment first, not_made (its
# sglang) and planner (a Python to plan with)
: "${opt_python=}" "${opt_release=}" "${opt_dry_run=0}" "${opt_cpu=0}" "${opt_gpus=0}"
: "${opt_attach=0}" "${engine_module=sglang}"
not_made="" planner="" found_by=""
ask_limit_s=60 # for an interpreter to say what it has
declare -F before_install >/dev/null || before_install() { :; }
oldest_rehearsed=0.5.16 # tried with PP on a CPU
default_release=0.5.2 # on a GPU box without sglang: the question is #10865's

# Prints its path where it has the engine: a later cd or PATH does not change that. Without importing
# the engine, which takes seconds.
with_engine() { # with_engine PYTHON
  # a folder named sglang in the current directory is a package without an origin. What importlib.util
  # would do, which takes a third of the time to import
  ask "$1" 'import sys
specs = (f.find_spec(sys.argv[1], None) for f in sys.meta_path if hasattr(f, "find_spec"))
getattr(next(filter(None, specs), None), "origin", 0) or sys.exit(1)
print(sys.executable)' "$engine_module"
}

# An answer that names a program; what is no Python may succeed, print anything, or never end
ask() { # ask PYTHON CODE ARGS
  local found
  found=$(timeout --foreground "$ask_limit_s" "$1" -c "${@:2}" 2>/dev/null </dev/null |
    head -c 4096 | tr -d '\0') && [[ $found == /* && -f $found && -x $found ]] &&
    printf '%s' "$found"
}

suits() { # suits PYTHON MINOR: 3.MINOR to 3.13, and able to make a venv; prints its path
  ask "$1" 'import ensurepip, sys, venv
(3, int(sys.argv[1])) <= sys.version_info < (3, 14) or sys.exit(1)
print(sys.executable)' "$2"
}

absolute() { # absolute PYTHON: its path, so that a later cd or PATH does not change it
  ask "$1" 'import sys; print(sys.executable)'
}

environment_kind() { # gpu or cpu; what cannot be counted is no "cpu", and ends the run
  local base
  if ((opt_cpu)); then
    printf 'cpu'
    return
  fi
  if ((opt_gpus)); then # assumed, of a dry run
    printf 'gpu'
    return
  fi
  base=$(base_python) || exit 2
  PYTHONPATH=$here "$base" -m repro_pp_graphs gpus
}

releases() { # those that have a lock, the oldest first: 0.5.2 0.5.6.post2 ...
  local lock found=()
  for lock in "$here"/requirements/releases/*.txt; do
    lock=${lock##*/} && found+=("${lock%.txt}")
  done
  mapfile -t found < <(printf '%s\n' "${found[@]}" | sort -V)
  printf '%s' "${found[*]}"
}

rehearses() { # rehearses RELEASE: whether its server starts on a CPU
  [[ $(printf '%s\n' "$oldest_rehearsed" "$1" | sort -V | head -n 1) == "$oldest_rehearsed" ]]
}

# A plan for another machine may be of any release: what it takes is known as far as it was looked up.
plans_without() { # whether that is what was asked for; sets python, not_made, planner
  ((opt_dry_run && opt_gpus)) && [[ $engine_module == sglang && $opt_release =~ ^[0-9]+(\.[0-9]+)+[a-z0-9.]*$ ]] &&
    [[ ! -f $here/requirements/releases/$opt_release.txt ]] || return 1
  planner=$(absolute python3) || return 1
  python=PYTHON_WITH_$opt_release not_made=$opt_release
  say "# sglang $not_made has no lock in requirements/releases: a real run takes an" >&2
  say "# interpreter that has it (--python in place of --release)" >&2
}

choose_python() {
  local candidate kind
  [[ -z $opt_python || -z $opt_release ]] ||
    die 2 "--python and --release both name a sglang: leave one out"
  if [[ -n $opt_python ]]; then
    [[ -n $(type -P -- "$opt_python") ]] || die 2 "--python $opt_python: no such program; name an \
interpreter that has $engine_module, or leave --python out: --release makes an environment here"
    python=$(with_engine "$opt_python") || die 2 "--python $opt_python: it cannot find \
$engine_module; install it there, or leave --python out: --release makes an environment here, and \
--dry-run --gpus N --release V plans with any release"
    found_by=--python
    return
  fi
  if [[ -n $opt_release ]]; then
    ! plans_without || return 0
    [[ -f $here/requirements/releases/$opt_release.txt ]] || die 2 "--release $opt_release: no lock \
for it in requirements/releases ($(releases)); install it anywhere and name its interpreter (--python)"
    kind=$(environment_kind) || exit 2
    [[ $kind == gpu ]] || rehearses "$opt_release" || die 2 "--release $opt_release: its kernels \
need a GPU; a rehearsal on the CPU takes $oldest_rehearsed or newer, and sglang $(locked sglang \
"$here/requirements/cpu.txt") by itself (leave --release out)"
    use_environment "$opt_release"
    return
  fi
  for candidate in "${PYTHON:-}" python3; do
    if [[ -n $candidate ]] && python=$(with_engine "$candidate"); then
      found_by="python3 on the PATH"
      # shellcheck disable=SC2016 # its name, for a person
      [[ $candidate == python3 ]] || found_by='$PYTHON'
      return
    fi
    [[ -z $candidate || $candidate == python3 ]] ||
      say "PYTHON=$candidate finds no $engine_module: looking on without it" >&2
  done
  if ((opt_attach)); then
    for candidate in "$here"/.venv-*/bin/python; do
      [[ ! -x $candidate ]] || ! python=$(with_engine "$candidate") || return 0
    done
    die 2 "no Python with requests, msgspec and numpy: python3 -m pip install requests msgspec \
numpy, or name one that has them with --python"
  fi
  kind=$(environment_kind) || exit 2
  if [[ $kind == gpu ]]; then
    printf '%s\n' "no sglang found: taking $default_release, the release that #10865 is of" \
      "  (--release takes another: $(releases))" >&2
    kind=$default_release
  fi
  use_environment "$kind"
}

locked() { # locked PACKAGE LOCK: its version
  sed -n "s/^$1==\([^ ;]*\).*/\1/p" "$2"
}

lock_of() { # lock_of NAME: cpu, or a release
  if [[ $1 == cpu ]]; then
    printf '%s' "$here/requirements/cpu.txt"
  else
    printf '%s' "$here/requirements/releases/$1.txt"
  fi
}

use_environment() { # use_environment NAME: .venv-NAME, made or completed where its lock changed
  local venv=$here/.venv-$1 lock wanted
  lock=$(lock_of "$1")
  python=$venv/bin/python
  wanted=$(sha256sum "$lock" | cut -d' ' -f1)
  if [[ $(cat "$venv/.lock" 2>/dev/null) == "$wanted" ]]; then
    with_engine "$python" >/dev/null || not_whole "$venv" "$engine_module"
    return
  fi
  if ((opt_dry_run)); then
    not_made=$(locked sglang "$lock")
    planner=$(absolute python3)
    say "# a real run first makes ${venv##*/} (sglang $not_made)" >&2
    return
  fi
  make_environment "$1" "$venv" "$lock"
  printf '%s\n' "$wanted" >"$venv/.lock"
}

not_whole() { # not_whole VENV MODULE
  die 2 "${1##*/} is not whole: its Python does not run, or lacks $2 (an interrupted install, or a \
Python that is gone): rm -rf $1, and run again"
}

base_python() { # base_python [MINOR]: a Python 3.MINOR (3.10) or newer that can make a venv
  local candidate minor=${1:-10}
  for candidate in "${PYTHON:-}" python3 python3.12 python3.11 python3.13 python3.10; do
    [[ -z $candidate ]] || ! suits "$candidate" "$minor" || return 0
  done
  die 2 "no Python 3.$minor-3.13 with venv: install one (Debian: apt-get install python3-venv), or \
name it with PYTHON=/path/to/python3"
}

make_environment() { # make_environment NAME VENV LOCK
  local name=$1 venv=$2 lock=$3 base need_gib=16 minor torch
  [[ $name != cpu ]] || need_gib=4
  minor=$(sed -n 's/^# python: *3\.//p' "${lock%.txt}.in")
  base=$(base_python "${minor:-10}") || exit 2
  before_install "$base" "$(locked sglang "$lock")"
  has_room "$here" "$need_gib"
  mkdir -p "$state"
  say "making ${venv##*/} from ${lock#"$here"/} ($base, once)"
  step "$base" -m venv "$venv" || die 2 "$base -m venv failed: remove $venv and run again"
  ask "$venv/bin/python" 'import pip, sys; print(sys.executable)' >/dev/null || not_whole "$venv" pip
  : >"$state/setup.log"
  if [[ $name != cpu ]]; then
    install "$venv" "$lock"
    return
  fi
  torch=torch==$(locked torch "$lock")
  install_cpu_torch "$venv" "$torch"
  awk '!/^ / { is_torch = /^torch==/ } !is_torch' "$lock" >"$state/cpu_without_torch.txt"
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
  step "$venv/bin/python" -m pip install --quiet --no-input --no-deps --require-hashes \
    -r "$here/requirements/uv.txt" >>"$state/setup.log" 2>&1 &&
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
    "$venv/bin/python" -m pip install --no-input --no-deps --require-hashes -r "$lock" ||
    failed_install "$lock"
}

failed_install() { # failed_install WHAT
  grep -E '^(ERROR|error:|  ×|Caused by)|[Nn]o matching|^Collecting' "$state/setup.log" |
    tail -n 3 | tr -d '\000-\010\013-\037\177' >&2 || true
  die 2 "could not install $1 (log: $state/setup.log). Run again to go on, what is there is kept; \
behind a proxy or mirror set PIP_INDEX_URL, or use an interpreter that has sglang (--python)"
}

#!/usr/bin/env bash
#
# tests/run.sh - the tests: shellcheck, ruff, mypy, unit and behaviour tests, and one A/B run of
#                the real sglang on the CPU with two PP ranks.
#
# USAGE: bash tests/run.sh [--fast | --thorough] [pytest options]     (-h for examples and times)
#
# Makes .venv-cpu first where it is missing (as run_repro.sh does), and adds the test tools of
# requirements/test.txt to an environment of their own. Skips are listed and counted at the end.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
state=$here/.state
opt_cpu=1 step_pid=""

usage() {
  cat <<'USAGE'
USAGE: bash tests/run.sh [--fast | --thorough] [pytest options]

  bash tests/run.sh                      every test: about 5 minutes on two
                                         quiet cores
  bash tests/run.sh --fast               for the inner loop, about a minute:
                                         none that launches the real server,
                                         run_repro.sh, collect_env.sh or torch
                                         ranks, none that takes seconds
  bash tests/run.sh -m 'not rehearsal'   all but the real server
  bash tests/run.sh tests/test_server_gpus.py    one file
  bash tests/run.sh tests/test_run_lock.py -k kill -x --pdb
  bash tests/run.sh --thorough           more examples a property, more sizes of
                                         a disk, each rank and signal of a kind
  bash tests/run.sh --durations=20       the slowest tests

It tests with the sglang of $PYTHON or python3. Where neither has one, it first
makes .venv-cpu (2.4 GB, minutes). The test tools go into .venv-test, beside it.
Without a path among the options the tests run in several processes
(pytest-xdist; -n 0: in one).
USAGE
}

# shellcheck source=repro_pp_graphs/sh/group.sh
source "$here/repro_pp_graphs/sh/group.sh"
# shellcheck source=repro_pp_graphs/sh/step.sh
source "$here/repro_pp_graphs/sh/step.sh"
# shellcheck source=repro_pp_graphs/sh/setup.sh
source "$here/repro_pp_graphs/sh/setup.sh"

make_test_tools() { # sees the server's packages, and adds its own without touching them
  local venv=$here/.venv-test lock=$here/requirements/test.txt wanted
  wanted=$(cat "$lock" <(printf '%s' "$python") | sha256sum | cut -d' ' -f1)
  if [[ $(cat "$venv/.lock" 2>/dev/null) != "$wanted" ]] ||
    ! ask "$venv/bin/python" 'import pytest, sys; print(sys.executable)' >/dev/null; then
    say "adding the test tools of requirements/test.txt"
    [[ ! -L $venv ]] ||
      say ".venv-test was a link to $(readlink "$venv"), which stays as it is: one is made here"
    mkdir -p "$state"
    rm -rf "$venv" # a link itself, not what another checkout has behind it
    "$python" -m venv "$venv"
    "$python" -c 'import site; print(*site.getsitepackages(), sep="\n")' \
      >"$("$venv/bin/python" -c 'import site; print(site.getsitepackages()[0])')/server.pth"
    install "$venv" "$lock"
    printf '%s\n' "$wanted" >"$venv/.lock"
  fi
  test_python=$venv/bin/python
}

no_such_file() { # and those whose names share a word with it
  local stem words
  stem=$(basename "$1" .py)
  words=${stem#test_}
  words=${words//_/|}
  echo "run.sh: there is no $1; with a word of its name:" >&2
  (cd "$here" && find tests -maxdepth 1 -name 'test_*.py' | grep -E "_($words)(_|\.)" | sort) >&2 ||
    echo "  none: ls tests" >&2
  exit 2
}

options=()
in_parallel=1 spare=3
for word; do
  case $word in
    -h | --help)
      usage
      exit 0
      ;;
    --fast) spare=1 options+=(-m "not rehearsal and not launches and not slow") ;;
    --thorough) export REPRO_THOROUGH=1 ;;
    *)
      file=${word%%::*}
      [[ ! -e $here/$file ]] || in_parallel=0
      [[ $file != *.py || -e $here/$file || -e $file ]] || no_such_file "$file"
      [[ $word != -n* && $word != --pdb && $word != -s && $word != --co* ]] || in_parallel=0
      options+=("$word")
      ;;
  esac
done
if ((in_parallel)); then
  # launches wait longer than they compute: three processes more than there are cores, else one. A file's
  # tests stay together, they share what their fixtures made; tests/conftest.py puts the longest files first.
  options=(-n "$(($(nproc) + spare))" --dist loadfile --no-loadscope-reorder "${options[@]}")
fi

cd "$here"
choose_python
make_test_tools
# tests copy the package with what is compiled of it, and start hundreds of Pythons on the copies
unset PYTHONDONTWRITEBYTECODE PYTHONPYCACHEPREFIX
"$python" -m compileall -q repro_pp_graphs tests/fake_sglang || true # a checkout of another user
# several processes share the cores already: idle threads of each would only spin
export OPENBLAS_NUM_THREADS=1
export REPRO_SERVER_PYTHON=$python
exec "$test_python" -m pytest "${options[@]}"

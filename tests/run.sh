#!/usr/bin/env bash
#
# tests/run.sh - every test: shellcheck, ruff, mypy, unit and behaviour tests, and one A/B run
#                of the real sglang on the CPU with two PP ranks.
#
# USAGE: bash tests/run.sh [pytest options]     (-m 'not rehearsal' leaves the real server out)
#
# Makes .venv-cpu first where it is missing (as run_repro.sh does), and adds the test tools of
# requirements/test.txt to an environment of their own. Skips are listed and counted at the end.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
state=$here/.state
opt_python="" opt_dry_run=0 opt_cpu=1 engine_module=sglang step_pid=""

# shellcheck source=repro_pp_graphs/sh/group.sh
source "$here/repro_pp_graphs/sh/group.sh"
# shellcheck source=repro_pp_graphs/sh/step.sh
source "$here/repro_pp_graphs/sh/step.sh"
# shellcheck source=repro_pp_graphs/sh/setup.sh
source "$here/repro_pp_graphs/sh/setup.sh"

make_test_tools() { # sees the server's packages, and adds its own without touching them
  local venv=$here/.venv-test lock=$here/requirements/test.txt wanted
  wanted=$(cat "$lock" <(printf '%s' "$python") | sha256sum | cut -d' ' -f1)
  if [[ $(cat "$venv/.lock" 2>/dev/null) != "$wanted" ]]; then
    say "adding the test tools of requirements/test.txt"
    mkdir -p "$state"
    "$python" -m venv --clear "$venv"
    "$python" -c 'import site; print(*site.getsitepackages(), sep="\n")' \
      >"$("$venv/bin/python" -c 'import site; print(site.getsitepackages()[0])')/server.pth"
    install "$venv" "$lock"
    printf '%s\n' "$wanted" >"$venv/.lock"
  fi
  test_python=$venv/bin/python
}

cd "$here"
choose_python
make_test_tools
export REPRO_SERVER_PYTHON=$python
exec "$test_python" -m pytest "$@"

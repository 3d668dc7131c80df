#!/usr/bin/env bash
# bash benchmarks/pp_clock_on_off.sh OUT [options of run_repro.sh]: what the shim pp_clock costs.
#
# One server, in which the clock is on and off in windows of 50 turns (REPRO_PP_CLOCK_ALTERNATE),
# then the ratio of the last rank's turns with it to those without. 2000 tokens a prompt are some 40
# pairs of windows with two micro-batches in flight.
set -euo pipefail
[[ ${1:-} && $1 != -* ]] || { sed -n 's/^# \{0,1\}//p' "$0" | sed 1d && exit 2; }
root=$(cd -- "$(dirname -- "$0")/.." && pwd)
out=$1
shift
export REPRO_PP_CLOCK_ALTERNATE=${REPRO_PP_CLOCK_ALTERNATE:-50}
bash "$root/run_repro.sh" --cases graphs_on --no-profile --max-new-tokens 2000 --out "$out" "$@"
grep -H 'Clock on / off' "$out"/logs/*_pp_clock.txt && exit
echo "no ratio: fewer than five pairs of windows; a larger --max-new-tokens, or a" >&2
echo "smaller REPRO_PP_CLOCK_ALTERNATE, gives more" >&2
exit 1

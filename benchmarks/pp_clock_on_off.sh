#!/usr/bin/env bash
# bash benchmarks/pp_clock_on_off.sh OUT [options of run_repro.sh]: what the shim pp_clock costs.
#
# One server, in which the clock is on and off in windows of 8 turns (REPRO_PP_CLOCK_ALTERNATE; at
# least 4 for each micro-batch in flight), then the ratio of the last rank's decode turns with it to
# those without, and whether the limit is kept. 400 tokens a prompt are three to six passes with
# those of the warm-up: 2,400 to 4,800 turns of two micro-batches, one to two minutes of 24 ms each.
# Ends with 0 where the limit is kept, 1 where it is broken, 3 where neither can be told.
set -euo pipefail
[[ ${1:-} && $1 != -* ]] || { sed -n 's/^# \{0,1\}//p' "$0" | sed 1d && exit 2; }
root=$(cd -- "$(dirname -- "$0")/.." && pwd)
out=$1
shift
export REPRO_PP_CLOCK_ALTERNATE=${REPRO_PP_CLOCK_ALTERNATE:-8}
bash "$root/run_repro.sh" --cases graphs_on --no-profile --max-new-tokens 400 --out "$out" "$@"
verdict=$(sed -sn '/^Clock on \/ off/,/^$/p' "$out"/logs/*_pp_clock.txt)
case ${verdict//$'\n'/ } in
*BROKEN*) status=1 ;;
'' | *'cannot tell'*) status=3 ;;
*) status=0 ;;
esac
echo
echo "${verdict:-No ratio: fewer than ten groups of windows; a larger --max-new-tokens gives more.}"
exit "$status"

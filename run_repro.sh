#!/usr/bin/env bash
#
# run_repro.sh - A/B of an sglang pipeline-parallel server: decode CUDA graphs on, then off.
#                For sglang issue #10865.
#
# USAGE: ./run_repro.sh [options]      (-h for all of them, with examples)
#
# For each launch: server up, warm up, measure, then profile under a second load, server down,
# merge and analyse the traces. Leaves logs/ and trace/, and prints a side-by-side table.
#
# REQUIREMENTS: Linux, bash 4.4+, Python 3.10-3.13. sglang is installed into .venv-gpu or
# .venv-cpu here when the active Python has none.
#
# OVERHEAD: measurement and profile are separate passes; nothing is recorded while measuring.
# The profile pass slows the server and is never part of a reported number.
#
# EXIT: 0 all launches measured; 1 one failed; 2 usage or preflight, or another run is at work in
# --out; 130 interrupted.

set -euo pipefail
export PYTHONSAFEPATH=1 # in the folder above a checkout of sglang, `sglang` is that folder

### default variables
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
state=$here/.state
out=$here
opt_python="" opt_dry_run=0 opt_cpu=0 opt_nsys=0 opt_engine=sglang
engine_module=sglang # what the interpreter must have
start_timeout_s=1800
stop_grace_s=20   # for a server to end by itself after SIGINT
nsys_grace_s=900  # the same under nsys, which then writes its report
load_s=3600       # the profile pass ends its load much earlier
plan_options=()
server_pid="" load_pid="" step_pid="" current="" begun=0 made_out=0
merged=() # of the first two launches, the folders whose traces are whole

# shellcheck source=repro_pp_graphs/sh/group.sh
source "$here/repro_pp_graphs/sh/group.sh"
# shellcheck source=repro_pp_graphs/sh/step.sh
source "$here/repro_pp_graphs/sh/step.sh"
# shellcheck source=repro_pp_graphs/sh/setup.sh
source "$here/repro_pp_graphs/sh/setup.sh"

usage() {
  cat <<'USAGE'
USAGE: ./run_repro.sh [options]

  --cases A,B          cases to run: server_args_<name>.txt each
                       (default graphs_on,graphs_off)
  --rounds N           launches a case, in ABBA order (default 1)
  --pp-size N          pipeline ranks (default: server_args_base.txt)
  --model PATH         model folder or hub name (default: server_args_base.txt)
  --dummy-weights      the model's shape with random weights: no download
  --layers N           that many layers only
  --batch N            prompts in flight (default 16; rehearsal 8)
  --max-new-tokens N   tokens a prompt (default 128; rehearsal 48)
  --port P             server port (default: server_args_base.txt)
  --out DIR            results go to DIR/logs and DIR/trace (default: here)
  --engine probe       the PP ring as a small torch program in place of sglang
                       (docs/mechanism.md); blocking sends as in sglang 0.5.2
  --python PATH        interpreter that has sglang (default: $PYTHON, the active
                       python3, else an environment made here)
  --one-gpu            let ranks share GPUs, in time slices
  --cpu                rehearse on the CPU even where there are GPUs
  --no-profile         measure only, no traces
  --no-pp-clock        do not time the waits of every turn (docs/pp_clock.md)
  --profile-steps N    forward steps to trace (default 48; rehearsal 24)
  --with-stack         Python stacks in the traces (slows arm B more than A)
  --nsys               run each server under `nsys profile` (no torch traces)
  --start-timeout S    give a server up after S seconds (default 1800)
  --resume             go on with the run in DIR, skip finished launches
  --dry-run            print every command and file, run nothing
  -h, --help           this text

EXAMPLES:
  ./run_repro.sh                             # 4 GPUs: 70B; no GPU: a rehearsal
  ./run_repro.sh --pp-size 2                 # on two GPUs
  ./run_repro.sh --dummy-weights --layers 16 # no download, 16 layers
  ./run_repro.sh --one-gpu --pp-size 4 --dummy-weights --layers 16
  ./run_repro.sh --rounds 4 --no-profile     # enough launches to compare
  ./run_repro.sh --engine probe              # the mechanism, without weights
  ./run_repro.sh --dry-run                   # what would run
USAGE
}

### options
need_value() { # need_value OPTION COUNT
  (($2 >= 2)) || die 2 "$1 needs a value (see --help)"
}

parse_options() {
  while (($#)); do
    local option=${1//_/-}
    case $option in
      -h | --help)
        usage
        exit 0
        ;;
      --dry-run) opt_dry_run=1 plan_options+=("$option") ;;
      --cpu) opt_cpu=1 plan_options+=("$option") ;;
      --nsys) stop_grace_s=$nsys_grace_s opt_nsys=1 plan_options+=("$option") ;;
      --dummy-weights | --one-gpu | --no-profile | --no-pp-clock | --with-stack | --resume)
        plan_options+=("$option")
        ;;
      --out) need_value "$option" $# && out=$2 && shift ;;
      --python) need_value "$option" $# && opt_python=$2 && shift ;;
      --engine)
        need_value "$option" $#
        opt_engine=$2
        plan_options+=("$option" "$2")
        shift
        ;;
      --start-timeout) need_value "$option" $# && start_timeout_s=$2 && shift ;;
      --cases | --model)
        need_value "$option" $#
        plan_options+=("$option" "$2")
        shift
        ;;
      --rounds | --pp-size | --layers | --batch | --max-new-tokens | --port | --profile-steps)
        need_value "$option" $#
        [[ $2 =~ ^[1-9][0-9]*$ ]] || die 2 "$option $2: not a whole number of 1 or more"
        [[ $option != --port ]] || (($2 < 65536)) || die 2 "--port $2: the highest is 65535"
        plan_options+=("$option" "$2")
        shift
        ;;
      *) die 2 "no option '$1' (see --help)" ;;
    esac
    shift
  done
  [[ $start_timeout_s =~ ^[1-9][0-9]*$ ]] ||
    die 2 "--start-timeout $start_timeout_s: not a number of seconds"
  case $opt_engine in
    sglang) ;;
    probe) engine_module=torch ;;
    *) die 2 "--engine $opt_engine: sglang, or probe (the PP ring without sglang)" ;;
  esac
  [[ $out == /* ]] || out=$PWD/$out
}

### steps
set_commands() { # once the interpreter is known
  tool=(env "PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH}" "$python" -m repro_pp_graphs)
  client=("$python" "$here/client_benchmark.py" --prompts "$here/prompts.txt")
}

start_server() { # start_server LABEL
  begin_group server_pid "$out/logs/$1_server.log" bash "$out/logs/$1_server_command.sh"
}

# 0; 1 where the traces are not those that the profile saw
stop_server() { # stop_server LABEL GRACE_SECONDS
  end_group "$server_pid" "$2"
  server_pid=""
  step "${tool[@]}" settle "$out" "$1"
}

measure() { # measure LABEL URL: the unprofiled pass, whose numbers are reported
  local log=$out/logs/$1_client.log status=0
  step -o "$log" "${client[@]}" --base-url "$2" --batch "$batch" \
    --max-new-tokens "$max_new_tokens" --warmup 1 --warmup-passes "$warmup_passes" --control 5 \
    --output "$out/logs/$1_client.json" || status=$?
  if ((status == 0)); then
    say "  client  $(sed -n 's/^throughput *//p' "$log")"
    return 0
  fi
  # a server that has died is explained, as at its start
  step "${tool[@]}" wait-ready "$out/logs" "$1" "$server_pid" --if-dead \
    --exit-file "$(exit_file "$server_pid")" || return 1
  if grep -q stalled "$log"; then # it lives and sends nothing: what its ranks do, while they live
    mark "$1" failed "the server stalled; see $log and $out/logs/$1_hang.txt"
    step "${tool[@]}" hang "$out/logs" "$1" "$server_pid" || true
  else
    mark "$1" failed "client: exit $status; see $log"
  fi
  return 1
}

profile() { # profile LABEL URL: a second load, profiled until every rank's trace is whole
  local status=0
  begin_group load_pid "$out/logs/$1_profile_load.log" "${client[@]}" --base-url "$2" \
    --batch "$batch" --max-new-tokens "$((max_new_tokens * 4))" --warmup 0 --duration "$load_s"
  step "${tool[@]}" profile "$out" "$1" "$server_pid" \
    --exit-file "$(exit_file "$server_pid")" || status=$?
  end_group "$load_pid" 5 TERM
  load_pid=""
  printf '%s\n' "" "(A load to profile the server under, ended with the profile: interrupted" \
    "prompts are as it should be. No reported number is from it.)" \
    2>/dev/null >>"$out/logs/$1_profile_load.log" || true
  return "$status"
}

explain() { # explain LABEL: the traces as one, and in numbers
  local trace=$out/trace/$1 analysis=$out/logs/$1_analysis
  step -a "$out/logs/merge.log" "${tool[@]}" merge "$trace" -o "${trace}_chrome_trace.json" &&
    step -w "$analysis.txt" "${tool[@]}" analyze "$trace" --json "$analysis.json" && return
  mark "$1" failed "the traces could not be read; see $out/logs/merge.log"
  return 1
}

mark() { # mark LABEL STATUS [REASON]: a reason is printed too
  step "${tool[@]}" status "$out/logs" "$@" || true
}

begin() { # begin LABEL: its record, and nothing of another origin where its results will be
  current=$1
  step "${tool[@]}" begin "$out" "$1" --root "$here" && return
  mark "$1" failed
  current=""
  return 1
}

side_by_side() { # side_by_side FILE: the first two launches in one view, decode starts aligned
  ((${#merged[@]} >= 2)) || return 0
  step -a "$out/logs/merge.log" "${tool[@]}" merge "${merged[@]}" -o "$out/$1" ||
    say "  the side-by-side trace failed; see $out/logs/merge.log"
}

# 0 measured, 1 failed. Never ends the run: the other cases still count.
run_launch() { # run_launch LABEL URL
  local label=$1 url=$2 status=0 grace_s=$stop_grace_s died=()
  say "$label"
  begin "$label" || return
  start_server "$label"
  if ! step "${tool[@]}" wait-ready "$out/logs" "$label" "$server_pid" \
    --exit-file "$(exit_file "$server_pid")" --timeout-s "$start_timeout_s"; then
    status=1 grace_s=1
  elif ! measure "$label" "$url"; then
    status=1
  elif ((traced)); then
    profile "$label" "$url" || status=1
  fi
  # seen with graphs on: a crash once the traces are whole costs nothing but a warning
  leader_lives "$server_pid" || died=(--server-died)
  ((!opt_nsys)) || say "  nsys writes trace/$label.nsys-rep: minutes"
  stop_server "$label" "$grace_s" || status=1
  if ((status == 0 && opt_nsys)) && [[ ! -s $out/trace/$label.nsys-rep ]]; then
    mark "$label" failed "nsys left no $out/trace/$label.nsys-rep; see the server's log"
    status=1
  fi
  if ((status == 0 && traced)); then
    explain "$label" || status=1
  fi
  if ((status == 0)); then
    step "${tool[@]}" check-arm "$out/logs" "$label" "$out/logs/${label}_analysis.json" \
      "${died[@]}" || status=1
  fi
  if ((status == 0)); then
    mark "$label" ok
  else
    mark "$label" failed
  fi
  current=""
  return "$status"
}

# 0 measured, 1 failed; measured and traced by one program, which needs no server
run_probe() { # run_probe LABEL
  local label=$1 logs=$out/logs status=0
  say "$label (probe)"
  begin "$label" || return
  # shellcheck disable=SC2016 # the inner shell expands them
  if ! step -o "$logs/${label}_client.log" bash -c 'exec bash "$1" 2>"$2"' probe \
    "$logs/${label}_probe_command.sh" "$logs/${label}_probe.log"; then
    mark "$label" failed "$(tail -n 1 "$logs/${label}_probe.log")"
    status=1
  elif ((traced)); then
    explain "$label" || status=1
  fi
  if ((status == 0 && traced)); then
    step "${tool[@]}" check-arm "$logs" "$label" "$logs/${label}_analysis.json" || status=1
  fi
  step "${tool[@]}" settle "$out" "$label" || status=1
  ((status)) || mark "$label" ok
  current=""
  return "$status"
}

collect_env() { # collect_env NAME: text and JSON of the same facts
  # shellcheck disable=SC2016 # the inner shell expands them
  step -w "$out/logs/$1.txt" bash -c 'exec bash "$@" 2>/dev/null' collect_env \
    "$here/collect_env.sh" --python "$python" --json-file "$out/logs/$1.json" ||
    say "  no $out/logs/$1.txt: collect_env failed"
}

### the one trap
# shellcheck disable=SC2317,SC2329 # the trap calls it
undo() {
  local status=$? was_interrupted=$interrupted
  trap - EXIT
  trap '' INT TERM HUP # a second Ctrl-C must not stop the clean-up
  interrupted=0        # else its own steps would end it
  [[ -z $step_pid ]] || end_group "$step_pid" 5 TERM
  [[ -z $load_pid ]] || end_group "$load_pid" 3 TERM
  [[ -z $server_pid ]] || end_group "$server_pid" 3
  if ((was_interrupted && begun)); then
    [[ -z $current ]] || mark "$current" interrupted
    say "interrupted; measured so far:"
    step "${tool[@]}" summary "$out" || true
  fi
  unlock
  exit "$status"
}

# shellcheck disable=SC2317,SC2329 # the trap calls it
interrupt() {
  interrupted=1
  ((beginning)) || exit 130 # else the process that has just begun is not yet known
}

# shellcheck disable=SC2317,SC2329 # the trap calls it
unlock() { # give up --out, which the plan took for this process
  local boot pid start mine started
  { read -r boot pid start _ <"$out/run.lock"; } 2>/dev/null || return 0
  read -r mine </proc/sys/kernel/random/boot_id
  read_start_time started $$
  [[ "$boot $pid $start" == "$mine $$ $started" ]] || return 0
  rm -f "$out/logs/.reserve" "$out/run.lock"
  ((!made_out)) || rmdir "$out" 2>/dev/null || true # nothing came to be
}

make_plan() { # into lines, of whichever file nobody else can see
  local file
  file=$(mktemp) && exec {planned}<>"$file" && rm -f "$file"
  step -o "/dev/fd/$planned" "${tool[@]}" plan --root "$here" --out "$out" --python "$python" \
    --owner "$$" "${plan_options[@]}" || exit 2
  mapfile -t lines <&"$planned"
  exec {planned}<&-
}

main() {
  parse_options "$@"
  trap undo EXIT
  trap interrupt INT TERM HUP
  ((opt_dry_run)) || clean_up_killed_runs
  choose_python
  set_commands
  local lines planned failed=0 ran=0 label url resumed line number=0 pair
  [[ -d $out ]] || made_out=1
  make_plan
  if ((opt_dry_run)); then
    printf '%s\n' "${lines[@]}"
    exit 0
  fi
  # first the load, then a launch a line
  IFS=$'\t' read -r batch max_new_tokens warmup_passes traced pair <<<"${lines[0]}"
  mkdir -p "$out/trace"
  begun=1
  [[ -s $out/logs/env.json ]] || collect_env env # --resume: that of the first launch stays
  for line in "${lines[@]:1}"; do
    IFS=$'\t' read -r label url resumed <<<"$line"
    if ((resumed)); then
      :
    elif [[ $opt_engine == probe ]]; then
      ran=1
      run_probe "$label" || failed=1
    else
      ran=1
      run_launch "$label" "$url" || failed=1
    fi
    ((++number > 2)) || [[ ! -e $out/trace/${label}_chrome_trace.json ]] ||
      merged+=("$out/trace/$label")
  done
  if ((ran)); then
    side_by_side "$pair"
    collect_env env_after
  fi
  step "${tool[@]}" summary "$out" || failed=1
  exit "$failed"
}

main "$@"

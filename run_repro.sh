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
# REQUIREMENTS: Linux, bash 4.4+, Python 3.10-3.13. sglang is installed into a .venv-* here
# when the active Python has none.
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
opt_python="" opt_release="" opt_dry_run=0 opt_cpu=0 opt_gpus=0 opt_attach=0
engine_module=sglang # what the interpreter must have
stop_grace_s=20      # for a server to end by itself after SIGINT
nsys_grace_s=900     # the same under nsys, which then writes its report
srun_grace_s=0       # more, for servers on several nodes
options=()
terminal=0 # a descriptor to ask on, where there is a terminal and something to ask
chosen="" # the interpreter of the run, once there is one to plan with
server_pid="" load_pid="" step_pid="" current="" begun=0
merged=() # of the first two launches, the folders whose traces are whole
# what the plan sets
engine=sglang nsys=0 traced=0 mps=0 attached=0 server_port="" start_timeout_s=1800 pair="" load=() labels=() urls=() resumed=()
more_loads=("") profiled_loads=() # of a sweep, names from 1 on; for each launch the numbers of its own
nodes=1 srun=""

# shellcheck source=repro_pp_graphs/sh/group.sh
source "$here/repro_pp_graphs/sh/group.sh"
# shellcheck source=repro_pp_graphs/sh/step.sh
source "$here/repro_pp_graphs/sh/step.sh"
# shellcheck source=repro_pp_graphs/sh/setup.sh
source "$here/repro_pp_graphs/sh/setup.sh"
# shellcheck source=repro_pp_graphs/sh/mps.sh
source "$here/repro_pp_graphs/sh/mps.sh"
# shellcheck source=repro_pp_graphs/sh/leave.sh
source "$here/repro_pp_graphs/sh/leave.sh"

usage() {
  cat <<'USAGE'
USAGE: ./run_repro.sh [options]

  --cases A,B          cases to run: server_args_<name>.txt each
                       (default graphs_on,graphs_off)
  --rounds N           launches a case, in balanced blocks (ABBA; default 1);
                       4+4: four, a look at the results, then four more
  --aa                 one case against itself: how much is noise
  --sends HOW          blocking: graphs on and off with sends that hold the
                       host, as in sglang 0.5.2; both: these two beside those
                       as released, and whether graphs change TPOT otherwise
                       with them (sglang 0.5.7 or newer)
  --pp-size N          pipeline ranks (default: server_args_base.txt)
  --tp-size N          tensor-parallel ranks of each of them (default: there)
  --model PATH         model folder or hub name (default: server_args_base.txt)
  --dummy-weights      the model's shape with random weights: no download
  --layers N           that many layers only
  --batch N            prompts in flight (default 16; rehearsal 8)
  --max-new-tokens N   tokens a prompt (default 256; rehearsal 48)
  --sweep AXIS=V,...   several loads on every server, one after another: a table
                       and a picture over them. Axes: batch, micro_batch,
                       input_len, tokens, rate (requests/s), mix (none or
                       4000@2: beside the load 4000-token prompts at 2/s)
  --profile-loads NAME of a sweep: profile under these loads too (b64_in4000, or
                       all), in the first launch of a case
  --port P             server port (default: server_args_base.txt)
  --out DIR            results go to DIR/logs and DIR/trace (default: here)
  --engine probe       the PP ring as a small torch program in place of sglang
                       (docs/mechanism.md); blocking sends as in sglang 0.5.2
  --python PATH        interpreter that has sglang (default: $PYTHON, the active
                       python3, else an environment made here)
  --release V          sglang 0.5.2, 0.5.6.post2 or 0.5.23, in an environment
                       made here; a GPU box without sglang gets 0.5.2. For one
                       case: a line RELEASE=V in its file. --dry-run --gpus N
                       plans with any other V too
  --one-gpu            let all ranks share the GPUs there are, in time slices
  --ranks-per-gpu N    the same with N ranks a GPU: --pp-size 4 on two GPUs
  --mps                ranks that share a GPU run side by side: an MPS daemon
                       is started, and ended, for each launch alone
  --sockets            NCCL over sockets in place of NVLink: a stand-in for
                       hosts apart (docs/several_hosts.md)
  --cpu                rehearse on the CPU even where there are GPUs
  --pin-cpus HOW       auto: each rank on cores of its own, near its GPU; or the
                       cores of each rank: 0-3:4-7 (default off)
  --no-profile         measure only, no traces
  --no-pp-clock        do not time the waits of every turn (docs/pp_clock.md)
  --profile-steps N    forward steps to trace (default 48; rehearsal 24)
  --with-stack         Python stacks in the traces (slows arm B more than A)
  --nsys               run each server under `nsys profile` (no torch traces)
  --start-timeout S    give a server up after S seconds (default 1800)
  --resume             go on with the run in DIR: finished launches are kept,
                       but a block of --rounds that lost one runs again from
                       that round on; more --rounds extend it
  --nodes N            in a Slurm allocation: on its first N nodes (default:
                       all; docs/several_hosts.md)
  --srun OPTIONS       more options for srun, as '--container-image=IMAGE'
  --attach URL         measure and profile a server that is already running, by
                       4 prompts (--batch); asks first, starts and ends nothing
  --trace-dir DIR      of --attach: where it shall write its traces, a folder
                       that it and this machine see (default: its own)
  --yes                of --attach: send the load without asking
  --dry-run            print every command and file, and what would stop the
                       run (exit status 2, as the run's would be); run nothing
  --gpus N             of --dry-run: as if there were N GPUs of 80 GB, on
                       another machine: what this one lacks stops nothing.
                       8x141: eight of 141 GB; with --nodes: those of each
  -h, --help           this text

EXAMPLES:
  ./run_repro.sh                             # 4 GPUs: 70B; no GPU: a rehearsal
  ./run_repro.sh --pp-size 2                 # on two GPUs of 141 GB
  ./run_repro.sh --dummy-weights --layers 16 # no download, 16 layers
  ./run_repro.sh --one-gpu --release 0.5.23 --pp-size 4 \
    --dummy-weights --layers 16              # ranks share a GPU
  ./run_repro.sh --rounds 4                  # enough launches to compare
  ./run_repro.sh --rounds 4 --resume         # the same, after a first round
  ./run_repro.sh --aa --rounds 4             # how far equal arms differ
  ./run_repro.sh --sweep batch=4,16,64 input_len=100,4000 # six loads
  ./run_repro.sh --sends both --rounds 4     # graphs x sends, 16 launches
  ./run_repro.sh --engine probe              # the mechanism, without weights
  ./run_repro.sh --attach http://127.0.0.1:30000  # a server that is up
  sbatch run_repro.sbatch --pp-size 16       # on the nodes of a Slurm job
  ./run_repro.sh --dry-run                   # what would run
  ./run_repro.sh --dry-run --gpus 8          # on a machine with 8 GPUs
  ./run_repro.sh --dry-run --gpus 8x141 --release 0.5.23 \
    --model deepseek-ai/DeepSeek-V3 --pp-size 4 --tp-size 2 # on 8 H200s
USAGE
}

### options
# What would stop the run is no reason to install gigabytes first.
before_install() { # before_install PYTHON VERSION: of the sglang that is to be installed
  local own=(--python "$python" --not-made "$2")
  [[ -z $chosen ]] || own=(--python "$chosen") # of one case, which names it
  step env "PYTHONPATH=$here" "$1" -m repro_pp_graphs plan --ahead --root "$here" --out "$out" \
    "${own[@]}" -- "${options[@]}" || exit 2
}

# What must be known before there is an interpreter; the plan reads all options, and complains.
read_options() {
  local word previous=""
  for word; do
    if [[ $word == --*=* ]]; then
      options+=("${word%%=*}" "${word#*=}")
    else
      options+=("$word")
    fi
  done
  for word in "${!options[@]}"; do
    [[ ${options[word]} != --* ]] || options[word]=${options[word]//_/-}
  done
  for word in "${options[@]}"; do
    case $previous in
      --out) out=$word ;;
      --python) opt_python=$word ;;
      --release) opt_release=$word ;;
      --engine) [[ $word != probe ]] || engine_module=torch ;;
    esac
    previous=$word
    case $word in
      -h | --help)
        usage 2>/dev/null || die 2 "stdout takes no more: send it to a file with room"
        exit 0
        ;;
      --dry-run) opt_dry_run=1 ;;
      --gpus) opt_gpus=1 ;;
      --cpu) opt_cpu=1 ;;
      --attach) opt_attach=1 engine_module=msgspec ;; # its sglang is elsewhere
    esac
  done
  [[ -n $out && $out != - ]] || die 2 "--out '$out': name a folder, or leave --out out"
  [[ $out == /* ]] || out=$PWD/$out
}

is_open() { # is_open DESCRIPTOR: bash opens this file at the first that is closed
  [[ -L /proc/self/fd/$1 && ! /proc/self/fd/$1 -ef ${BASH_SOURCE[0]} ]]
}

# What would fail later, and not say why
check_place() {
  # closed: what is opened next would get its number
  is_open 0 || exec </dev/null
  is_open 2 || exec 2>/dev/null
  is_open 1 || die 2 "stdout is closed: send it to a file, or to /dev/null"
  [[ $here != *[:[:cntrl:]]* ]] || die 2 "$here: PYTHONPATH cannot name a folder with a ':' or a \
control character: move the checkout"
  check_state
}

check_state() { # its records say which processes to end, its files what an sglang takes
  local owner mode mine
  [[ -e $state || -L $state ]] || return 0
  read -r owner mode < <(stat -Lc '%u %a' -- "$state" 2>/dev/null) || true # leads nowhere
  mine=$(stat -Lc %u -- "$here")
  [[ ! -d $state || ($owner != "$EUID" && $owner != "$mine") ]] || ((8#$mode & 2)) || return 0
  die 2 "$state: another user can write it, so that what it says cannot be trusted: remove it, or \
use a checkout of your own"
}

check_writable() { # what a run notes there: environments, models, the processes that it began
  [[ -w $state || (! -e $state && -w $here) ]] ||
    die 2 "$state: cannot be written by $(id -un 2>/dev/null || id -u): use a checkout of your own"
}

### steps
tool() { # tool [-o FILE | -a FILE] COMMAND ARGS: a step of the harness, in Python
  local to=()
  [[ $1 != -[oa] ]] || { to=("$1" "$2") && shift 2; }
  PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH} \
    step "${to[@]}" "${planner:-$python}" -m repro_pp_graphs "$@"
}

server_step() { # server_step COMMAND LABEL ARGS: one that may have to say why the server died
  tool "$1" "$out" "$2" "${server_pid:-0}" --exit-file "$(exit_file "$server_pid")" "${@:3}"
}

profile() { # profile LABEL URL [NUMBER]: a second load, profiled until every rank's trace is whole
  local label=$1 url=$2 status=0 words=("${load[@]}") log=$1 asked=()
  if (($# == 3)); then # one of a sweep's other loads
    local -n other=load_$3
    words=("${other[@]}") log=$1_at_${more_loads[$3]} asked=(--load "${more_loads[$3]}")
    server_step set-load "$label" "${asked[@]}" || return 1
  fi
  log=$out/logs/${log}_profile_load.log
  begin_group load_pid "$log" "${words[@]}" --base-url "$url"
  server_step profile "$label" "${asked[@]}" || status=$?
  end_group "$load_pid" 5 TERM
  load_pid=""
  printf '%s\n' "" "(The load under which the server was profiled. It is cut off when profiling" \
    "ends, so interrupted prompts are expected. No reported number is from it.)" \
    2>/dev/null >>"$log" || true
  return "$status"
}

# finish LABEL STATUS TRACED [OPTION]: its traces explained, free again, checked, recorded; returns
# how the launch ended
finish() {
  local how=() status=0
  if (($2)); then
    how=(--failed)
  elif (($3)); then
    tool explain "$out" "$1" --then finish "$out" "$1" "${@:4}" || status=$?
    ((status > 1)) || return "$status"
    how=(--failed) # not explained, or killed while it was
  fi
  tool finish "$out" "$1" "${how[@]}" "${@:4}" || return 1
}

side_by_side() { # the first two launches in one view, decode starts aligned
  ((${#merged[@]} >= 2)) || return 0
  [[ ${merged[0]} < ${merged[1]} ]] || merged=("${merged[1]}" "${merged[0]}") # A above B
  tool -a "$out/logs/merge.log" merge "${merged[@]}" -o "$out/$pair" ||
    say "  $pair was not written; see $out/logs/merge.log"
}

# 0 measured, 1 failed. Never ends the run: the other cases still count.
run_launch() { # run_launch LABEL URL [NUMBER...]: of the other loads of a sweep to profile too
  local label=$1 url=$2 status=0 grace_s=$stop_grace_s died=() number
  local command=(bash "$out/logs/${label}_server_command.sh")
  say "$label"
  current=$label
  tool begin "$out" "$label" --root "$here" || {
    finish "$label" 1 0 || current=""
    return 1
  }
  if ((mps)) && ! start_mps "$label"; then
    finish "$label" 1 0 --reason "--mps: its daemon did not start (see $out/mps/$label.log): leave \
--mps out, and ranks take turns" || current=""
    return 1
  fi
  ((nodes == 1)) || command=(bash "$here/repro_pp_graphs/sh/servers.sh" "$out" "$label" "$grace_s")
  begin_group server_pid "$out/logs/${label}_server.log" "${mps_env[@]}" "${command[@]}"
  server_step wait-ready "$label" --timeout-s "$start_timeout_s" \
    --then measure "$out" "$label" "$server_pid" --exit-file "$(exit_file "$server_pid")" \
    --root "$here" || status=$?
  ((status != 3)) || grace_s=1 # it never answered
  ((status == 0)) || status=1
  if ((status == 0 && traced)); then
    profile "$label" "$url" || status=1
    if ((status == 0)); then
      for number in "${@:3}"; do profile "$label" "$url" "$number" || true; done
    fi
  fi
  # seen with graphs on: a crash once the traces are whole costs nothing but a warning
  leader_lives "$server_pid" || died=(--server-died)
  ((!nsys)) || say "  nsys writes trace/$label.nsys-rep: minutes"
  end_group "$server_pid" "$((grace_s + srun_grace_s))"
  server_pid=""
  stop_mps
  finish "$label" "$status" "$traced" "${died[@]}" || status=1
  current=""
  return "$status"
}

# 0 measured, 1 failed, or measured without the profile; the server is nobody's to end
run_attached() { # run_attached LABEL URL
  local label=$1 url=$2 status=0 lacks=0
  say "$label"
  current=$label
  tool begin "$out" "$label" --root "$here" || status=1
  if ((status == 0)); then
    server_step measure "$label" --root "$here" || status=1
  fi
  if ((status == 0 && traced)); then
    profile "$label" "$url" || lacks=1
  fi
  finish "$label" "$status" "$((traced && !lacks))" || status=1
  current=""
  return "$((status | lacks))"
}

# 0 measured, 1 failed; measured and traced by one program, which needs no server
run_probe() { # run_probe LABEL
  local label=$1 logs=$out/logs status=0
  say "$label (probe)"
  current=$label
  tool begin "$out" "$label" --root "$here" || status=1
  # shellcheck disable=SC2016 # the inner shell expands them
  if ((status == 0)); then
    step -o "$logs/${label}_client.log" bash -c 'exec bash "$1" 2>"$2"' probe \
      "$logs/${label}_probe_command.sh" "$logs/${label}_probe.log" || status=1
  fi
  finish "$label" "$status" "$traced" || status=1
  current=""
  return "$status"
}

collect_env() { # collect_env NAME: text and JSON of the same facts
  local port=(--no-server) # those of a run are not up now
  [[ -z $server_port ]] || port=(--port "$server_port")
  # shellcheck disable=SC2016 # the inner shell expands them
  step -w "$out/logs/$1.txt" bash -c 'exec bash "$@" 2>/dev/null' collect_env \
    "$here/collect_env.sh" --python "$python" "${port[@]}" --json-file "$out/logs/$1.json" ||
    say "  no $out/logs/$1.txt: collect_env failed"
}

make_plan() { # of whichever file nobody else can see; sets what the plan sets, or prints it
  local file planned status=0 release
  ((!opt_attach)) || [[ ! -t 0 ]] || exec {terminal}<&0
  file=$(mktemp) && exec {planned}<>"$file" && rm -f "$file"
  tool -o "/dev/fd/$planned" plan --root "$here" --out "$out" --python "$python" --owner "$$" \
    --not-made "$not_made" --terminal "$terminal" --command "$0" \
    "--found-by=$found_by" -- "${options[@]}" || status=$?
  if ((status == 3)); then # a case names a release whose environment is not made yet
    read -r release <&"$planned"
    exec {planned}<&-
    unlock
    chosen=$python
    use_environment "$release"
    python=$chosen
    make_plan
    return
  fi
  if ((opt_dry_run)); then
    cat <&"$planned" || exit 2 # it has said why
  fi
  ((status == 0 && !opt_dry_run)) || exit "$((status ? 2 : 0))"
  # shellcheck source=/dev/null
  source "/dev/fd/$planned"
  exec {planned}<&-
  ((!terminal)) || exec {terminal}<&-
  ((!nsys)) || stop_grace_s=$nsys_grace_s
}

main() {
  check_place
  read_options "$@"
  # bash cannot trap what it was started ignoring
  ((opt_dry_run)) || [[ -z $(trap -p INT) ]] ||
    say "SIGINT is ignored here, as in what a script starts with &: kill $$ ends this run" >&2
  trap undo EXIT
  trap interrupt INT TERM HUP
  ((opt_dry_run)) || check_writable
  ((opt_dry_run)) || clean_up_killed_runs
  choose_python
  umask 077 # results hold prompts, and logs
  note_made
  make_plan
  short mkdir -p "$out/trace"
  if ((nodes > 1)); then
    srun_grace_s=20
    tool nodes "$out" --srun "$srun" || exit 2
  fi
  begun=1
  [[ -s $out/logs/env.json ]] || collect_env env # --resume: that of the first launch stays
  local number label failed=0 ran=0
  for number in "${!labels[@]}"; do
    label=${labels[number]}
    if ((!resumed[number])); then
      ran=1
      if [[ $engine == probe ]]; then
        run_probe "$label" || failed=1
      elif ((attached)); then
        run_attached "$label" "${urls[number]}" || failed=1
      else
        # shellcheck disable=SC2086 # several numbers
        run_launch "$label" "${urls[number]}" ${profiled_loads[number]:-} || failed=1
      fi
    fi
    if ((number < 2)) && [[ -e $out/trace/${label}_chrome_trace.json ||
      -e $out/trace/${label}_chrome_trace.json.gz ]]; then
      merged+=("$out/trace/$label")
    fi
  done
  if ((ran)); then
    side_by_side
    collect_env env_after
  fi
  tool summary "$out" || failed=1
  exit "$failed"
}

main "$@"

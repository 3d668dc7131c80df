# shellcheck shell=bash
# shellcheck disable=SC2154 # the script that sources this sets state
# Say, die, and run one step at a time. Uses: state, group.sh. Sets: step_pid, while a step runs
beginning=0 interrupted=0 # a trap that fires while a process begins leaves the exit to begun_one

# Into REPLY: the text with a ? for what could move the terminal's cursor, as in a folder's name, or
# turn the direction of what follows: control characters, those of UTF-8's C1 too, bidi overrides
plain() { # plain TEXT
  REPLY=${1//[[:cntrl:]]/?}
  local LC_ALL=C
  REPLY=${REPLY//$'\xc2'[$'\x80'-$'\x9f']/?}
  REPLY=${REPLY//$'\xd8\x9c'/?}
  REPLY=${REPLY//$'\xe2\x80'[$'\x8e\x8f\xa8'-$'\xae']/?}
  REPLY=${REPLY//$'\xe2\x81'[$'\xa6'-$'\xa9']/?}
}

die() { # die STATUS MESSAGE: in lines of 79 columns, paths whole
  local REPLY
  plain "$2"
  printf '%s: %s\n' "${0##*/}" "$REPLY" | awk '{
    line = $1
    for (n = 2; n <= NF; n++)
      if (length(line " " $n) > 79) { print line; line = "  " $n } else line = line " " $n
    print line
  }' >&2
  exit "$1"
}

say() {
  local REPLY
  plain "$*"
  printf '%s\n' "$REPLY" 2>/dev/null ||
    die 2 "stdout takes no more: send it to a file with room, or to /dev/null"
}

begun_one() { # now that the trap can find the process
  beginning=0
  ((!interrupted)) || exit 130
}

# In the background and waited for: bash runs a trap at once only while it waits.
# Output is redirected inside the subshell: a redirection of the call itself would also redirect
# what the trap prints.
# step [-o FILE | -w FILE | -a FILE] COMMAND ARGS: a program (no function); returns its status.
# -o: stdout as it comes; -w: FILE appears once it is whole; -a: appended, stderr too
step() {
  local status=0 to="" how="" file=""
  if [[ $1 == -[owa] ]]; then
    how=$1 file=$2 to=$2 && shift 2
    [[ $how != -w ]] || to=$file.part
  fi
  # shellcheck disable=SC2034 # the trap reads it
  beginning=1
  (
    trap - INT # bash starts background commands ignoring it
    case $how in
      -a) exec >>"$to" 2>&1 ;;
      -?) exec >"$to" ;;
    esac
    name_step "$@"
    record_group "$BASHPID" "$REPLY"
    exec setsid "$@" {nap_fd}>&-
  ) &
  step_pid=$!
  begun_one
  wait "$step_pid" || status=$?
  forget_group "$step_pid"
  step_pid=""
  [[ $how != -w ]] || keep_whole "$to" "$file" "$status" || status=$?
  return "$status"
}

name_step() { # name_step COMMAND ARGS: into REPLY, what a reader calls it: plan, collect_env.sh
  local more=""
  REPLY=$*
  [[ $REPLY != *" --then "* ]] || more=${REPLY##* --then } more=", ${more%% *}"
  case $REPLY in
    *" -m repro_pp_graphs "*) REPLY=${REPLY#* -m repro_pp_graphs } REPLY=${REPLY%% *}$more ;;
    */client_benchmark.py*) REPLY=client_benchmark.py ;;
    */collect_env.sh*) REPLY=collect_env.sh ;;
    *) REPLY=${1##*/} ;;
  esac
}

keep_whole() { # keep_whole DRAFT FILE STATUS: a step's output, once it is on the disk
  if (($3 == 0)) && short sync "$1" && short mv -f "$1" "$2"; then
    return 0
  fi
  short rm -f "$1"
  return 1
}

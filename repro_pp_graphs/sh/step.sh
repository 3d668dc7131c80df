# shellcheck shell=bash
# Say, die, and run one step at a time. Sets: step_pid, while a step runs
beginning=0 interrupted=0 # a trap that fires while a process begins leaves it to begun_one

die() { # die STATUS MESSAGE: in lines of 79 columns, paths whole
  printf '%s: %s\n' "${0##*/}" "$2" | awk '{
    line = $1
    for (n = 2; n <= NF; n++)
      if (length(line " " $n) > 79) { print line; line = "  " $n } else line = line " " $n
    print line
  }' >&2
  exit "$1"
}

say() {
  printf '%s\n' "$*"
}

begun_one() { # now that the trap can find the process
  beginning=0
  ((!interrupted)) || exit 130
}

# In the background and waited for: bash runs a trap at once only while it waits.
# With a redirection of its own: one on the call would still hold when the trap prints.
step() { # step [-o FILE | -a FILE] COMMAND ARGS: a program (no function); returns its status
  local status=0 to="" both=0
  case $1 in
    -o) to=$2 && shift 2 ;;
    -a) to=$2 both=1 && shift 2 ;; # appended, stderr too
  esac
  # shellcheck disable=SC2034 # the trap reads it
  beginning=1
  (
    trap - INT # bash starts background commands ignoring it
    [[ -z $to ]] || if ((both)); then exec >>"$to" 2>&1; else exec >"$to"; fi
    exec setsid "$@"
  ) &
  step_pid=$!
  begun_one
  wait "$step_pid" || status=$?
  step_pid=""
  return "$status"
}

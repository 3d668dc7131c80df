# shellcheck shell=bash
# Say, die, and run one step at a time. Sets: step_pid, while a step runs

die() { # die STATUS MESSAGE
  printf '%s: %s\n' "${0##*/}" "$2" >&2
  exit "$1"
}

say() {
  printf '%s\n' "$*"
}

# In the background and waited for: bash runs a trap at once only while it waits.
# With a redirection of its own: one on the call would still hold when the trap prints.
step() { # step [-o FILE] COMMAND ARGS: a program (no function); returns its status
  local status=0 to=""
  [[ $1 != -o ]] || { to=$2 && shift 2; }
  (
    trap - INT # bash starts background commands ignoring it
    [[ -z $to ]] || exec >"$to"
    exec setsid "$@"
  ) &
  step_pid=$!
  wait "$step_pid" || status=$?
  step_pid=""
  return "$status"
}

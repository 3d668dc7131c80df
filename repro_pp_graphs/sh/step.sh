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
step() { # step COMMAND ARGS: a program (no function); returns its status
  local status=0
  setsid "$@" &
  step_pid=$!
  wait "$step_pid" || status=$?
  step_pid=""
  return "$status"
}

# shellcheck shell=bash
# shellcheck disable=SC2154 # the script that sources this sets state
# Process groups: begin one, end one, and clean up after a harness that was killed.
# Uses: state (folder), say, die, begun_one. A record per group lies in $state/groups/<pid>:
#   boot id, harness pid, harness start time, leader pid, leader start time, what it is
# and once the leader has ended its exit status in $state/exits/<pid>.
declare -A waiters=() # by a group's pid: the process that waits for its leader

# Commands in the background and waited for, no process for a sleep: where SIGINT comes as bash 5.2
# begins to wait for a command in the foreground, it can send that to itself for ever, or lose it.
# And no second wait: the first, where a trap fired in it, may have taken the status with it.
short() { # short COMMAND ARGS: a short one, that no signal to the group cuts off
  local status=0
  (trap '' TERM HUP && exec "$@") & # it ignores SIGINT too, in the background
  wait "$!" || status=$?
  ((status > 128)) || return "$status"
  while leader_lives "$!"; do nap 0.02; done
}

exec {nap_fd}<> <(:) # a pipe that nobody writes to
nap() { # nap SECONDS: a short one; a trap fires at once
  read -rt "$1" -u "$nap_fd" || true
}

# No command substitution where a trap may fire: bash 5.2 then ends with a syntax error.
read_start_time() { # read_start_time VARIABLE PID: clock ticks since boot; empty for a dead process
  local -n ticks=$1
  local stat
  ticks=""
  { read -r stat <"/proc/$2/stat"; } 2>/dev/null || return 0
  # the command name before the last ) may itself hold spaces
  read -ra stat <<<"${stat##*) }"
  # shellcheck disable=SC2034 # the caller reads it
  ticks=${stat[19]}
}

# By the process itself, before it becomes the program: there is no moment without a record.
record_group() { # record_group PID WHAT: that it is this harness's
  local boot ours theirs
  read -r boot </proc/sys/kernel/random/boot_id
  read_start_time ours $$
  read_start_time theirs "$1"
  {
    [[ -d $state/groups && -d $state/exits ]] || mkdir -p "$state/groups" "$state/exits"
    [[ ! -e $state/exits/$1 ]] || rm -f "$state/exits/$1" # of an earlier process with that pid
    printf '%s %s %s %s %s %s\n' "$boot" $$ "$ours" "$1" "$theirs" "$2" >"$state/groups/$1"
  } 2>/dev/null || true
}

forget_group() { # forget_group PID
  short rm -f "$state/groups/$1" "$state/exits/$1"
}

exit_file() { # exit_file PID: where the exit status of a group's leader is noted
  printf '%s' "$state/exits/$1"
}

begin_group() { # begin_group VARIABLE LOG COMMAND...: runs COMMAND in a session of its own
  local -n group_pid=$1
  local log=$2 handed=$state/begun.$$ waiter
  shift 2
  # shellcheck disable=SC2034 # the trap reads it
  beginning=1
  [[ -d $state/groups && -d $state/exits ]] || short mkdir -p "$state/groups" "$state/exits"
  [[ ! -e $handed ]] || short rm -f "$handed" # of a harness that was killed, and had this pid
  # The waiter, a process of its own, notes the exit status: this shell forgets that of a disowned
  # job, and of another it would report the end on the terminal.
  (
    trap '' TERM HUP # it is in the terminal's group, as this shell is
    # were SIGINT ignored, bash would send one that comes as the wait begins to itself for ever
    trap 'interrupted=1' INT
    status=0 interrupted=0
    # bash starts background commands ignoring SIGINT; the server must hear ours
    # shellcheck disable=SC2094 # only the log's name is recorded
    (trap - INT TERM HUP && record_group "$BASHPID" "$log" && exec setsid "$@" {nap_fd}>&-) \
      >"$log" 2>&1 </dev/null &
    printf '%s\n' "$!" >"$handed"
    wait "$!" || status=$?
    if ((interrupted)); then
      while leader_lives "$!"; do nap 0.1; done
      status=0
      wait "$!" || status=$?
    fi
    printf '%s\n' "$status" >"$(exit_file "$!")"
  ) 2>/dev/null &
  waiter=$!
  until read -r group_pid <"$handed"; do
    leader_lives "$waiter" || {
      begun_one
      die 1 "no process could be begun for $log"
    }
    nap 0.02
  done 2>/dev/null
  short rm -f "$handed"
  waiters[$group_pid]=$waiter
  begun_one
}

# A zombie does not count: in a container nobody may ever reap a rank whose parent is gone.
group_lives() { # group_lives PID
  local path stat
  kill -0 -- "-$1" 2>/dev/null || return 1
  for path in /proc/[0-9]*/stat; do
    { read -r stat <"$path"; } 2>/dev/null || continue
    # state, parent, group, session
    [[ ${stat##*) } != [!ZX]\ +([0-9])\ "$1"\ * ]] || return 0
  done
  return 1
}

wait_group() { # wait_group PID SECONDS: 0 once no member is left, 1 after SECONDS
  local tenths=$(($2 * 10))
  while group_lives "$1"; do
    ((tenths-- > 0)) || return 1
    nap 0.1
  done
}

leader_lives() { # leader_lives PID: a zombie does not
  local stat
  { read -r stat <"/proc/$1/stat"; } 2>/dev/null && [[ ${stat##*) } != [ZX]* ]]
}

# end_group PID GRACE_SECONDS [SIGNAL]: the leader by SIGNAL, then the group, then by force.
# INT is sglang's quick orderly stop (2 s; on TERM it sleeps, drains and waits, 20 s). Our own
# steps take TERM: they have nothing to drain, and end at once.
end_group() {
  local tenths=$(($2 * 10)) waiter=${waiters[$1]:-}
  kill "-${3:-INT}" "$1" 2>/dev/null || true
  while leader_lives "$1" && ((tenths-- > 0)); do
    nap 0.1
  done
  if ! wait_group "$1" 3; then
    kill -TERM -- "-$1" 2>/dev/null || true
    wait_group "$1" 2 || kill -KILL -- "-$1" 2>/dev/null || true
    wait_group "$1" 5 || true
  fi
  tenths=20
  while [[ -n $waiter ]] && leader_lives "$waiter" && ((tenths-- > 0)); do
    nap 0.1
  done
  forget_group "$1"
}

session_members() { # session_members PID: live processes of the session that PID began
  local path stat
  for path in /proc/[0-9]*/stat; do
    stat=$(cat "$path" 2>/dev/null) || continue
    read -ra stat <<<"${stat##*) }"
    [[ ${stat[0]} == [ZX] || ${stat[3]} != "$1" ]] || printf '%s ' "$(basename "$(dirname "$path")")"
  done
}

# A record outlives its harness only when that was killed with -9 (or the machine went down).
clean_up_killed_runs() {
  local record now boot harness harness_start leader leader_start what members found
  local -A left=() leaders=() pids=()
  read -r now </proc/sys/kernel/random/boot_id
  for record in "$state"/groups/*; do
    [[ -f $record ]] || continue
    read -r boot harness harness_start leader leader_start what <"$record" || true
    if [[ $boot == "$now" ]]; then
      read_start_time found "$harness"
      [[ $found != "$harness_start" ]] || ! leader_lives "$harness" || continue # still at work
      # a pid taken by a stranger since then has another start time
      read_start_time found "$leader"
      [[ -z $found || $found == "$leader_start" ]] || leader=0
      members=$([[ $leader == 0 ]] || session_members "$leader")
      if [[ -n $members ]]; then
        left[$harness]+="${left[$harness]:+, }${what##*/}"
        leaders[$harness]+="$leader " pids[$harness]+="$members"
        continue # its record goes once it has ended
      fi
    fi
    rm -f "$record" "$(exit_file "${record##*/}")"
  done
  for harness in "${!left[@]}"; do
    say "a harness (pid $harness) was killed and left ${left[$harness]} running: ending" \
      "${pids[$harness]% }"
    for leader in ${leaders[$harness]}; do
      what=TERM # for a step; what has a log is a server, or its load
      [[ $(<"$state/groups/$leader") != *.log ]] || what=INT
      end_group "$leader" 5 "$what"
    done
  done
}

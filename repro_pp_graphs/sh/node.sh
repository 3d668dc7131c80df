#!/usr/bin/env bash
#
# node.sh - the server process of one node; servers.sh starts it there by srun.
#
# USAGE: node.sh NODE OUT LABEL HEAD:PORT INTERFACE SILENT_S GRACE_S SHARES_OUT
#        COMMAND_SCRIPT_TEXT
#
# Stdout is the server's log. Every line of stdin is answered by one on stderr. The server is ended
# when stdin ends, or brings nothing for SILENT_S: nobody is left who would end it.
#
# EXIT: the server's status.

set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
number=$1 out=$2 label=$3 dist=$4 interface=$5 silent_s=$6 grace_s=$7 shares_out=$8 text=$9
state=/nonexistent # group.sh's records are run_repro.sh's alone
# shellcheck source=repro_pp_graphs/sh/group.sh
source "$here/group.sh"
script=$out/logs/${label}_server_command.sh

own_folder() { # where OUT is not the head's: its script, and nothing of an earlier launch
  local path
  umask 077
  mkdir -p "$out/logs" "$out/trace" || return
  for path in "$out/trace/$label" "$out/logs/$label"_pp_clock_PP*; do
    [[ ! -e $path ]] || mv "$path" "$(dirname "$path")/.earlier-$SLURM_JOB_ID-$(basename "$path")-$$"
  done
  mkdir -p "$out/trace/$label"
  printf '%s\n' "$text" >"$script"
}

has_script() { [[ $(cat "$script" 2>/dev/null) == "$text" ]]; }

if ((shares_out)); then
  for _ in {1..60}; do # a network file system shows what another host wrote within a minute
    ! has_script || break
    sleep 1
  done
else
  own_folder
fi
has_script || {
  printf 'run_repro.sh: node %s (%s) has no %s\n' "$number" "${SLURMD_NODENAME:-}" "$script"
  exit 1
}
# one that both hosts reach: the route's to the head, unless the environment names another
[[ -z $interface ]] ||
  export GLOO_SOCKET_IFNAME=${GLOO_SOCKET_IFNAME:-$interface} \
    NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME:-$interface}
# in a session of its own, to be ended as a whole; it hears Ctrl-C's signal again
(trap - INT && exec setsid bash "$script" --node-rank "$number" --dist-init-addr "$dist") \
  </dev/null 2>&1 &
server=$!
asked=0
trap 'asked=1' INT TERM HUP # Slurm's own end of a step or job
heard=0
while leader_lives "$server" && ((!asked)); do
  IFS= read -r -t "$silent_s" _
  heard=$?
  ((heard == 0)) || break
  printf '%s %s\n' "$label" "$number" >&2
done
if leader_lives "$server"; then
  ((asked || heard <= 128)) ||
    printf 'run_repro.sh: node %s (%s) has heard nothing for %s s: its server is ended\n' \
      "$number" "${SLURMD_NODENAME:-$(uname -n)}" "$silent_s"
  end_group "$server" "$grace_s" 2>/dev/null
  exit 0
fi
end_group "$server" "$grace_s" 2>/dev/null # what it has left running
wait "$server"

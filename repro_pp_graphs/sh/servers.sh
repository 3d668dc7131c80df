#!/usr/bin/env bash
#
# servers.sh - a launch's server on the nodes of a Slurm allocation: one process a node, by srun.
#
# USAGE: servers.sh OUT LABEL GRACE_S      (run_repro.sh starts it in place of a server)
#
# OUT/logs/nodes.sh says which nodes. What node 0 prints is this script's stdout, what node N prints
# is OUT/logs/LABEL_server_nodeN.log. A line a second goes to every node, which answers it: a node
# that hears or says nothing for silent_s has lost its link, or is down. The input's end ends the
# node's server (node.sh).
#
# EXIT: the status of the server that ended first; 70 where a node fell silent; 0 when asked to end.

set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=$1 label=$2 grace_s=$3
: "${REPRO_NODE_SILENT_S:=60}" "${REPRO_NODE_BEGIN_S:=600}"
silent_s=$REPRO_NODE_SILENT_S # without a word of a node that has answered before
begin_s=$REPRO_NODE_BEGIN_S   # for its first word: srun may have to fetch a container
nodes=() interfaces=() shares_out=() dist="" srun=()
# shellcheck source=/dev/null
source "$out/logs/nodes.sh"
pids=() asks=() answers=() heard=() met=()
ending=0 status=0

log_of() { # log_of NODE
  local which=""
  (($1 == 0)) || which=_node$1
  printf '%s' "$out/logs/${label}_server$which.log"
}

note() { # note NODE TEXT: a line of its log, and of node 0's
  printf 'run_repro.sh: %s\n' "$2" >>"$(log_of 0)"
  (($1 == 0)) || printf 'run_repro.sh: %s\n' "$2" >>"$(log_of "$1")"
}

begin_node() { # begin_node NODE: its server, with a pipe to it and one from it
  local number=$1 log fd ask=$pipes/ask$1 answer=$pipes/answer$1
  log=$(log_of "$number")
  ((number == 0)) || : >"$log"
  mkfifo "$ask" "$answer"
  (
    # another node's input would not end while this one holds it open
    for fd in "${asks[@]}" "${answers[@]}"; do exec {fd}>&-; done
    trap - INT TERM HUP PIPE
    exec "${srun[@]}" --job-name="repro_$label" --unbuffered --nodelist="${nodes[number]}" \
      bash "$here/node.sh" "$number" "$out" "$label" "$dist" "${interfaces[number]}" "$silent_s" \
      "$grace_s" "${shares_out[number]}" "$script"
  ) <"$ask" >>"$log" 2>"$answer" &
  pids[number]=$!
  exec {fd}>"$ask"
  asks[number]=$fd
  exec {fd}<"$answer"
  answers[number]=$fd
  heard[number]=$SECONDS met[number]=0
}

hear() { # hear NODE: take in its answers; what else comes is srun's, for the log
  local line
  while IFS= read -r -t 0.01 -u "${answers[$1]}" line; do
    if [[ $line == "$label "[0-9]* ]]; then
      heard[$1]=$SECONDS met[$1]=1
    else
      printf '%s\n' "$line" >>"$(log_of "$1")"
    fi
  done
}

watch() { # until a server ends, a node falls silent, or the end is asked for
  local number limit
  while ((!ending)); do
    for number in "${!pids[@]}"; do
      hear "$number"
      if ! kill -0 "${pids[number]}" 2>/dev/null; then
        wait "${pids[number]}" || status=$?
        hear "$number"
        ((status)) || status=1 # a server does not end by itself
        note "$number" "the server on node $number (${nodes[number]}) ended first, exit $status"
        return
      fi
      limit=$((met[number] ? silent_s : begin_s))
      if ((SECONDS - heard[number] > limit)); then
        status=70
        note "$number" "node $number (${nodes[number]}) has not answered for $limit s"
        return
      fi
      printf '\n' >&"${asks[number]}" || true
    done 2>/dev/null
    sleep 1
  done
}

any_lives() {
  local pid
  for pid in "${pids[@]}"; do
    ! kill -0 "$pid" 2>/dev/null || return 0
  done
  return 1
}

end_all() { # the servers, by the end of their input; then srun, which ends its step by force
  local fd number end_s signal
  for fd in "${asks[@]}"; do exec {fd}>&-; done
  for signal in "" TERM KILL; do
    [[ -z $signal ]] || kill "-$signal" "${pids[@]}" 2>/dev/null || true
    end_s=$((SECONDS + (${#signal} ? 5 : grace_s + 8)))
    ((status != 70 || ${#signal})) || end_s=$((SECONDS + 8)) # a silent node hears nothing
    while any_lives && ((SECONDS < end_s)); do
      for number in "${!pids[@]}"; do hear "$number"; done
      sleep 0.2
    done
    any_lives || return
  done
}

export REPRO_SERVER_OF=$$ # how run_repro.sh's steps know this node's server again
pipes=$(mktemp -d) || exit 1
trap 'rm -rf "$pipes"' EXIT
trap 'ending=1' INT TERM HUP
trap '' PIPE
script=$(<"$out/logs/${label}_server_command.sh")
for number in "${!nodes[@]}"; do begin_node "$number"; done
watch
end_all
exit "$status"

#!/usr/bin/env bash
#
# slurm.sh - run_repro.sbatch on a real Slurm of two nodes, with the real sglang on the CPU.
#
# USAGE: sudo bash tests/slurm.sh [FOLDER] [SCENE...]
#
# The nodes are two network namespaces of this machine, each with a slurmd of its own, joined by a
# bridge. Scenes (default: all, in this order):
#   plain     both cases; every node's log, traces and rows, one merged trace, clock intervals
#   own_disk  node 1 does not see --out: its files are fetched
#   slow      node 0's link carries 256 kbit/s: the analysis names the transfer as what is waited for
#   cut       node 1's link goes down while it is measured: the launch fails and says why
# Leaves the results in FOLDER (default: a new one, removed where all is well).
#
# REQUIREMENTS: Linux, root, Debian's slurmctld, slurmd, slurm-client, munge, iproute2; what a
# rehearsal needs (run_repro.sh --cpu). Takes 5 to 10 minutes on two cores.
#
# EXIT: 0 all scenes hold, 1 one does not, 2 something is missing.

# shellcheck disable=SC2317,SC2329 # `check` calls functions by their names
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=${1:-} kept=1
[[ -n $folder ]] || { folder=$(mktemp -d) && kept=0; }
shift || true
scenes=("$@")
((${#scenes[@]})) || scenes=(plain own_disk slow cut)
net=10.77.9 bridge=repro-br nodes=(node0 node1)
python=$root/.venv-cpu/bin/python
failed=0 pids=()

die() {
  echo "slurm.sh: $1" >&2
  exit 2
}

check() { # check WHAT COMMAND...: a line that says whether it holds
  local what=$1
  shift
  if "$@" >>"$folder/checks.log" 2>&1; then
    echo "ok      $scene: $what"
  else
    echo "NOT OK  $scene: $what"
    failed=1
  fi
}

### Slurm on two namespaces
begin() { # begin NAME COMMAND...: a daemon
  "${@:2}" >>"$folder/$1.out" 2>&1 </dev/null &
  pids+=($!)
}

set_up() {
  local tool node number
  ((EUID == 0)) || die "it makes network namespaces: run it as root"
  for tool in slurmctld slurmd sbatch munged ip tc; do
    [[ -n $(type -P "$tool") ]] || die "$tool is missing: apt-get install slurmctld slurmd \
slurm-client munge iproute2"
  done
  [[ -x $python ]] || die "no .venv-cpu here: bash run_repro.sh --cpu makes it"
  folder=$(mkdir -p "$folder" && cd "$folder" && pwd) || die "$folder cannot be made"
  chmod 755 "$folder" # munged looks at it
  mkdir -p "$folder"/{state,spool,munge}
  ip link add "$bridge" type bridge || die "another slurm.sh is at work: $bridge is there"
  ip addr add "$net.254/24" dev "$bridge"
  ip link set "$bridge" up
  for number in 0 1; do
    node=${nodes[number]}
    ip netns add "repro-$node"
    ip link add "repro-v$number" type veth peer name eth0 netns "repro-$node"
    ip link set "repro-v$number" master "$bridge" up
    ip -n "repro-$node" addr add "$net.1$number/24" dev eth0
    ip -n "repro-$node" link set eth0 up
    ip -n "repro-$node" link set lo up
  done
  (umask 077 && head -c 1024 /dev/urandom >"$folder/munge/key")
  begin munged munged --foreground --force --key-file="$folder/munge/key" \
    --socket="$folder/munge/socket" --pid-file="$folder/munge/pid" \
    --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"
  echo "CgroupPlugin=cgroup/v1" >"$folder/cgroup.conf"
  cat >"$folder/slurm.conf" <<CONF
ClusterName=repro
SlurmctldHost=$(uname -n)($net.254)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation=$folder/state
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdSpoolDir=$folder/spool/%n
SlurmdPidFile=$folder/%n.pid
SlurmdLogFile=$folder/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmdParameters=config_overrides
MailProg=/bin/true
KillWait=5
NodeName=node0 NodeAddr=$net.10 CPUs=2 RealMemory=4000 State=UNKNOWN
NodeName=node1 NodeAddr=$net.11 CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=node[0-1] Default=YES MaxTime=INFINITE State=UP
CONF
  export SLURM_CONF=$folder/slurm.conf
  begin slurmctld slurmctld -D
  for node in "${nodes[@]}"; do
    # the name of a host is its own; node 1 may hide a folder (own_disk)
    # shellcheck disable=SC2016 # the inner shell expands it
    begin "$node" ip netns exec "repro-$node" unshare -um sh -c \
      'hostname "$1"; exec slurmd -N "$1" -D' slurmd "$node"
  done
  for _ in {1..60}; do
    [[ $(sinfo -h -t idle -o %D 2>/dev/null) != 2 ]] || return 0
    sleep 1
  done
  die "the nodes do not come up: see $folder/*.out"
}

tear_down() {
  local node pid
  trap - EXIT
  scancel --me 2>/dev/null
  sleep 1
  for node in "${nodes[@]}"; do
    for pid in $(ip netns pids "repro-$node" 2>/dev/null); do kill -KILL "$pid" 2>/dev/null; done
  done
  ((!${#pids[@]})) || kill "${pids[@]}" 2>/dev/null
  for node in "${nodes[@]}"; do ip netns del "repro-$node" 2>/dev/null; done
  ip link del "$bridge" 2>/dev/null
  ((kept || failed)) || rm -rf "$folder"
}

### scenes
submit() { # submit OPTION...: a job of both nodes in the scene's folder; its exit status
  out=$folder/$scene
  (cd "$root" && sbatch --wait --quiet --nodes=2 --output="$folder/$scene.job.log" \
    run_repro.sbatch --cpu --python "$python" --pp-size 2 --out "$out" "$@")
}

holds() { # holds FILE PATTERN: in its text, however it is wrapped
  tr -s ' \n' ' ' <"$1" | grep -qE -- "$2"
}

left() { # processes of a server in either node
  local node pid
  for node in "${nodes[@]}"; do
    for pid in $(ip netns pids "repro-$node"); do
      ! tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -E "sglang|node\.sh|repro_pp_graphs" ||
        return 0
    done
  done
  return 1
}

none_left() { # within a minute
  for _ in {1..60}; do
    left || return 0
    sleep 1
  done
  return 1
}

both_nodes_show() { # both_nodes_show LABEL: log, trace and rows of either rank
  local rank
  for rank in 0 1; do
    ls "$out/trace/$1/"*"PP-$rank"*.trace.json.gz "$out/logs/$1_pp_clock_PP${rank}_TP0.rows.gz" ||
      return
  done
  grep -q "PP1.*Load weight end" "$out/logs/$1_server_node1.log"
}

clocks_known() { # clocks_known LABEL: as an interval between the hosts
  "$python" - "$out/logs/$1_analysis.json" <<'PY'
import json, sys
found = json.load(open(sys.argv[1]))
print(found["hosts"], found["host_clocks"])
assert found["hosts"] == ["node0", "node1"]
assert all(each["low_us"] < each["high_us"] for each in found["host_clocks"])
PY
}

slow_transfer() { # slow_transfer LABEL: PP1 waits for hidden states, which are under way
  "$python" - "$out/logs/$1_analysis.json" <<'PY'
import json, sys
found = json.load(open(sys.argv[1]))
waits = found["turns"]["1"]["rows"]["hidden_recv"]["waits"]
print(waits)
assert waits["transfer"] > 2 * waits.get("peer_late", 0), waits
PY
}

plain() {
  check "the job ends well" submit
  for label in CASE_A_decode_graphs CASE_B_no_graphs; do
    check "$label: log, trace and rows of both nodes" both_nodes_show "$label"
    check "$label: one merged trace" test -s "$out/trace/${label}_chrome_trace.json"
    check "$label: the hosts' clocks as an interval" clocks_known "$label"
  done
  check "the table of the nodes" holds "$folder/$scene.job.log" "node1 $net.11 on eth0"
  check "nothing is left running" none_left
}

own_disk() { # a file system of node 1's own lies over --out
  local pid
  mkdir -p "$folder/$scene"
  pid=$(<"$folder/node1.pid")
  nsenter -t "$pid" -m mount -t tmpfs tmpfs "$folder/$scene"
  check "the job ends well" submit --cases graphs_on
  check "log, trace and rows of both nodes" both_nodes_show CASE_A_decode_graphs
  check "the table says so" holds "$folder/$scene.job.log" "does not see --out"
  nsenter -t "$pid" -m umount "$folder/$scene"
}

slow() {
  tc -n repro-node0 qdisc add dev eth0 root tbf rate 256kbit burst 3000 latency 5s
  check "the job ends well" submit --cases graphs_on --max-new-tokens 24
  tc -n repro-node0 qdisc del dev eth0 root
  check "PP1 waits for the transfer" slow_transfer CASE_A_decode_graphs
  check "the analysis says so" holds "$out/logs/CASE_A_decode_graphs_analysis.txt" \
    "for the transfer from PP0"
}

cut() {
  local job status=0 log=$folder/$scene/logs/CASE_A_decode_graphs_server.log
  export REPRO_NODE_SILENT_S=20
  submit --cases graphs_on --max-new-tokens 1500 --no-profile &
  job=$!
  until grep -q "Decode batch" "$log" 2>/dev/null || ! kill -0 "$job" 2>/dev/null; do sleep 1; done
  sleep 5
  ip link set repro-v1 down
  date "+the link is cut at %H:%M:%S"
  wait "$job" || status=$?
  date "+the job has ended at %H:%M:%S"
  check "the job fails" test "$status" = 1
  check "it says why" holds "$folder/$scene.job.log" "node 1 \(node1\) has not answered for 20 s"
  check "nothing is left running, the link being down" none_left
  ip link set repro-v1 up
  unset REPRO_NODE_SILENT_S
}

trap tear_down EXIT
trap 'exit 130' INT TERM HUP
set_up
for scene in "${scenes[@]}"; do
  case $scene in
    plain) plain ;;
    own_disk) own_disk ;;
    slow) slow ;;
    cut) cut ;;
    *) die "no scene '$scene': plain, own_disk, slow, cut" ;;
  esac
done
((!failed)) || echo "what does not hold is to be looked at in $folder"
exit "$failed"

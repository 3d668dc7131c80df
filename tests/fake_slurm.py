"""A Slurm allocation of two nodes, both this machine: srun, scontrol and squeue for a Harness."""

from __future__ import annotations

from fake_sglang.harness import LIMIT_S, Harness

SRUN = """#!/usr/bin/env bash
# one task on the node of --nodelist
tools=$(dirname "${BASH_SOURCE[0]}")
printf '%s\\n' "${*:1:14}" >>"$tools/srun_calls"
while [[ $1 == --* ]]; do
  [[ $1 != --nodelist=* ]] || node=${1#*=}
  shift
done
if [[ -e $tools/lost_$node ]]; then
  echo "srun: error: Unable to create step for job 7: node $node is down" >&2
  exit 1
fi
# a link that is cut: nothing gets to the task or back, while both ends wait
if [[ -e $tools/cut_$node && $* == *node.sh* ]]; then
  exec 0< <(head -n 3; sleep 600) 2> >(head -n 3 >&2; sleep 600)
fi
# a node that comes late: its server starts once there is a file of this pattern
if [[ -e $tools/late_$node && $* == *node.sh* ]]; then
  until compgen -G "$(<"$tools/late_$node")" >/dev/null; do sleep 0.05; done
fi
export SLURMD_NODENAME=$node SLURM_LAUNCH_NODE_IPADDR=127.0.0.1
[[ ! -e $tools/own_out_$node ]] || export FAKE_NODE_OUT="$(<"$tools/own_out_$node")"
if [[ -n ${FAKE_NODE_OUT:-} ]]; then # a disk of its own: what the head calls A is B there
  words=()
  for word; do words+=("${word//"${FAKE_NODE_OUT%%:*}"/"${FAKE_NODE_OUT##*:}"}"); done
  set -- "${words[@]}"
fi
exec "$@"
"""
SCONTROL = "#!/usr/bin/env bash\nprintf '%s\\n' node0 node1\n"
SQUEUE = "#!/usr/bin/env bash\nexit 0\n"


def allocate(run: Harness) -> Harness:
    """Put a harness into an allocation of two nodes, on its first one."""
    run.own()  # the nodes run the collect_env.sh beside the package, not beside what it links to
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("squeue", SQUEUE)):
        path = run.root / "fake_tools" / name
        path.write_text(text)
        path.chmod(0o755)
    run.env |= {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_NODELIST": "node[0-1]",
        "SLURMD_NODENAME": "node0",
        "REPRO_NODE_SILENT_S": f"{LIMIT_S:.0f}",
    }
    return run

"""The nodes of a Slurm allocation that a run's servers are spread over: logs/nodes.json, and srun.

Standard library only. logs/nodes.sh holds the same for repro_pp_graphs/sh/servers.sh.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from repro_pp_graphs.files import read_object, write_json, write_whole

# one task on one node, beside whatever else runs in the job, on all of its cores there
SRUN = ["srun", "--overlap", "--nodes=1", "--ntasks=1", "--mpi=none", "--cpu-bind=quiet,none"]


class SlurmError(RuntimeError):
    """What Slurm did not do; the message says what and what to do."""


@dataclass
class Node:
    """One node: its number is sglang's --node-rank."""

    number: int
    name: str  # Slurm's
    address: str = ""  # by which it reaches the head; of the head itself, where it is reached
    interface: str = ""  # that has this address
    shares_out: bool = True  # it sees the head's --out: its files need not be fetched
    facts: dict[str, str] = field(default_factory=dict)  # what may differ between nodes


@dataclass
class Nodes:
    """Those of one run, the head first; `dist` is sglang's --dist-init-addr."""

    job: str
    dist: str
    srun: list[str]  # srun and its options, without the node's name
    nodes: list[Node]


def path_of(logs: Path) -> Path:
    """Where a run's nodes are."""
    return logs / "nodes.json"


def save(logs: Path, found: Nodes) -> None:
    """Write logs/nodes.json and logs/nodes.sh. Raises OSError."""
    write_json(path_of(logs), {"schema": 1, **asdict(found)})
    lines = [
        "# What repro_pp_graphs/sh/servers.sh is told of the nodes (nodes.json has all).",
        f"nodes=({shlex.join(node.name for node in found.nodes)})",
        f"interfaces=({shlex.join(node.interface for node in found.nodes)})",
        f"shares_out=({' '.join(str(int(node.shares_out)) for node in found.nodes)})",
        f"dist={shlex.quote(found.dist)}",
        f"srun=({shlex.join(found.srun)})",
    ]
    write_whole(logs / "nodes.sh", "\n".join([*lines, ""]))


def load(logs: Path) -> Nodes | None:
    """The nodes of a run; None where its servers run on this machine alone.

    Raises OSError, BadFile.
    """
    if not path_of(logs).exists():
        return None
    found: dict[str, Any] = read_object(path_of(logs))
    nodes = [Node(**each) for each in found["nodes"]]
    return Nodes(found["job"], found["dist"], found["srun"], nodes)


def names(count: int) -> list[str]:
    """The first `count` nodes of the allocation, this one first.

    Raises SlurmError where this is not the allocation's first node, or scontrol does not answer.
    """
    listed = os.environ.get("SLURM_JOB_NODELIST", "")
    try:
        done = subprocess.run(
            ["scontrol", "show", "hostnames", listed],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise SlurmError(
            f"scontrol does not name the nodes of the job ({error}): load Slurm's module, or take "
            "this node alone (--nodes 1)"
        ) from None
    found = done.stdout.split()[:count]
    here = os.environ.get("SLURMD_NODENAME", "")
    if len(found) < count or here != found[0]:
        first = found[0] if found else "the first node"
        raise SlurmError(
            f"run_repro.sh runs on {here or 'no node of the job'}, and has to on its first one, "
            f"{first}: use sbatch run_repro.sbatch, or srun --overlap --pty --nodes=1 "
            f"--nodelist={first} bash run_repro.sh"
        )
    return found


def command(found: list[str], node: str, words: list[str]) -> list[str]:
    """A command on one node; `found`: srun and its options."""
    return [*found, f"--nodelist={node}", *words]


def steps_left(job: str, label: str) -> list[str]:
    """The steps of a launch's servers that Slurm still has, as `12.5 on node1`."""
    try:
        done = subprocess.run(
            ["squeue", "--noheader", "--steps", f"--jobs={job}", "--format=%i %N %j"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.split() for line in done.stdout.splitlines()]
    return [f"{row[0]} on {row[1]}" for row in rows if row[2:] == [f"repro_{label}"]]


def facts_in(text: str) -> dict[str, Any] | None:
    """What `node-facts` printed, among what else a node may have printed; None for nothing."""
    for line in text.splitlines():
        if line.startswith("{"):
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict) and "addresses" in found:
                return found
    return None

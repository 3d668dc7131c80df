"""What a run leaves, by name, relative to --out; folders end in a slash."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from repro_pp_graphs.run_record import Launch, Load, Plan
from repro_pp_graphs.server import shim_names

MERGED = "_chrome_trace.json"
PACKED = f"{MERGED}.gz"  # a fifteenth of it; Perfetto opens both
_LETTER = re.compile("CASE_([A-Z])_")  # of a case, in its label
# of a whole run, what --resume goes on with
KEPT = ("logs/run.json", "logs/env.txt", "logs/env.json", "logs/merge.log")
LEAST_ROOM = 1 << 16  # bytes for a client's result
EVENT_BYTES = 64  # at most, of a token's arrival in client.json, with its share of the rest


def of_launch(launch: Launch, plan: Plan) -> list[str]:
    """What one launch leaves."""
    label, program = launch.label, plan.program
    logs = [] if launch.attached else [f"{program}.log", f"{program}_command.sh"]
    logs += [f"{program}_node{number}.log" for number in range(1, launch.started_nodes)]
    logs += ["client.log", "client.json", "launch.json"]
    others = [load.name for load in plan.loads[1:]]
    probe = plan.engine == "probe"
    logs += ["probe.json"] if probe else []
    if plan.profile:
        logs += ["analysis.json", "analysis.txt", "timeline.json"] + (
            [] if probe else ["profile_load.log"]
        )
    logs += [f"at_{name}_{kind}" for name in others for kind in ("client.log", "client.json")]
    if "pp_clock" in shim_names.names_in(launch.env):
        logs += [
            "pp_clock.json",
            "pp_clock.txt",
            *(f"at_{name}_pp_clock.{kind}" for name in others for kind in ("json", "txt")),
            *(f"pp_clock_{rank}.rows.gz" for rank in _ranks(launch)),
        ]
    names = [f"logs/{label}_{name}" for name in logs]
    if plan.profile:
        names += [f"trace/{label}/", merged(launch)]
    for each in (plan.load_label(launch, name) for name in plan.profiled_loads(launch)):
        kinds = ("analysis.json", "analysis.txt", "profile_load.log")
        names += [*(f"logs/{each}_{kind}" for kind in kinds), f"trace/{each}/", merged_load(each)]
    return names + ([f"trace/{label}.nsys-rep"] if plan.nsys else [])


def _ranks(launch: Launch) -> list[str]:
    """The ranks of a launch on this machine that name files: PP0_TP0, PP0_TP1, ..."""
    every = [(pp, tp) for pp in range(launch.pp_size) for tp in range(launch.tp_size)]
    return [f"PP{pp}_TP{tp}" for pp, tp in every[: launch.ranks]]


def claimed(launch: Launch, plan: Plan) -> list[str]:
    """What one launch leaves, and what it leaves only where it fails: nothing of another origin may
    lie there."""
    names = of_launch(launch, plan)
    raw = [name.removesuffix(".gz") for name in names if name.endswith(".rows.gz")]
    return [*names, *raw, f"logs/{launch.label}_hang.txt"]


def of_run(plan: Plan) -> list[str]:
    """What all launches leave together."""
    nodes = max(launch.started_nodes for launch in plan.launches)
    parts = ["env", "env_after", *(f"env_node{number}" for number in range(1, nodes))]
    envs = [f"{name}.{kind}" for name in parts for kind in ("txt", "json")]
    envs += ["nodes.json", "nodes.sh"] if nodes > 1 else []
    of_all = ("README.txt", "run.json", *envs, "summary.json", "report.md", "report.html")
    names = [f"logs/{name}" for name in of_all]
    if plan.profile:
        names.append("logs/merge.log")
        if pair := side_by_side(plan):
            names.append(pair)
    return names


def client_json(logs: Path, label: str) -> Path:
    """What the client measured of a launch."""
    return logs / f"{label}_client.json"


def client_draft(logs: Path, label: str) -> Path:
    """Where client_benchmark.py writes its result until it is whole."""
    return logs / f"{label}_client.json.part"


def merged(launch: Launch) -> str:
    """All ranks of a launch in one trace: plain JSON in the first round, for whichever tool, and
    compressed in later ones, which are there to compare with."""
    return f"trace/{launch.label}{MERGED if launch.round == 1 else PACKED}"


def merged_load(label: str) -> str:
    """The same under a load of a sweep that is not the main one; `label`: that of the load."""
    return f"trace/{label}{PACKED}"


def side_by_side(plan: Plan) -> str:
    """The first two launches in one compressed trace: named by the letters of their cases, as
    A_vs_B, whichever ran first, else by their labels; empty for one launch, or no trace."""
    if len(plan.launches) < 2 or not plan.profile:
        return ""
    labels = sorted(launch.label for launch in plan.launches[:2])
    letters = [found[1] for label in labels if (found := _LETTER.match(label))]
    first, second = letters if len(set(letters)) == len(labels) else labels
    return f"trace/{first}_vs_{second}{PACKED}"


def clashes(plan: Plan) -> list[str]:
    """Names that two launches, or a launch and the run, would both write."""
    names = [*of_run(plan), *(name for one in plan.launches for name in of_launch(one, plan))]
    plain = Counter(name.rstrip("/") for name in names)
    return sorted(name for name, times in plain.items() if times > 1)


def traces(out: Path) -> list[str]:
    """What lies in out/trace and is plainly of some run: merged traces, nsys's reports, folders of
    ranks' traces. Whatever else is there is left alone."""
    found = []
    for path in sorted((out / "trace").glob("*")):
        name = f"trace/{path.name}"
        if path.is_dir() and any(path.glob("*.trace.json*")):
            found.append(f"{name}/")
        elif path.name.endswith((MERGED, PACKED, ".nsys-rep")):
            found.append(name)
    return found


def room_for(load: Plan | Load) -> int:
    """The disk room that is taken before it is needed: bytes that the client's result of a load may
    take."""
    return max(load.batch * load.max_new_tokens * EVENT_BYTES, LEAST_ROOM)

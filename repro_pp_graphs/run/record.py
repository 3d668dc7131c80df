"""What a run is made of: its launches, and the plan that holds them (logs/run.json)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Launch:
    """One server launch of a run."""

    label: str
    case: str
    round: int
    python: str
    sglang_version: str
    args: list[str]  # the server's arguments
    argv: list[str]  # the whole command
    env: dict[str, str]
    port: int
    model: str
    pp_size: int
    tp_size: int
    nodes: int
    expects_graphs: bool | None  # None on a CPU: there are no CUDA graphs to expect
    captured_max_bs: int | None  # largest captured decode batch, where the arguments say
    notes: list[str] = field(default_factory=list)

    @property
    def ranks(self) -> int:
        """Ranks on this machine: each writes one trace file."""
        return self.pp_size * self.tp_size // self.nodes

    @property
    def base_url(self) -> str:
        """Where the server answers."""
        return f"http://127.0.0.1:{self.port}"


@dataclass
class Plan:
    """A run: how it runs, its load, its launches in order."""

    mode: str  # gpu, one_gpu, cpu
    batch: int
    max_new_tokens: int
    profile: bool
    profile_steps: int
    with_stack: bool
    nsys: bool
    gpu_used_mib: dict[str, int]  # by GPU uuid, before the first launch
    launches: list[Launch]
    engine: str = "sglang"  # or probe
    began: str = ""  # when it was first started, not resumed: 2026-11-24 03:15:00

    @property
    def program(self) -> str:
        """What a launch runs, as in the names of its files (<label>_server.log)."""
        return "probe" if self.engine == "probe" else "server"

    @property
    def rehearsal(self) -> bool:
        """True where the numbers say nothing about GPUs."""
        return self.mode == "cpu"

    def launch(self, label: str) -> Launch:
        """The launch of that label. Raises StopIteration where there is none."""
        return next(launch for launch in self.launches if launch.label == label)


def to_json(plan: Plan) -> str:
    """The plan as stored in logs/run.json."""
    return json.dumps({"schema": 1, **asdict(plan)}, indent=1) + "\n"


def from_json(text: str) -> Plan:
    """The inverse of to_json."""
    data = json.loads(text)
    data.pop("schema")
    launches = [Launch(**launch) for launch in data.pop("launches")]
    return Plan(launches=launches, **data)


def load(logs: Path) -> Plan:
    """The plan that a run left in its logs folder. Raises OSError or ValueError."""
    return from_json((logs / "run.json").read_text(encoding="utf-8"))


def save_facts(logs: Path, label: str, **facts: object) -> None:
    """Add facts to logs/<label>_launch.json, at once, so that a later failure loses none."""
    path = logs / f"{label}_launch.json"
    path.write_text(json.dumps({**load_facts(logs, label), **facts}, indent=1) + "\n", "utf-8")


def forget_facts(logs: Path, label: str) -> None:
    """Drop what an earlier attempt at a launch recorded."""
    (logs / f"{label}_launch.json").unlink(missing_ok=True)


def load_facts(logs: Path, label: str) -> dict[str, Any]:
    """What was recorded of a launch so far; empty where it has not begun."""
    path = logs / f"{label}_launch.json"
    if not path.exists():
        return {}
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return facts

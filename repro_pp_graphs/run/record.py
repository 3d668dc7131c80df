"""What a run is made of: its launches, the plan that holds them (logs/run.json), and what is
recorded of each (logs/<label>_launch.json)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from repro_pp_graphs.conform import misfit
from repro_pp_graphs.files import BadFile, read_object, write_json
from repro_pp_graphs.server import listener


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
    host: str = "127.0.0.1"  # what the server listens at, as --host says

    @property
    def ranks(self) -> int:
        """Ranks on this machine: each writes one trace file."""
        return self.pp_size * self.tp_size // self.nodes

    @property
    def base_url(self) -> str:
        """Where the server answers, without a slash at the end."""
        return listener.url(self.host, self.port)


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
    run_id: str = ""  # of this run alone; each launch's record repeats it
    resumed: list[str] = field(default_factory=list)  # when --resume went on with it
    inputs: dict[str, str] = field(default_factory=dict)  # SHA-256 of the files that it reads
    machine: dict[str, str] = field(default_factory=dict)  # host, CPU, GPUs

    @property
    def program(self) -> str:
        """What a launch runs, as in the names of its files (<label>_server.log)."""
        return "probe" if self.engine == "probe" else "server"

    @property
    def rehearsal(self) -> bool:
        """True where the numbers say nothing about GPUs."""
        return self.mode == "cpu"

    @property
    def warmup_passes(self) -> int:
        """The client's --warmup-passes: at most so many, before it measures."""
        return 3 if self.rehearsal else 5

    @property
    def session(self) -> int:
        """1 for the run as first started, 2 after the first --resume, ..."""
        return 1 + len(self.resumed)

    def launch(self, label: str) -> Launch:
        """The launch of that label. Raises KeyError where there is none."""
        for launch in self.launches:
            if launch.label == label:
                return launch
        raise KeyError(label)


GRAPH_STATE = {
    "decode_lines": int,
    "with_graph": int,
    "largest_eager_bs": int,
    "launches": dict[str, int] | None,
}
# what is recorded of a launch, a key at a time as it comes; times in seconds
FACTS: dict[str, Any] = {
    "status": Literal["running", "ok", "failed", "interrupted"],
    "reason": str,
    "warnings": list[str],
    "run_id": str,  # the plan's
    "session": int,  # the plan's, when the launch began
    "began": str,
    "server_start_s": float,
    "server_info": dict[str, Any],
    "profile_s": float,
    "trace_bytes": dict[str, int],  # by file name
    "graph_state": GRAPH_STATE,
    "shims": dict[str, str],
    "gpu_counters": dict[str, Any],  # before, after (server/gpu_counters.py)
    "client_sha256": str,  # of its client.json, when the launch had ended
}
# what is read of logs/<label>_client.json
CLIENT: dict[str, Any] = {"summary": {"warnings": list[str]}}
_SPREAD = ({"mean": float, "median": float}, None)
# what is read of logs/<label>_analysis.json
ANALYSIS: dict[str, Any] = {
    "pp_size": int,
    "tp_size": int,
    "sends": str,
    "turns": dict[str, dict[str, Any]],
    "graph_launches": dict[str, int],
    "ranks": dict[str, dict[str, Any]],
    "token_return": {
        "host_us": {"send": _SPREAD, "overlapped_with_graph": _SPREAD, "idle": _SPREAD},
        "delivery_us": {"send": _SPREAD, "overlapped_with_graph": _SPREAD, "idle": _SPREAD},
    },
}


def to_json(plan: Plan) -> str:
    """The plan as stored in logs/run.json."""
    return json.dumps({"schema": 1, **asdict(plan)}, indent=1) + "\n"


def from_json(text: str) -> Plan:
    """The inverse of to_json. Raises ValueError."""
    return _plan(json.loads(text), "the plan")


def _plan(data: dict[str, Any], where: str) -> Plan:
    fault = misfit(data, Plan) if data.get("schema") == 1 else "schema: not 1"
    if fault:
        raise BadFile(f"{where} is not what this harness writes ({fault})")
    launches = [Launch(**_known(launch, Launch)) for launch in data["launches"]]
    return Plan(**{**_known(data, Plan), "launches": launches})


def _known(data: dict[str, Any], kind: type) -> dict[str, Any]:
    """The fields of a dataclass among the keys of a JSON object."""
    names = (each.name for each in fields(kind))
    return {name: data[name] for name in names if name in data}


def load(logs: Path) -> Plan:
    """The plan that a run left in its logs folder.

    Raises OSError where it cannot be read, BadFile where it is torn or something else.
    """
    path = logs / "run.json"
    return _plan(read_object(path), str(path))


def facts_path(logs: Path, label: str) -> Path:
    """Where a launch's facts are."""
    return logs / f"{label}_launch.json"


def save_facts(logs: Path, label: str, **facts: object) -> None:
    """Add facts to logs/<label>_launch.json, at once, so that a later failure loses none.

    What cannot be read there is begun anew, with a warning. Raises OSError.
    """
    try:
        earlier = load_facts(logs, label)
    except BadFile as error:
        earlier = {"warnings": [f"{error}: begun anew"]}
    write_json(facts_path(logs, label), {**earlier, **facts})


def warn(logs: Path, label: str, *texts: str) -> None:
    """Add warnings to a launch's facts. Raises OSError or BadFile."""
    if texts:
        earlier = load_facts(logs, label).get("warnings", [])
        save_facts(logs, label, warnings=[*earlier, *texts])


def forget_facts(logs: Path, label: str) -> None:
    """Drop what an earlier attempt at a launch recorded."""
    facts_path(logs, label).unlink(missing_ok=True)


def load_facts(logs: Path, label: str) -> dict[str, Any]:
    """What was recorded of a launch so far (FACTS); empty where it has not begun.

    Raises OSError where it cannot be read, BadFile where it is torn or something else.
    """
    path = facts_path(logs, label)
    if not path.exists():
        return {}
    found = read_object(path, FACTS)
    if found and "status" not in found and not FACTS.keys() & found.keys():
        raise BadFile(f"{path} is not what this harness writes (no 'status')")
    return found

"""What a run is made of: its launches, and the plan that holds them.

The plan is logs/run.json; its JSON Schema is docs/schemas/run.schema.json. Standard library only:
a dry run needs no environment, and collect_env.sh packs a run with any Python.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from repro_pp_graphs.files import NotThereError, read_object, write_json
from repro_pp_graphs.server.machine import listener
from repro_pp_graphs.stats import metric_names


@dataclass
class Attached:
    """A server that was running already: it is asked and loaded, never started or ended."""

    url: str  # without a slash at the end
    where: str  # pid 4242 (python3); in words where its process cannot be seen
    local: bool  # it listens at an address of this machine
    output_dir: str = ""  # asked of /start_profile; empty: the server's own
    folder: str = ""  # where this machine sees the traces that it writes; empty: nowhere
    limits: list[str] = field(default_factory=list)  # what cannot be known of it, in sentences


@dataclass
class Load:
    """What the client asks of a server: one of those of a sweep (--sweep)."""

    name: str  # in names of files: b8_in4000
    title: str  # batch 8, input 4000
    point: dict[str, str]  # its value on each axis, as given
    batch: int  # prompts at once; at a rate, the most in flight
    max_new_tokens: int  # a prompt
    micro_batch: int | None = None  # requests in a micro-batch, where the sweep says
    input_len: int | None = None  # tokens of a synthetic prompt; None: the lines of prompts.txt
    rate: float | None = None  # single prompts a second, Poisson; None: the batch at once
    beside_len: int | None = None  # tokens of the prompts that arrive meanwhile; None: none do
    beside_rate: float | None = None  # of these a second, Poisson


@dataclass
class Launch:
    """One server launch of a run, or a server that was running already."""

    label: str  # names its files: <label>_server.log
    case: str
    round: int  # 1 for the first
    python: str  # the interpreter that runs it
    sglang_version: str  # "unknown" where it could not be asked
    args: list[str]  # the server's arguments
    argv: list[str]  # the whole command
    env: dict[str, str]  # what the case adds to the environment
    port: int
    model: str
    pp_size: int
    tp_size: int
    nodes: int
    expects_graphs: bool | None  # None on a CPU: there are no CUDA graphs to expect
    captured_max_bs: int | None  # largest captured decode batch, where the arguments say
    notes: list[str] = field(default_factory=list)
    host: str = listener.LOOPBACK  # what the server listens at, as --host says
    block: int = 0  # of the order, 1 for the first; 0 in runs of earlier versions
    place: int = 0  # of its case in --cases, from 1; 0 in runs of earlier versions
    attached: Attached | None = None  # of --attach; None: the run starts it
    # of a sweep: the loads by name, in the order in which they are measured, and the most requests
    # of a micro-batch that the server is told for each; None: as it was started
    loads: dict[str, int | None] = field(default_factory=dict)
    started_nodes: int = 1  # of its nodes, those that the run starts, by srun where several
    # notes that its figures are to be read with: they stand beside the results too
    caveats: list[str] = field(default_factory=list)

    @property
    def arguments(self) -> list[str]:
        """Each server argument with its values, and each variable of the environment, as one
        text."""
        found: list[str] = []
        for word in self.args:
            if word.startswith("--"):
                found.append(word)
            elif found:
                found[-1] += f" {word}"
        return found + [f"{name}={value}" for name, value in self.env.items()]

    def value(self, argument: str, default: str = "") -> str:
        """The word behind an argument of the server, or probe; `default` where it is not given."""
        words = reversed(list(zip(self.args, self.args[1:], strict=False)))
        return next((value for word, value in words if word == argument), default)

    @property
    def ranks(self) -> int:
        """Ranks on the nodes that the run starts: each writes one trace file."""
        return self.ranks_a_node * self.started_nodes

    @property
    def ranks_a_node(self) -> int:
        """Ranks on each node."""
        return self.pp_size * self.tp_size // self.nodes

    def node_of(self, pp_rank: int, tp_rank: int) -> int:
        """The node that a rank is on: sglang deals ranks out in order."""
        return (pp_rank * self.tp_size + tp_rank) // self.ranks_a_node

    @property
    def base_url(self) -> str:
        """Where the server answers, without a slash at the end."""
        return self.attached.url if self.attached else listener.url(self.host, self.port)


@dataclass
class Look:
    """A number of rounds at which a run's results are tested."""

    rounds: int  # launches of each case by then, from the first on
    planned: bool  # before any result could be tested; False for an extension asked for later


@dataclass
class Plan:
    """A run: how it runs, its load, its launches in order."""

    mode: str  # gpu, one_gpu, cpu
    batch: int  # prompts in a request
    max_new_tokens: int  # a prompt
    profile: bool
    profile_steps: int  # forward steps to trace
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
    order_seed: int | None = None  # of the order of launches (run/plan/order.py); None: not drawn
    looks: list[Look] = field(default_factory=list)  # one after another
    aa: str = ""  # the case that is compared with itself; empty for none
    primary: str = metric_names.TPOT  # the client's metric that decides (docs/verdict.md)
    ranks_per_gpu: int = 0  # that share one at most; 0: a GPU a rank, or not known (older runs)
    mps: bool = False  # under an MPS daemon that the run starts and ends
    sockets: bool = False  # NCCL talks over sockets in place of NVLink, in all cases
    loads: list[Load] = field(default_factory=list)  # of a sweep, the main load first; else none
    # of these but the main one, by name, those that are profiled too: in the first launch of a case
    profile_loads: list[str] = field(default_factory=list)
    margin: float = metric_names.MARGIN  # of it, a difference that counts as none: 0.05 is 5 %
    pin_cpus: str = ""  # auto, or the cores of each rank as 0-3:4-7; empty: ranks run anywhere
    command: list[str] = field(default_factory=list)  # as the user called run_repro.sh
    # of --sweep: prompts that reach what cases differ in; empty where nothing is known to be missed
    reaching: str = ""
    schema: Literal[1] = 1

    @property
    def program(self) -> str:
        """What a launch runs, as in the names of its files (<label>_server.log)."""
        return "probe" if self.engine == "probe" else "server"

    @property
    def rehearsal(self) -> bool:
        """True where the numbers say nothing about GPUs."""
        return self.mode == "cpu"

    @property
    def attached(self) -> bool:
        """True where the server was running already."""
        return any(launch.attached for launch in self.launches)

    @property
    def warmup_passes(self) -> int:
        """The client's --warmup-passes: at most so many, before it measures."""
        return 3 if self.rehearsal or self.attached else 5

    @property
    def rounds(self) -> int:
        """Launches of each case, so far as they are planned."""
        return max((launch.round for launch in self.launches), default=0)

    @property
    def session(self) -> int:
        """1 for the run as first started, 2 after the first --resume, ..."""
        return 1 + len(self.resumed)

    def gpus(self, of_the_host: str) -> str:
        """What its ranks ran on, in a few words; `of_the_host`: "4 x NVIDIA H200", what one of its
        nodes has, or why that is not known. "2 of 4 x NVIDIA H200" where it used fewer."""
        if self.mode == "cpu":
            return "a CPU"
        there = re.match(r"(\d+) x ", of_the_host)
        shares = self.ranks_per_gpu if self.mode == "one_gpu" else 1
        used = -(-self.launches[0].ranks_a_node // shares) if shares else 0
        fewer = there and 0 < used < int(there[1])
        return f"{used} of {of_the_host}" if fewer else of_the_host or "GPUs"

    @property
    def sharing(self) -> str:
        """How ranks share GPUs, in a few words; empty where they do not."""
        if self.mode != "one_gpu":
            return ""
        how = "side by side through MPS" if self.mps else "in time slices"
        return f"{self.ranks_per_gpu or 'several'} ranks a GPU, {how}"

    @property
    def load_text(self) -> str:
        """Its load in a few words, of a sweep the main one."""
        text = f"{self.batch} prompts at once, {self.max_new_tokens} new tokens each"
        more = [axis for axis in ("input_len", "rate", "mix") if self._main.get(axis)]
        if more:
            text += f" ({', '.join(f'{axis} {self._main[axis]}' for axis in more)})"
        return text

    @property
    def _main(self) -> dict[str, str]:
        return self.loads[0].point if self.loads else {}

    def load(self, name: str) -> Load:
        """The load of a sweep of that name. Raises KeyError where there is none."""
        for load in self.loads:
            if load.name == name:
                return load
        raise KeyError(name)

    def load_label(self, launch: Launch, name: str) -> str:
        """What names the files of one load of a launch; those of the main load have its own."""
        return launch.label if name == self.loads[0].name else f"{launch.label}_at_{name}"

    def profiled_loads(self, launch: Launch) -> list[str]:
        """The names of the loads, but for the main one, under which a launch is profiled too."""
        return self.profile_loads if self.profile and launch.round == 1 else []

    def other_loads(self, launch: Launch) -> list[str]:
        """The labels of a launch's loads but for the main one; empty without a sweep."""
        return [self.load_label(launch, load.name) for load in self.loads[1:]]

    @property
    def firsts(self) -> list[Launch]:
        """The first launch of each case, in the order of --cases, whichever ran first; in runs
        that do not hold that order case A first."""
        found: dict[str, Launch] = {}
        for launch in sorted(self.launches, key=lambda launch: launch.round):
            found.setdefault(launch.case, launch)
        return sorted(found.values(), key=lambda launch: (launch.place, launch.label))

    def launch(self, label: str) -> Launch:
        """The launch of that label. Raises NotThereError where there is none."""
        for launch in self.launches:
            if launch.label == label:
                return launch
        labels = [launch.label for launch in self.launches]
        raise NotThereError(f"no launch '{label}' in the run; the first of its: {labels[:4]}")


# what is read of logs/<label>_client.json, and of those of a sweep's other loads
CLIENT: dict[str, Any] = {"summary": {"warnings": list[str]}}
_SPREAD = ({"mean": float}, None)
# what is read of logs/<label>_analysis.json
ANALYSIS: dict[str, Any] = {
    "graph_launches": dict[str, int],
    "ranks": dict[str, dict[str, Any]],
    "token_return": {
        "host_us": {"send": _SPREAD},
        "delivery_us": {"send": _SPREAD, "overlapped_with_graph": _SPREAD, "idle": _SPREAD},
    },
}


def plan_path(logs: Path) -> Path:
    """Where a run's plan is."""
    return logs / "run.json"


def save(logs: Path, plan: Plan) -> None:
    """Write the plan to logs/run.json. Raises OSError."""
    write_json(plan_path(logs), {"schema": plan.schema, **asdict(plan)})


def load(logs: Path) -> Plan:
    """The plan that a run left in its logs folder.

    Raises OSError where it cannot be read, BadFile where it is torn or something else.
    """
    data = _known(read_object(plan_path(logs), Plan), Plan)
    data["launches"] = [_launch(each) for each in data["launches"]]
    data["loads"] = [Load(**_known(each, Load)) for each in data.get("loads", [])]
    data["looks"] = [Look(**_known(each, Look)) for each in data.get("looks", [])]
    return Plan(**data)


def _launch(data: dict[str, Any]) -> Launch:
    known = _known(data, Launch)
    if attached := known.get("attached"):
        known["attached"] = Attached(**_known(attached, Attached))
    return Launch(**known)


def _known(data: dict[str, Any], kind: type) -> dict[str, Any]:
    """The fields of a dataclass among the keys of a JSON object."""
    names = (each.name for each in fields(kind))
    return {name: data[name] for name in names if name in data}

"""What is recorded of a launch: logs/<label>_launch.json, whose JSON Schema is
docs/schemas/launch.schema.json. Each step that learns something writes it at once, with `amend`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from repro_pp_graphs import struct_files
from repro_pp_graphs.files import BadFile

Status = Literal["running", "ok", "failed", "interrupted"]


NOT_BEGUN = "not begun"  # how the reason of a launch begins whose server was not started


class GraphState(msgspec.Struct):
    """What the server really ran: decode lines of its log with and without a graph."""

    decode_lines: int
    with_graph: int
    largest_eager_bs: int = 0  # requests in the largest decode batch that ran without a graph
    launches: dict[str, int] | None = (
        None  # cudaGraphLaunch calls in the traces by rank; None unprofiled
    )
    prefills_with_graph: int = 0  # prefill lines of the log that say so


class GpuCounters(msgspec.Struct, omit_defaults=True):
    """What server/machine/gpu_counters.py reads, as the drivers call it."""

    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    passes: dict[str, Any] | None = None  # the kernel's log after the last measured pass


class LoadProfile(msgspec.Struct, omit_defaults=True):
    """The profile under one load of a sweep that is not the main one."""

    seconds: float | None = None
    trace_bytes: dict[str, int] | None = None  # of each trace that it saw whole, by name
    began_ns: int | None = None  # CLOCK_MONOTONIC of the first node, before it was asked for
    ended_ns: int | None = None
    fault: str = ""  # why there is no whole set of traces, or no analysis of them


class LoadRecord(msgspec.Struct, omit_defaults=True):
    """One load of a sweep, as measured on a launch's server."""

    status: Literal["ok", "failed"]
    place: int  # from 1: of the loads on that server
    reason: str | None = None  # why it failed
    micro_batch: int | None = None  # requests in a micro-batch that the server was told
    client_sha256: str | None = None  # of its client.json
    profile: LoadProfile | None = None  # None: not profiled by itself


class RankLoad(msgspec.Struct, omit_defaults=True):
    """The thread of a rank that runs the scheduler's loop, over one pass."""

    ran_share: float  # of the time: on a core
    waited_share: float  # of the time: ready to run, and no core free for it
    voluntary: int  # context switches when it waited for something
    involuntary: int  # context switches when another thread took its core
    core: int  # on which it was last
    cores: str  # on which it may run: 0-3,8


class HostWindow(msgspec.Struct, omit_defaults=True):
    """The machine's CPUs over some time; every share is of all usable cores' time."""

    seconds: float
    cores: int  # that may be used
    other_cores: float  # of them, kept busy by processes that are not the launch's, on average
    steal_share: float | None = None  # taken by the hypervisor
    pressure_share: float | None = None  # of the time: some thread was ready and had no core
    runnable: int | None = None  # threads ready or running at its end, the launch's among them
    load1: float | None = None  # load average of a minute at its end
    clock_mhz: float | None = None  # median over the ranks' cores at its end, or over all


class HostLoad(msgspec.Struct, omit_defaults=True):
    """A launch's host: just before its passes and over all of them."""

    before: HostWindow
    during: HostWindow
    ranks: dict[str, RankLoad] = {}  # by name, PP0; empty where no rank's process was found
    loop_ms: float | None = None  # of a fixed loop of Python, the fastest of several runs
    loop_python: str | None = None  # of which Python, 3.12: another one takes another time


class LaunchRecord(msgspec.Struct, omit_defaults=True):
    """logs/<label>_launch.json: what is known of a launch; None, and no key, where it is not."""

    status: Status
    reason: str | None = None  # why it failed, or what an interruption left out
    # its measured pass ended whole; at the launch's end also: as the case that it claims to be
    measured: bool = False
    warnings: list[str] | None = None
    run_id: str | None = None  # the plan's
    session: int | None = None  # the plan's, when the launch began
    began: str | None = None  # 2026-11-24 03:15:00, local time
    wall_s: float | None = None  # from its begin to its end, to a second
    server_start_s: float | None = None  # from the server's start until it answered
    server_info: dict[str, Any] | None = None  # the server's own account of its arguments
    profile_s: float | None = None  # of the profile pass
    trace_bytes: dict[str, int] | None = None  # of each trace that the profile saw whole, by name
    graph_state: GraphState | None = None
    shims: dict[str, str] | None = None  # why each is installed, by name
    gpu_counters: GpuCounters | None = None
    host: HostLoad | None = None  # the machine's CPUs before and during the client's passes
    client_sha256: str | None = None  # of its client.json, when the launch had ended
    # what its server refused as it started: an argument with its values, or NAME=value
    bad_argument: str | None = None
    loads: dict[str, LoadRecord] | None = None  # of a sweep, by name, as they were measured


def path_of(logs: Path, label: str) -> Path:
    """Where the record of a launch is."""
    return logs / f"{label}_launch.json"


def load(logs: Path, label: str) -> LaunchRecord | None:
    """What was recorded of a launch so far; None where it has not begun.

    Raises OSError where it cannot be read, BadFile where it is torn or something else.
    """
    path = path_of(logs, label)
    return struct_files.read(path, LaunchRecord) if path.exists() else None


def begin(logs: Path, label: str, begun: LaunchRecord) -> None:
    """Begin a launch's record: what an earlier try recorded is gone. Raises OSError."""
    struct_files.write(path_of(logs, label), begun)


def amend(logs: Path, label: str, warnings: list[str] | None = None, **changes: object) -> None:
    """Set fields of a launch's record, and add warnings to it, at once: a later failure loses none.

    A record that cannot be read is begun anew, with a warning. Raises OSError, and TypeError for a
    field that a record does not have.
    """
    said = list(warnings or [])
    try:
        found = load(logs, label) or LaunchRecord("running")
    except BadFile as error:
        found = LaunchRecord("running")
        said.insert(0, f"{error}: begun anew")
    if said:
        changes["warnings"] = [*(found.warnings or []), *said]
    struct_files.write(path_of(logs, label), msgspec.structs.replace(found, **changes))


def note_profile(logs: Path, label: str, name: str, found: LoadProfile) -> None:
    """Record how the profile under a load of a sweep went; a fault of it is a warning of the
    launch, whose measurement stands. Raises OSError, and BadFile where that load has no record."""
    known = load(logs, label)
    loads = dict(known.loads or {}) if known else {}
    if name not in loads:
        raise BadFile(f"{path_of(logs, label)} has no load {name}")
    loads[name] = msgspec.structs.replace(loads[name], profile=found)
    said = [f"profile under {name}: {found.fault}"] if found.fault else []
    amend(logs, label, said, loads=loads)

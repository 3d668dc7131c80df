"""summary.json as types: schema 2. Schema 1 had the same names without `verdict`."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from repro_pp_graphs import run_record
from repro_pp_graphs.launch_record import HostLoad, LoadProfile
from repro_pp_graphs.pp_clock.clock_record import ClockSummary
from repro_pp_graphs.stats.verdict_record import Pair, Verdict

SCHEMA = 2

Status = Literal["ok", "failed", "running", "interrupted", "not run", "unreadable"]


class LoadSummary(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One load of a sweep on one launch's server."""

    load: str  # its name, as in the sweep's loads
    status: Literal["ok", "failed", "not measured"]
    place: int | None = None  # from 1: of the loads on that server
    micro_batch: int | None = None  # requests in a micro-batch that the server was told
    metrics: dict[str, float] = {}  # as of the launch
    waits_ms: dict[str, float] = {}  # of the last rank in this pass, by pp_clock; empty: not known
    pp_clock: ClockSummary | None = None  # the last rank's turns in this pass
    client_warnings: list[str] = []
    reason: str | None = None  # why it failed
    profile: LoadProfile | None = None  # of this load by itself; None: there was none
    token_send_ms: dict[str, float] = {}  # means of that profile, as of the launch
    traced: list[str] = []  # what its traces say: the longest wait of a turn, and its cause


class SweptLoad(msgspec.Struct, kw_only=True):
    """One load of a sweep, and the cases compared under it."""

    load: run_record.Load
    pairs: list[Pair]  # p_holm: corrected over loads, and pairs but the question's, of a metric


class SameTokenIds(msgspec.Struct, kw_only=True):
    """Of how many prompts a launch gave the token ids that the first gave, at temperature 0."""

    first: str  # the label of that launch
    same: int
    of: int  # prompts whose ids both servers sent whole


class LaunchSummary(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One server launch: what was measured, and under what state."""

    label: str
    case: str
    round: int
    place: int = 0  # of its case in --cases, from 1; 0 in runs of earlier versions
    status: Status
    warnings: list[str]
    sglang_version: str
    sends: str  # how PP sends go: blocking, synchronous, asynchronous, ...
    expects_graphs: bool | None  # None on a CPU
    server_args: list[str]
    resolved: dict[str, Any]  # of the server's own account of its arguments
    metrics: dict[str, float]  # of the measuring client; the names carry the units
    decode_batches: dict[str, int]  # decode steps by batch size, on the first rank, while traced
    token_send_ms: dict[str, float]  # means of the profile pass: host, sent, under_graph, idle
    waits_ms: dict[str, float]  # of the last rank (stats/metric_names.py); schema 2
    client_warnings: list[str]
    waits_from: Literal["pp_clock", "profile", ""] = ""  # what measured waits_ms, in all launches
    network: str = ""  # how NCCL is made to send between ranks; empty: as it chooses
    pp_clock: ClockSummary | None = None  # the last rank's turns in the measured pass
    loads: list[LoadSummary] = []  # of a sweep; the figures above are those of its main load
    reason: str | None = None  # why it failed, is unreadable, or what an interruption left out
    measured: bool = False  # its measured pass is whole and of its case; of no matter when "ok"
    session: int | None = None  # 1: measured before any --resume
    began: str | None = None  # local time, 2026-11-24 03:15:00
    wall_s: float | None = None  # from its begin to its end, to a second
    server_start_s: float | None = None
    profile_s: float | None = None
    trace_bytes: dict[str, int] | None = None  # by file name
    graph_state: dict[str, Any] | None = None  # decode lines with and without a graph, launches
    shims: dict[str, str] | None = None  # name and reason
    gpu_counters: dict[str, Any] | None = None  # before, after
    host: HostLoad | None = None  # the machine's CPUs before and during the client's passes
    same_token_ids: SameTokenIds | None = None
    different_answers: int | None = None  # to its prompts, by their token ids; None: not known
    host_unlike: list[str] = []  # in which its host was not like the other launches' (stats/unlike)
    host_taken: list[str] = []  # what else took its host's cores, whatever the others had


class MainLoad(msgspec.Struct, kw_only=True):
    """What the client asks of every launch; of a sweep, its main load."""

    batch: int  # prompts in flight
    max_new_tokens: int  # a prompt


class Change(msgspec.Struct, kw_only=True):
    """A fact of the environment that differs between the run's start and its end."""

    section: str
    key: str
    gpu: int | None
    before: str
    after: str


class Summary(msgspec.Struct, kw_only=True):
    """A run: its state, its launches in the order of the plan, and what they say."""

    schema: int
    engine: str  # sglang, probe
    mode: str  # gpu, one_gpu, cpu
    sharing: str = ""  # how ranks share GPUs: 2 ranks a GPU, in time slices; empty: they do not
    rehearsal: bool
    nsys: bool
    began: str  # local time
    sessions: list[str]  # when it was begun and resumed; a launch's `session` counts them from 1
    load: MainLoad
    complete: bool  # every launch was measured
    warnings: list[str]
    environment_changes: list[Change] | None  # None: not collected
    launches: list[LaunchSummary]
    verdict: Verdict | None = None  # None in schema 1; of a sweep, on its main load
    sweep: list[SweptLoad] | None = None  # the main load first; None: there was no sweep


_FIRST_SCHEMA = {"engine": "sglang", "began": "", "sessions": [], "warnings": []}
_FIRST_LAUNCH: dict[str, Any] = {
    **{"warnings": [], "sglang_version": "", "sends": "", "expects_graphs": None},
    **{"server_args": [], "resolved": {}, "metrics": {}, "decode_batches": {}},
    **{"token_send_ms": {}, "waits_ms": {}, "client_warnings": []},
}


def from_json(value: dict[str, Any]) -> Summary:
    """A stored summary of schema 1 or 2; what schema 1 came to have later is filled in.

    Raises msgspec.ValidationError where it is something else.
    """
    launches = value.get("launches")
    if isinstance(launches, list):
        filled = [_FIRST_LAUNCH | each for each in launches if isinstance(each, dict)]
        value = {"environment_changes": None, **_FIRST_SCHEMA, **value, "launches": filled}
    return msgspec.convert(value, Summary)

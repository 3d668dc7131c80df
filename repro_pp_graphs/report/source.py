"""What a folder holds for a report: a run with its launches, or traces alone."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from repro_pp_graphs import files, launch_record, run_record
from repro_pp_graphs.client.metrics import itl_ms
from repro_pp_graphs.client.record import Record
from repro_pp_graphs.environment import changes
from repro_pp_graphs.files import BadFile
from repro_pp_graphs.pp_clock.clock_record import ClockFacts
from repro_pp_graphs.pp_clock.collect import facts_path
from repro_pp_graphs.report import launch_row
from repro_pp_graphs.report.summary import run_summary, summary_record
from repro_pp_graphs.run_record import Plan
from repro_pp_graphs.traces.analysis_record import Analysis, document, from_document
from repro_pp_graphs.traces.explain.slices import Timeline

MOST_CASES = 12  # of traces in one report; more are one report each


@dataclass
class _Request:
    """What is read of a prompt in a client's JSON: [arrival_ns, cumulative tokens]."""

    events: list[list[int]]


_EVENTS: dict[str, Any] = {
    "summary": {
        "itl_over_time": list[dict[str, float]],
        **dict.fromkeys(("total_input_tokens", "completed", "failed"), int),
    },
    "requests": list[_Request],
}
_POINT = {"t_s", "mean_itl_ms"}
_PROMPTS = (("total_input_tokens",), ("completed", "failed"))


class Explained(msgspec.Struct):
    """The traces of one launch, or of one case of somebody else's: explained, and as slices."""

    name: str
    analysis: Analysis | None = None
    timeline: Timeline | None = None
    why: str = ""  # there is no analysis


class Launched(msgspec.Struct, kw_only=True):
    """One launch of a run: its place, what its client saw, what its traces say.

    `itl_ms`: a gap for every token but the first of each prompt, sorted; `itl_over_time`: (s from
    the first prompt, mean ITL ms).
    """

    summary: summary_record.LaunchSummary
    case: int  # index of its case
    order: int  # from 1, as the launches ran
    itl_ms: list[float]
    itl_over_time: list[tuple[float, float]]
    prompt_tokens: float | None  # mean length of a prompt
    server_info: dict[str, Any]
    env: dict[str, str]
    explained: Explained | None = None  # None: not traced
    clock: ClockFacts | None = None  # None: not timed by pp_clock

    @property
    def measured(self) -> bool:
        """Whether the figures of its measured pass stand, though it may have ended ill after it."""
        return launch_row.is_measured(msgspec.structs.asdict(self.summary))


class Source(msgspec.Struct, kw_only=True):
    """A folder: a run (plan, summary, launches) or traces (explained). `cases` are names to show,
    in the order in which they were asked for."""

    folder: Path
    cases: list[str]
    logs: Path | None = None
    plan: Plan | None = None
    summary: summary_record.Summary | None = None
    launches: list[Launched] = []
    explained: list[Explained] = []
    environment: dict[str, str] = {}
    warnings: list[str] = []

    def all_explained(self) -> list[tuple[int, Explained]]:
        """Whatever was traced, with the index of its case."""
        if self.plan is None:
            return list(enumerate(self.explained))
        return [(one.case, one.explained) for one in self.launches if one.explained]


def logs_of(folder: Path) -> Path | None:
    """Where a run's records are: in its folder, or the folder itself; None where it is no run."""
    for logs in (folder / "logs", folder):
        if (logs / "run.json").is_file():
            return logs
    return None


def read(folder: Path, told: dict[str, Any] | None = None) -> Source:
    """Everything of a folder; `told`: the run's summary, where it has just been made.

    Raises OSError where it cannot be read, BadFile where it holds neither a run nor traces, or a
    run whose plan is torn.
    """
    if not folder.is_dir():
        raise BadFile(f"{folder} is no folder")
    logs = logs_of(folder)
    reports = (folder / "summary.json", folder / "logs" / "summary.json")
    if logs is None and any(each.is_file() for each in reports):
        merged = sorted(folder.glob("*_trace.json*"))
        shown = f" (its traces: python -m repro_pp_graphs open {merged[0]})" if merged else ""
        raise BadFile(
            f"{folder} holds the report of a run (summary.json) without its records "
            f"(logs/run.json, logs/*_client.json): it is there to be read{shown}, nothing can be "
            "computed from it"
        )
    return _run(folder, logs, told) if logs else _traces(folder)


def _run(folder: Path, logs: Path, told: dict[str, Any] | None) -> Source:
    plan = run_record.load(logs)
    # before the summary, which has figures of the analyses
    said = {each.label: _explained_launch(folder, logs, each.label) for each in plan.launches}
    told = told or run_summary.summarise(logs, plan)
    found = summary_record.from_json(told)
    names = [launch.case for launch in plan.firsts]
    warnings: list[str] = []
    launches = []
    # what --resume measured came after all before it
    both = zip(plan.launches, found.launches, strict=True)
    ran = sorted(both, key=lambda each: each[1].session or 1)
    for order, (launch, its) in enumerate(ran, 1):
        seen = _client(logs / f"{launch.label}_client.json", warnings)
        measured = launch_row.is_measured(msgspec.structs.asdict(its))
        launches.append(
            Launched(
                summary=its,
                case=names.index(launch.case),
                order=order,
                itl_ms=seen.itl_ms if measured else [],
                itl_over_time=seen.over_time if measured else [],
                prompt_tokens=seen.prompt_tokens,
                server_info=_server_info(logs, launch.label),
                env=launch.env,
                explained=said[launch.label] if its.status == "ok" else None,
                clock=_clock(facts_path(logs, launch.label)) if measured else None,
            )
        )
    env = _object(logs / "env.json", changes.SHAPE)
    return Source(
        folder=folder,
        cases=[launch_row.name(told, case) for case in names],
        logs=logs,
        plan=plan,
        summary=found,
        launches=launches,
        environment=env.get("summary", {}),
        warnings=warnings,
    )


def _object(path: Path, hint: object) -> dict[str, Any]:
    try:
        return files.read_object(path, hint)
    except (OSError, BadFile):
        return {}  # summarise() has warned of it


def _server_info(logs: Path, label: str) -> dict[str, Any]:
    try:
        known = launch_record.load(logs, label)
    except (OSError, BadFile):
        return {}
    return (known.server_info if known else None) or {}


class _Client(msgspec.Struct):
    """What a launch's client wrote, as far as a report draws it."""

    itl_ms: list[float] = []
    over_time: list[tuple[float, float]] = []
    prompt_tokens: float | None = None


def _client(path: Path, warnings: list[str]) -> _Client:
    """A launch's client JSON; empty, with a warning, where it is torn or something else."""
    try:
        found = files.read_object(path, _EVENTS)
    except FileNotFoundError:
        return _Client()
    except (OSError, BadFile) as error:
        warnings.append(f"{error}: its distribution is left out")
        return _Client()
    requests = found.get("requests", [])
    gaps: list[float] = []
    for request in requests:
        gaps += itl_ms(Record(events=_growing(request["events"])))
    told = found.get("summary", {})
    over_time = told.get("itl_over_time", [])
    points = [(each["t_s"], each["mean_itl_ms"]) for each in over_time if each.keys() >= _POINT]
    tokens, prompts = (sum(told.get(k, 0) for k in keys) for keys in _PROMPTS)
    return _Client(sorted(gaps), points, tokens / prompts if tokens and prompts else None)


def _growing(events: list[list[int]]) -> list[list[int]]:
    """The events that bring a token, as a client writes them all."""
    found: list[list[int]] = []
    for each in events:
        if len(each) == 2 and each[1] > (found[-1][1] if found else 0):
            found.append(each)
    return found


def _explained_launch(folder: Path, logs: Path, label: str) -> Explained | None:
    """What the traces of a launch say, from its files or else from the traces anew."""
    stored = logs / f"{label}_analysis.json"
    traces = folder / "trace" / label
    slices = logs / f"{label}_timeline.json"
    if not stored.exists() and not any(traces.glob("*.trace.json*")):
        return None
    found = Explained(label, _stored_analysis(stored, traces), _stored_timeline(slices, traces))
    if found.analysis and found.timeline:
        return found
    from repro_pp_graphs.report import anew  # noqa: PLC0415 - reads traces, with numpy

    read = anew.of_launch(traces, label)
    if read is None:
        lacking = "of another version of repro_pp_graphs, which this one does not read, and the "
        lacking += "traces to make it anew are gone"
        words = f"{label}_analysis.txt"
        lacking += f"; {words} has it in words" if (logs / words).is_file() else ""
        found.why = "" if found.analysis else f"{stored.name}: {lacking}"
        return found
    if found.analysis is None:
        found.analysis = read.analysis
        with contextlib.suppress(OSError):
            files.write_json(stored, document(read.analysis))
    if found.timeline is None and read.timeline:
        found.timeline = read.timeline
        with contextlib.suppress(OSError):  # it is only to be quicker the next time
            files.write_whole(slices, msgspec.json.encode(read.timeline).decode() + "\n")
    return found


def _stored_analysis(path: Path, traces: Path) -> Analysis | None:
    """The analysis of a launch; None where it is of another version, and can be made anew."""
    try:
        found = from_document(files.read_object(path))
    except (OSError, BadFile, msgspec.ValidationError):
        return None
    is_old = found.ring_path is None and not found.ring_path_unknown
    return None if is_old and traces.is_dir() else found


def _clock(path: Path) -> ClockFacts | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=ClockFacts)
    except (OSError, msgspec.DecodeError):
        return None


def _stored_timeline(path: Path, traces: Path) -> Timeline | None:
    """The slices that were cut from traces; None where the traces are newer, or there are none."""
    try:
        cut = path.stat().st_mtime_ns
        if any(each.stat().st_mtime_ns > cut for each in traces.glob("*.trace.json*")):
            return None
        return msgspec.json.decode(path.read_bytes(), type=Timeline)
    except (OSError, msgspec.DecodeError):
        return None


def _traces(folder: Path) -> Source:
    """The traces in a folder, or in the folders inside it."""
    from repro_pp_graphs.report import anew  # noqa: PLC0415 - as above

    if not folder.exists():
        raise BadFile(f"{folder}: there is no such folder")
    found, warnings = anew.of_folder(folder, MOST_CASES)
    if not found:
        what = "has neither logs/run.json of a run nor traces of ranks (*.trace.json.gz)"
        raise BadFile(f"{folder} {what}")
    return Source(
        folder=folder,
        cases=[each.name for each in found],
        explained=[Explained(*each) for each in found],
        warnings=warnings,
    )

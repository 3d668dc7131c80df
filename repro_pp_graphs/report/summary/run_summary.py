"""summary.json of a whole run: its launches, what differs between them, the verdict, the sweep."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from repro_pp_graphs.environment import changes
from repro_pp_graphs.files import BadFile, read_object
from repro_pp_graphs.report.summary import token_ids
from repro_pp_graphs.report.summary.launch_summary import read, summarise_launch
from repro_pp_graphs.run_record import Plan
from repro_pp_graphs.stats.metric_names import IDLE, OUTSIDE
from repro_pp_graphs.stats.unlike import taken, unlike

# summary.json as far as the table needs it
SUMMARY: dict[str, Any] = {
    "mode": str,
    "rehearsal": bool,
    "nsys": bool,
    "sessions": list[str],
    "launches": list[dict[str, Any]],
}
_LAUNCH_KEYS = ("label", "case", "round", "status", "metrics", "sends", "sglang_version")
SCHEMA = 2
_ALIKE = ("engine", "mode", "batch", "max_new_tokens", "machine")  # of runs with one noise floor


def summarise(logs: Path, plan: Plan) -> dict[str, Any]:
    """The whole run, as stored in summary.json; `sessions` are the times at which it was begun and
    resumed, and a launch's `session` counts them from 1."""
    launches = [summarise_launch(logs, launch, plan) for launch in plan.launches]
    _choose_waits(launches, plan)
    _mark_hosts(launches, plan.attached)
    token_ids.mark(launches, {each["label"]: each.pop("ids") for each in launches})
    warnings: list[str] = []
    before, after = (
        read(logs / f"{name}.json", changes.SHAPE, warnings, "it is written anew by the next run")
        for name in ("env", "env_after")
    )
    changed = changes.between(before, after, _bus_ids(launches))
    return {
        "schema": SCHEMA,
        "engine": plan.engine,
        "mode": plan.mode,
        "sharing": plan.sharing,
        "rehearsal": plan.rehearsal,
        "nsys": plan.nsys,
        "began": plan.began,
        "sessions": [plan.began, *plan.resumed],
        "load": {"batch": plan.batch, "max_new_tokens": plan.max_new_tokens},
        "complete": all(map(_is_whole, launches)),
        "warnings": warnings,
        "environment_changes": None if changed is None else [each._asdict() for each in changed],
        "launches": launches,
        "verdict": _verdict(logs, plan, launches),
        "sweep": _sweep(logs, plan, launches),
    }


def _bus_ids(launches: list[dict[str, Any]]) -> set[str]:
    """Of the GPUs that the run may use, by their counters."""
    counters = [each["gpu_counters"]["before"] for each in launches if each.get("gpu_counters")]
    rows = [row for found in counters for row in found.get("gpus") or []]
    return {row["pci.bus_id"] for row in rows if "pci.bus_id" in row}


def stored(logs: Path, plan: Plan) -> dict[str, Any]:
    """summary.json of that run, or what it would say where it is missing, torn or of another."""
    found = read(logs / "summary.json", SUMMARY, [], "")
    launches = found.get("launches", [])
    whole = SUMMARY.keys() <= found.keys() and all(
        key in launch for launch in launches for key in _LAUNCH_KEYS
    )
    labels = [launch.label for launch in plan.launches]
    if whole and labels == [launch["label"] for launch in launches]:
        return found
    return summarise(logs, plan)


def _choose_waits(launches: list[dict[str, Any]], plan: Plan) -> None:
    """Settle `waits_ms`: the measured pass's where every launch that ended well has it, else the
    profile's in all, so that launches are never compared across the two. The clock of a rank that
    shares its GPU shows when its own batches run, not when the GPU is idle."""
    shares = plan.mode == "one_gpu" and plan.ranks_per_gpu != 1
    clocked = [launch.pop("clock_waits_ms", {}) for launch in launches]
    ended = [n for n, launch in enumerate(launches) if launch["status"] == "ok"]
    by_clock = bool(ended) and all(clocked[n] for n in ended)
    for launch, waits in zip(launches, clocked, strict=True):
        if by_clock:
            idle = (IDLE, OUTSIDE) if shares else ()
            launch["waits_ms"] = {name: ms for name, ms in waits.items() if name not in idle}
        launch["waits_from"] = ("pp_clock" if by_clock else "profile") if launch["waits_ms"] else ""


def _mark_hosts(launches: list[dict[str, Any]], attached: bool) -> None:
    """Note in `host_unlike` in which a measured launch's host was not like the others', and in
    `host_taken` what else took its cores. Of a server that the run did not start nobody knows
    which processes are the server's."""
    measured = [each for each in launches if each["status"] == "ok" and each.get("host")]
    facts = list(map(_host, measured))
    for launch, fact, said in zip(measured, facts, unlike(facts), strict=True):
        if said:
            launch["host_unlike"] = said
        if attached:
            fact.pop("others")
        more = [text for text in taken(fact) if not any(each.startswith(text) for each in said)]
        if more:
            launch["host_taken"] = more


def _host(launch: dict[str, Any]) -> dict[str, float]:
    """The facts of a launch's host that no case decides, by their names in stats/unlike."""
    during, ranks = launch["host"]["during"], launch["host"].get("ranks", {})
    waited = [each["waited_share"] for each in ranks.values()]
    found = {
        "others": during["other_cores"] / during["cores"],
        "steal": during.get("steal_share"),
        "waited": max(waited, default=None),
        "clock_mhz": during.get("clock_mhz"),
        "loop_ms": launch["host"].get("loop_ms"),
    }
    return {name: value for name, value in found.items() if value is not None}


def _is_whole(launch: dict[str, Any]) -> bool:
    """Whether it was measured, under every load of a sweep."""
    loads = launch.get("loads", [])
    return launch["status"] == "ok" and all(each["status"] == "ok" for each in loads)


def _sweep(logs: Path, plan: Plan, launches: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """The cases compared under every load; None without a sweep, or in an interpreter that lacks
    what it needs."""
    if not plan.loads:
        return None
    try:
        import msgspec  # noqa: PLC0415 - collect_env.sh --bundle reads summaries with any Python

        from repro_pp_graphs.report.summary import sweep  # noqa: PLC0415
    except ImportError:
        return None
    found = sweep.compared(plan, launches, _earlier_floor(logs.parent, plan))
    as_json: list[dict[str, Any]] = msgspec.to_builtins(found)
    return as_json


def _verdict(logs: Path, plan: Plan, launches: list[dict[str, Any]]) -> dict[str, Any] | None:
    """What stats/ makes of the launches; None in an interpreter that lacks what it needs."""
    try:
        import msgspec  # noqa: PLC0415 - collect_env.sh --bundle reads summaries with any Python

        from repro_pp_graphs.report.summary import verdict  # noqa: PLC0415
    except ImportError:
        return None
    found = verdict.verdict(
        plan, launches, _reason(logs, launches), _earlier_floor(logs.parent, plan)
    )
    as_json: dict[str, Any] = msgspec.to_builtins(found)
    return as_json


def _earlier_floor(out: Path, plan: Plan) -> float | None:
    """How far equal arms differ, 0.02 for 2 %, in the latest A/A run that was done in the same
    folder before this one began, on the same machine and under the same load; None without one."""
    found: dict[str, float] = {}
    for path in (out / "previous").glob("*/logs/summary.json"):
        with contextlib.suppress(OSError, BadFile, AttributeError):
            run = read_object(path.with_name("run.json"))
            floor = (read_object(path).get("verdict") or {}).get("floor")
            alike = all(run.get(name) == getattr(plan, name) for name in _ALIKE)
            alike &= [load["point"] for load in run.get("loads", [])] == [
                load.point for load in plan.loads
            ]
            began = str(run.get("began", ""))
            if run.get("aa") and alike and began < plan.began and isinstance(floor, int | float):
                found[began] = float(floor)
    return found[max(found)] if found else None


def _reason(logs: Path, launches: list[dict[str, Any]]) -> str:
    """Where the last rank's host waits, in the words of the first analysis with graphs on, or of
    the only one."""
    from repro_pp_graphs.traces.analysis_record import read_analysis  # noqa: PLC0415
    from repro_pp_graphs.traces.explain import token_return_words  # noqa: PLC0415 - needs msgspec

    for launch in launches:
        if len(launches) == 1 or (launch["expects_graphs"] and launch["waits_ms"]):
            with contextlib.suppress(OSError, BadFile):  # of another version
                found = read_analysis(logs / f"{launch['label']}_analysis.json")
                said = " ".join(token_return_words.token_return(found))
                of = f"In the profile of {launch['label']}: " if len(launches) > 1 else ""
                return of + said
    return ""

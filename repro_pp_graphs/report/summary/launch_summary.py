"""One launch of summary.json: what it measured, by its client, its clocks and its traces."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from repro_pp_graphs import files, run_record
from repro_pp_graphs.files import BadFile
from repro_pp_graphs.report.summary import from_traces, token_ids
from repro_pp_graphs.run_record import Launch, Plan
from repro_pp_graphs.server.case import needs
from repro_pp_graphs.server.machine import network
from repro_pp_graphs.server.release.release_facts import MICRO_BATCH
from repro_pp_graphs.stats.metric_names import CLIENT, CONTROL

# of the client's summary; the keys carry their units
METRICS = (
    *CLIENT,
    "median_tpot_ms",
    "completed",
    "failed",
    "total_output_tokens",
    "duration",
    CONTROL,
    "median_beside_ttft_ms",
)
# of the server's resolved arguments: what decides an A/B of PP and graphs
RESOLVED = (
    "version",
    "pp_size",
    "tp_size",
    "disable_cuda_graph",
    "cuda_graph_config",
    "cuda_graph_max_bs",
    "cuda_graph_bs",
    "cuda_graph_max_bs_decode",
    "cuda_graph_backend_decode",
    "pp_async_batch_depth",
    *MICRO_BATCH,
    "attention_backend",
    "max_total_tokens",
    "disable_overlap_schedule",
)

# how a release sends, without remedy or shim, and how an analysis calls that
MANNERS = {"blocking": "on_device", "synchronous": "synchronous", "asynchronous": "asynchronous"}
UNREADABLE = "unreadable"  # a launch whose record cannot be read, or is of another run
AGAIN = "--resume measures that launch again"


def summarise_launch(logs: Path, launch: Launch, plan: Plan) -> dict[str, Any]:
    """One launch: status (ok, failed, not run, unreadable), metrics, resolved arguments, graph
    state."""
    facts = _facts(logs, launch, plan)
    status = facts.pop("status", "not run")
    facts["warnings"] = list(facts.get("warnings", []))
    client = {} if status in ("not run", UNREADABLE) else _client(logs, launch.label, facts)
    facts["warnings"] += launch.caveats if client else []
    path = logs / f"{launch.label}_analysis.json"
    make = f"python -m repro_pp_graphs analyze trace/{launch.label} --json {path} makes it anew"
    analysis = read(path, run_record.ANALYSIS, facts["warnings"], make) if client else {}
    if of_others := _other_ranks(analysis, launch):
        facts["warnings"].append(of_others)
        analysis = {}
    shown, by_release = analysis.get("sends"), MANNERS.get(sends(launch, plan))
    if plan.mode != "cpu" and by_release and shown in MANNERS.values() and shown != by_release:
        facts["warnings"].append(
            f"its traces show other sends than sglang {launch.sglang_version} makes ({shown}, not "
            f"{by_release}): another run's, or its sources were changed"
        )
    if facts.get("graph_state") and analysis.get("graph_launches"):
        # of the traces that lie there now, as a report is of them: they may be another launch's
        facts["graph_state"] |= {"launches": analysis["graph_launches"]}
    info = facts.pop("server_info", {})
    for own in ("run_id", "bad_argument"):  # the reason says it
        facts.pop(own, None)
    if status == "ok" and not client:
        status = UNREADABLE
        facts["reason"] = f"there is no {launch.label}_client.json of it; {AGAIN}"
    return {
        "label": launch.label,
        "case": launch.case,
        "place": launch.place,
        "round": launch.round,
        "status": status,
        **facts,
        "sglang_version": info.get("version", launch.sglang_version),
        "sends": sends(launch, plan),
        "network": network.transport(launch.env),
        "expects_graphs": launch.expects_graphs,
        "server_args": launch.args,
        "resolved": {key: info[key] for key in RESOLVED if key in info},
        "metrics": _metrics(client),
        "ids": client.get("ids", []),
        "decode_batches": from_traces.decode_batches(analysis),
        "token_send_ms": from_traces.token_send_ms(analysis),
        "waits_ms": from_traces.token_return_ms(analysis),
        **(_clock(logs, launch.label, sends(launch, plan), facts["warnings"]) if client else {}),
        "client_warnings": client.get("warnings", []),
        **_loads(logs, launch, plan, facts.pop("loads", {}), facts["warnings"]),
    }


def _other_ranks(analysis: dict[str, Any], launch: Launch) -> str:
    """That the traces are of another number of ranks than the launch; empty where they are not."""
    found = [analysis.get(key) for key in ("pp_size", "tp_size")]
    if None in found or found == [launch.pp_size, launch.tp_size]:
        return ""
    return (
        f"its traces are of PP {found[0]} x TP {found[1]}, the launch of PP "
        f"{launch.pp_size} x TP {launch.tp_size}: another run's, no figure of theirs is compared; "
        f"put its own into trace/{launch.label}"
    )


def _facts(logs: Path, launch: Launch, plan: Plan) -> dict[str, Any]:
    """What was recorded of a launch of this run; its status is UNREADABLE, with a reason, where the
    record is torn or of another run."""
    import msgspec  # noqa: PLC0415 - collect_env.sh --bundle reads summaries with any Python

    from repro_pp_graphs import launch_record  # noqa: PLC0415

    path = launch_record.path_of(logs, launch.label)
    try:
        found = launch_record.load(logs, launch.label)
        if found and plan.run_id and found.run_id != plan.run_id:
            raise BadFile(f"{path} is of another run")
    except (OSError, BadFile) as error:
        return {"status": UNREADABLE, "reason": f"{error}; {AGAIN}"}
    facts: dict[str, Any] = msgspec.to_builtins(found) if found else {}
    return facts


def _client(logs: Path, label: str, facts: dict[str, Any]) -> dict[str, Any]:
    """The client's summary of a pass, with the digests of the token ids as `ids`; empty, with a
    warning, where it is not what was recorded."""
    path = logs / f"{label}_client.json"
    document = read(path, run_record.CLIENT, facts["warnings"], AGAIN)
    found: dict[str, Any] = document.get("summary", {})
    measured = facts.pop("client_sha256", None)
    if found and measured and files.sha256(path) != measured:
        facts["warnings"].append(f"{path} is not what was measured: left out; {AGAIN}")
        return {}
    return {**found, "ids": token_ids.digests(document)} if found else {}


def _loads(
    logs: Path, launch: Launch, plan: Plan, known: dict[str, Any], warnings: list[str]
) -> dict[str, Any]:
    """What a launch measured of each load of a sweep, in the plan's order; empty without one."""
    found = []
    for load in plan.loads:
        label, state = plan.load_label(launch, load.name), dict(known.get(load.name, {}))
        row = {"load": load.name, "status": "not measured", **state}
        if row["status"] == "ok":
            client = _client(logs, label, {"warnings": warnings, **row})
            row |= {"metrics": _metrics(client), "client_warnings": client.get("warnings", [])}
            clock = _clock(logs, label, sends(launch, plan), warnings) if client else {}
            row["waits_ms"] = clock.pop("clock_waits_ms", {})
            row |= clock
            row["status"] = "ok" if client else "not measured"
            row |= _profiled(logs, label, warnings) if row.get("profile") else {}
        row.pop("client_sha256", None)
        found.append(row)
    return {"loads": found} if found else {}


def _profiled(logs: Path, label: str, warnings: list[str]) -> dict[str, Any]:
    """What the traces under one load of a sweep say; empty without an analysis of them."""
    path = logs / f"{label}_analysis.json"
    make = f"python -m repro_pp_graphs analyze trace/{label} --json {path} makes it anew"
    found = read(path, run_record.ANALYSIS, warnings, make)
    if not found:
        return {}
    from repro_pp_graphs.traces.analysis_record import read_analysis  # noqa: PLC0415
    from repro_pp_graphs.traces.explain import conclusion  # noqa: PLC0415 - needs msgspec

    said: list[str] = []
    with contextlib.suppress(OSError, BadFile):  # of another version
        said = conclusion.longest_wait(read_analysis(path))
    return {"token_send_ms": from_traces.token_send_ms(found), "traced": said}


def _metrics(client: dict[str, Any]) -> dict[str, float]:
    return {key: client[key] for key in METRICS if _is_number(client.get(key))}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _clock(logs: Path, label: str, how: str, warnings: list[str]) -> dict[str, Any]:
    """What the ranks' clocks say of a measured pass: `pp_clock`, the waits by name; both left out
    where they left nothing, or the interpreter lacks what reading them needs."""
    try:
        import msgspec  # noqa: PLC0415 - collect_env.sh --bundle reads summaries with any Python

        from repro_pp_graphs.pp_clock import collect, figures  # noqa: PLC0415
    except ImportError:
        return {}
    try:
        found = collect.load(logs, label)
    except (OSError, BadFile) as error:
        warnings.append(f"{error}: left out; its rows are beside it")
        return {}
    short = figures.summary(found) if found else None
    if found is None or short is None:
        return {}
    waits = figures.token_return(found, with_receive=how == "synchronous")
    return {"pp_clock": msgspec.to_builtins(short), "clock_waits_ms": waits}


def sends(launch: Launch, plan: Plan) -> str:
    """How PP sends go: as the release does it, unless a case has a remedy or a shim for it; the
    probe's send path."""
    if plan.engine == "probe":
        return launch.value("--send")
    return needs.how_sent(launch.env, launch.sglang_version, plan.mode != "cpu")


def read(path: Path, hint: object, warnings: list[str], remedy: str) -> dict[str, Any]:
    """A result file; empty where there is none, and with a warning where it is something else."""
    try:
        return files.read_object(path, hint)
    except FileNotFoundError:
        return {}
    except (OSError, BadFile) as error:
        warnings.append(f"{error}: left out; {remedy}")
        return {}

"""summary.json: what every launch of a run measured, and under what state."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from repro_pp_graphs import files, record
from repro_pp_graphs.environment import changes
from repro_pp_graphs.files import BadFile
from repro_pp_graphs.record import Launch, Plan
from repro_pp_graphs.report import token_ids, token_return
from repro_pp_graphs.server import case_needs, network
from repro_pp_graphs.stats.names import CLIENT, CONTROL
from repro_pp_graphs.stats.unlike import taken, unlike

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
    "pp_max_micro_batch_size",
    "attention_backend",
    "max_total_tokens",
    "disable_overlap_schedule",
)


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
UNREADABLE = "unreadable"  # a launch whose record cannot be read, or is of another run
AGAIN = "--resume measures that launch again"


def _read(path: Path, hint: object, warnings: list[str], remedy: str) -> dict[str, Any]:
    """A result file; empty where there is none, and with a warning where it is something else."""
    try:
        return files.read_object(path, hint)
    except FileNotFoundError:
        return {}
    except (OSError, BadFile) as error:
        warnings.append(f"{error}: left out; {remedy}")
        return {}


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
    document = _read(path, record.CLIENT, facts["warnings"], AGAIN)
    found: dict[str, Any] = document.get("summary", {})
    measured = facts.pop("client_sha256", None)
    if found and measured and files.sha256(path) != measured:
        facts["warnings"].append(f"{path} is not what was measured: left out; {AGAIN}")
        return {}
    return {**found, "ids": token_ids.digests(document)} if found else {}


def summarise_launch(logs: Path, launch: Launch, plan: Plan) -> dict[str, Any]:
    """One launch: status (ok, failed, not run, unreadable), metrics, resolved arguments, graph
    state."""
    facts = _facts(logs, launch, plan)
    status = facts.pop("status", "not run")
    facts["warnings"] = list(facts.get("warnings", []))
    client = {} if status in ("not run", UNREADABLE) else _client(logs, launch.label, facts)
    path = logs / f"{launch.label}_analysis.json"
    make = f"python -m repro_pp_graphs analyze trace/{launch.label} --json {path} makes it anew"
    analysis = _read(path, record.ANALYSIS, facts["warnings"], make) if client else {}
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
        "decode_batches": decode_batches(analysis),
        "token_send_ms": token_send_ms(analysis),
        "waits_ms": token_return.of(analysis),
        **(_clock(logs, launch.label, sends(launch, plan), facts["warnings"]) if client else {}),
        "client_warnings": client.get("warnings", []),
        **_loads(logs, launch, plan, facts.pop("loads", {}), facts["warnings"]),
    }


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
    found = _read(path, record.ANALYSIS, warnings, make)
    if not found:
        return {}
    from repro_pp_graphs.traces.explain import conclusion  # noqa: PLC0415 - needs msgspec
    from repro_pp_graphs.traces.facts import read_analysis  # noqa: PLC0415

    said: list[str] = []
    with contextlib.suppress(OSError, BadFile):  # of another version
        said = conclusion.longest_wait(read_analysis(path))
    return {"token_send_ms": token_send_ms(found), "traced": said}


def _metrics(client: dict[str, Any]) -> dict[str, float]:
    return {key: client[key] for key in METRICS if _is_number(client.get(key))}


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


def _choose_waits(launches: list[dict[str, Any]]) -> None:
    """Settle `waits_ms`: the measured pass's where every launch that ended well has it, else the
    profile's in all, so that launches are never compared across the two."""
    clocked = [launch.pop("clock_waits_ms", {}) for launch in launches]
    ended = [n for n, launch in enumerate(launches) if launch["status"] == "ok"]
    by_clock = bool(ended) and all(clocked[n] for n in ended)
    for launch, waits in zip(launches, clocked, strict=True):
        if by_clock:
            launch["waits_ms"] = waits
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


def stored(logs: Path, plan: Plan) -> dict[str, Any]:
    """summary.json of that run, or what it would say where it is missing, torn or of another."""
    found = _read(logs / "summary.json", SUMMARY, [], "")
    launches = found.get("launches", [])
    whole = SUMMARY.keys() <= found.keys() and all(
        key in launch for launch in launches for key in _LAUNCH_KEYS
    )
    labels = [launch.label for launch in plan.launches]
    if whole and labels == [launch["label"] for launch in launches]:
        return found
    return summarise(logs, plan)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def decode_batches(analysis: dict[str, Any]) -> dict[str, int]:
    """Decode steps by batch size on the first rank, from the traces: how the load was split."""
    ranks = analysis.get("ranks") or {"": {}}
    sizes: dict[str, int] = next(iter(ranks.values())).get("decode_batch_sizes", {})
    return sizes if isinstance(sizes, dict) else {}


def token_send_ms(analysis: dict[str, Any]) -> dict[str, float]:
    """Means of the last rank's token send to rank 0, a decode step, from the traces.

    `host`: the host span that sends; `sent`: from that span's begin until the last byte has left;
    `under_graph` and `idle`: the parts of `sent` with the rank's graph kernels running, and with
    its GPU running no compute kernels (both left out on a CPU, which has no kernels; `idle` also
    where it cannot be told whether ranks share the GPU). Empty
    without traces, and where too few of the steps are seen whole; `host` alone where it is not
    known when the last byte has left.
    """
    found = analysis.get("token_return") or {}
    if not found.get("enough"):
        return {}
    host = found.get("host_us", {})
    sent = found.get("delivery_us", {}) if found.get("delivery_known") else {}
    means = {"host": host.get("send"), "sent": sent.get("send")}
    ranks = analysis.get("ranks", {}).values()
    if sent and all(rank.get("basis") == "gpu" for rank in ranks):
        idle = token_return.idle_key(analysis)
        means |= {"under_graph": sent.get("overlapped_with_graph"), "idle": sent.get(idle)}
    known = {name: (values or {}).get("mean") for name, values in means.items()}
    return {name: round(us / 1e3, 4) for name, us in known.items() if us is not None}


def sends(launch: Launch, plan: Plan) -> str:
    """How PP sends go: as the release does it, unless a case has a remedy or a shim for it; the
    probe's send path."""
    if plan.engine == "probe":
        return launch.args[launch.args.index("--send") + 1]
    return case_needs.how_sent(launch.env, launch.sglang_version, plan.mode != "cpu")


def summarise(logs: Path, plan: Plan) -> dict[str, Any]:
    """The whole run, as stored in summary.json; `sessions` are the times at which it was begun and
    resumed, and a launch's `session` counts them from 1."""
    launches = [summarise_launch(logs, launch, plan) for launch in plan.launches]
    _choose_waits(launches)
    _mark_hosts(launches, plan.attached)
    token_ids.mark(launches, {each["label"]: each.pop("ids") for each in launches})
    warnings: list[str] = []
    envs = [
        _read(logs / f"{name}.json", changes.SHAPE, warnings, "it is written anew by the next run")
        for name in ("env", "env_after")
    ]
    changed = changes.between(*envs)
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

        from repro_pp_graphs.report import noise_floor, sweep  # noqa: PLC0415
    except ImportError:
        return None
    found = sweep.compared(plan, launches, noise_floor.before(logs.parent, plan))
    as_json: list[dict[str, Any]] = msgspec.to_builtins(found)
    return as_json


def _verdict(logs: Path, plan: Plan, launches: list[dict[str, Any]]) -> dict[str, Any] | None:
    """What stats/ makes of the launches; None in an interpreter that lacks what it needs."""
    try:
        import msgspec  # noqa: PLC0415 - collect_env.sh --bundle reads summaries with any Python

        from repro_pp_graphs.report import noise_floor, verdict  # noqa: PLC0415
    except ImportError:
        return None
    found = verdict.verdict(
        plan, launches, _reason(logs, launches), noise_floor.before(logs.parent, plan)
    )
    as_json: dict[str, Any] = msgspec.to_builtins(found)
    return as_json


def _reason(logs: Path, launches: list[dict[str, Any]]) -> str:
    """Where the last rank's host waits, in the words of the first analysis with graphs on, or of
    the only one."""
    from repro_pp_graphs.traces.explain import conclusion  # noqa: PLC0415 - needs msgspec
    from repro_pp_graphs.traces.facts import read_analysis  # noqa: PLC0415

    for launch in launches:
        if len(launches) == 1 or (launch["expects_graphs"] and launch["waits_ms"]):
            with contextlib.suppress(OSError, BadFile):  # of another version
                found = read_analysis(logs / f"{launch['label']}_analysis.json")
                said = " ".join(conclusion.token_return(found))
                of = f"In the profile of {launch['label']}: " if len(launches) > 1 else ""
                return of + said
    return ""

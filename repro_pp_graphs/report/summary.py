"""summary.json: what every launch of a run measured, and under what state."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from repro_pp_graphs.environment import changes
from repro_pp_graphs.run import record
from repro_pp_graphs.run.record import Launch, Plan
from repro_pp_graphs.server import needs, shims
from repro_pp_graphs.server.flags import version_numbers
from repro_pp_graphs.server.release_facts import pp_sends

# of the client's summary; the keys carry their units
METRICS = (
    "median_ttft_ms",
    "p99_ttft_ms",
    "median_itl_ms",
    "p99_itl_ms",
    "mean_tpot_ms",
    "median_tpot_ms",
    "output_throughput",
    "completed",
    "failed",
    "total_output_tokens",
    "duration",
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


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def summarise_launch(logs: Path, launch: Launch, plan: Plan) -> dict[str, Any]:
    """One launch: status (ok, failed, not run), metrics, resolved arguments, graph state."""
    facts = record.load_facts(logs, launch.label)
    client = _read(logs / f"{launch.label}_client.json").get("summary", {})
    info = facts.pop("server_info", {})
    return {
        "label": launch.label,
        "case": launch.case,
        "round": launch.round,
        "status": facts.pop("status", "not run"),
        **facts,
        "sglang_version": info.get("version", launch.sglang_version),
        "sends": sends(launch, plan),
        "expects_graphs": launch.expects_graphs,
        "server_args": launch.args,
        "resolved": {key: info[key] for key in RESOLVED if key in info},
        "metrics": {key: client[key] for key in METRICS if key in client},
        "decode_batches": decode_batches(_read(logs / f"{launch.label}_analysis.json")),
        "token_send_ms": token_send_ms(_read(logs / f"{launch.label}_analysis.json")),
        "client_warnings": client.get("warnings", []),
    }


def decode_batches(analysis: dict[str, Any]) -> dict[str, int]:
    """Decode steps by batch size on the first rank, from the traces: how the load was split."""
    ranks = analysis.get("ranks") or {"": {}}
    sizes: dict[str, int] = next(iter(ranks.values())).get("decode_batch_sizes", {})
    return sizes


def token_send_ms(analysis: dict[str, Any]) -> dict[str, float]:
    """Means of the last rank's token send to rank 0, a decode step, from the traces.

    `host`: the host span that sends; `sent`: from that span's begin until the last byte has left;
    `under_graph` and `idle`: the parts of `sent` with the rank's graph kernels running, and with
    none of its compute kernels running (both left out on a CPU, which has no kernels). Empty
    without traces, and where too few of the steps are seen whole.
    """
    found = analysis.get("token_return") or {}
    if not found.get("enough"):
        return {}
    sent = found["delivery_us"] if found["delivery_enough"] else {}
    means = {"host": found["host_us"]["send"], "sent": sent.get("send")}
    if sent and all(rank["basis"] == "gpu" for rank in analysis["ranks"].values()):
        means |= {"under_graph": sent["overlapped_with_graph"], "idle": sent["idle"]}
    return {name: round(values["mean"] / 1e3, 4) for name, values in means.items() if values}


def sends(launch: Launch, plan: Plan) -> str:
    """How PP sends go: as the release does it, unless a case has a remedy or a shim for it; the
    probe's send path."""
    if plan.engine == "probe":
        return launch.args[launch.args.index("--send") + 1]
    if "sync_send" in shims.names_in(launch.env):
        return "blocking (shim sync_send)"
    if needs.overlaps(launch.env) and plan.mode != "cpu":
        return "asynchronous, on a stream of their own"
    return pp_sends(version_numbers(launch.sglang_version))


def summarise(logs: Path, plan: Plan) -> dict[str, Any]:
    """The whole run, as stored in summary.json."""
    launches = [summarise_launch(logs, launch, plan) for launch in plan.launches]
    changed = changes.between(_read(logs / "env.json"), _read(logs / "env_after.json"))
    return {
        "schema": 1,
        "engine": plan.engine,
        "mode": plan.mode,
        "rehearsal": plan.rehearsal,
        "nsys": plan.nsys,
        "began": plan.began,
        "load": {"batch": plan.batch, "max_new_tokens": plan.max_new_tokens},
        "complete": all(launch["status"] == "ok" for launch in launches),
        "environment_changes": None if changed is None else [each._asdict() for each in changed],
        "launches": launches,
    }

"""What a launch's row takes from the analysis of its traces: token return, token send, batches.

Of a token return it depends on where the wait for the GPU is held what is counted: in the send
(releases whose sends block, and those whose sends wait for nothing), or in the send and the receive
that follows it (sends over gloo alone: sglang 0.5.3 to 0.5.6). All times are ms.
"""

from __future__ import annotations

from typing import Any

from repro_pp_graphs.stats.metric_names import IDLE, OUTSIDE, OWN_GRAPH, RETURN

# rows of a turn in which the host sends, receives, or waits for its results
_MESSAGES = (
    *("token_send", "token_recv", "hidden_send", "hidden_recv"),
    *("exchange", "requests", "other_messages", "results"),
)


def token_return_ms(analysis: dict[str, Any]) -> dict[str, float]:
    """The figures of an analysis by name (stats/metric_names.py); those that it does not have are
    left out, all of them where ranks ran on a CPU: it has no kernels to tell idle time by."""
    ranks = analysis.get("ranks") or {}
    if not ranks or any(rank.get("basis") != "gpu" for rank in ranks.values()):
        return {}
    rows = _rows(analysis)
    idle = idle_key(analysis)
    found = _in_send_and_receive(rows, idle) if analysis.get("sends") == "synchronous" else {}
    if analysis.get("sends") in ("on_device", "asynchronous", "batched"):
        found = _in_send(analysis.get("token_return") or {}, idle)
    parts = [rows[name].get(f"gpu_{idle}") for name in _MESSAGES if name in rows]
    if parts and None not in parts:
        found[OUTSIDE] = sum(parts)
    return {name: round(us / 1000, 4) for name, us in found.items() if us is not None}


def idle_key(analysis: dict[str, Any]) -> str:
    """The field in which a token send has how long the last rank's GPU computes nothing: where it
    is known to share the GPU that of all ranks there. A field that there is none of where that
    cannot be told."""
    last = _last(analysis)
    shared = [
        gpu.get("shared") for gpu in analysis.get("shared_gpus") or [] if last in gpu["ranks"]
    ]
    if not shared:
        return "idle"
    return "idle_of_all" if shared[0] else "idle_not_known"


def _last(analysis: dict[str, Any]) -> str:
    """The label of the last rank, of its first TP lane."""
    return f"{analysis.get('pp_size', 1) - 1}" + (".0" if analysis.get("tp_size", 1) > 1 else "")


def _rows(analysis: dict[str, Any]) -> dict[str, Any]:
    """The rows of the last rank's turn; of its first TP lane."""
    rows = (analysis.get("turns") or {}).get(_last(analysis), {}).get("rows")
    if not isinstance(rows, dict):
        return {}
    return {name: row for name, row in rows.items() if isinstance(row, dict)}


def _in_send(told: dict[str, Any], idle: str) -> dict[str, Any]:
    """Means of a decode step's token send, us."""
    if not told.get("enough"):
        return {}
    host = told.get("host_us") or {}
    names = {RETURN: "send", OWN_GRAPH: "overlapped_with_graph", IDLE: idle}
    return {name: (host.get(key) or {}).get("mean") for name, key in names.items()}


def _in_send_and_receive(rows: dict[str, Any], idle: str) -> dict[str, Any]:
    """Means of a turn's token send and receive, us."""
    both = [rows[name] for name in ("token_send", "token_recv") if name in rows]
    if len(both) < 2:
        return {}
    names = {RETURN: "mean", OWN_GRAPH: "under_own_graph", IDLE: f"gpu_{idle}"}
    found: dict[str, Any] = {}
    for name, key in names.items():
        parts = [row.get(key) for row in both]
        found[name] = None if None in parts else sum(parts)
    return found


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
        idle = idle_key(analysis)
        means |= {"under_graph": sent.get("overlapped_with_graph"), "idle": sent.get(idle)}
    known = {name: (values or {}).get("mean") for name, values in means.items()}
    return {name: round(us / 1e3, 4) for name, us in known.items() if us is not None}

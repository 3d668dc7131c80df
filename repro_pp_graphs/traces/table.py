"""The analysis as lines for a terminal of 80 columns."""

from __future__ import annotations

from typing import Any

HOST_NAMES = {
    "blocked_on_own_graph": "blocked on its own graph",
    "blocked_on_own_compute": "blocked on its own other kernels",
    "peer_late": "waiting for rank 0 to post its recv",
    "transfer": "transfer",
    "blocked_otherwise": "blocked on something else",
    "other_host": "other host work",
}
GPU_NAMES = {
    "own_graph": "the rank's own decode graph runs",
    "own_compute": "the rank's other kernels run",
    "peer_late": "the send runs, rank 0's recv has not started",
    "transfer": "transfer",
    "other": "nothing yet on the wire",
}


def lines(facts: dict[str, Any]) -> list[str]:
    """Lines that show one case's analysis (the dict that `analyze` returns)."""
    found = [
        f"{facts['case']}: {facts['pp_size']} PP ranks, common window "
        f"{facts['window_us'] / 1000:.1f} ms"
    ]
    for text in (_ranks(facts), _pairs(facts), _clocks(facts), _token_return(facts)):
        found += ["", *text] if text else []
    return [
        *found,
        *([""] if facts["warnings"] else []),
        *map("warning: {}".format, facts["warnings"]),
    ]


def time(value_us: float | None) -> str:
    """A time in the unit that reads best; `-` for none."""
    if value_us is None:
        return "-"
    if abs(value_us) >= 1e6:
        return f"{value_us / 1e6:.2f} s"
    if abs(value_us) >= 1e3:
        return f"{value_us / 1e3:.2f} ms"
    return f"{value_us:.1f} us"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}%"


def _ranks(facts: dict[str, Any]) -> list[str]:
    found = ["rank    graphs  batches   busy    p2p   idle  decode steps by batch size"]
    for label, row in facts["ranks"].items():
        sizes = " ".join(f"{size}:{count}" for size, count in row["decode_batch_sizes"].items())
        cells = " ".join(
            f"{_share(row[key]):>6}" for key in ("busy_fraction", "p2p_fraction", "idle_fraction")
        )
        found.append(
            f"PP{label:<5} {facts['graph_launches'][label]:>6} {row['batches']:>8} {cells}  {sizes}"
        )
    ring = facts["ring"]
    found.append(
        f"bubble {_share(ring['bubble_fraction'])}, ideal {_share(ring['ideal_bubble_fraction'])} "
        f"with {ring['micro_batches']} micro-batches in {facts['pp_size']} stages"
    )
    return found


def _pairs(facts: dict[str, Any]) -> list[str]:
    edges = [*facts["p2p"], *facts["p2p_gloo"]]
    if not edges:
        return []
    found = ["P2P, medians    sends recvs offset pairs  transfer send wait recv wait       lag"]
    for edge in edges:
        name = f"{edge['backend']} {edge['src']}->{edge['dst']}" + (
            f" tp{edge['tp']}" if facts["tp_size"] > 1 else ""
        )
        offset = "-" if edge["offset"] is None else f"{edge['offset']:+d}"
        cells = " ".join(
            f"{time(edge[key].get('median')):>9}"
            for key in ("transfer_us", "send_wait_us", "recv_wait_us", "lag_us")
        )
        found.append(
            f"{name:<15} {edge['sends']:>5} {edge['recvs']:>5} {offset:>6} "
            f"{edge['pairs']:>5} {cells}"
        )
    return found


def _clocks(facts: dict[str, Any]) -> list[str]:
    if not facts["clocks"]:
        return []
    found = ["clocks, by causality (how far the second rank's can be ahead of the first's)"]
    if len(facts["hosts"]) > 1:
        found.append(f"  {len(facts['hosts'])} hosts: waits and lags are good to these intervals")
    for row in facts["clocks"]:
        low = "-inf" if row["low_us"] is None else time(row["low_us"])
        high = "inf" if row["high_us"] is None else time(row["high_us"])
        found.append(f"  rank {row['a']}, rank {row['b']}: between {low} and {high}")
    return found


def _token_return(facts: dict[str, Any]) -> list[str]:
    told = facts["token_return"]
    if not told:
        return []
    counted = (
        "" if told["steps_counted"] == told["steps"] else f" ({told['steps_counted']} counted)"
    )
    found = [
        f"token return PP{told['src']} -> PP{told['dst']}: {told['steps']} steps{counted}, "
        f"by {told['found_by']}",
        f"  {'':34} {'median':>10} {'p99':>10} {'max':>10}",
    ]
    known = "delivery_us" in told  # not where no gloo send could be paired
    for title, group in (("host span", "host"), ("host back, last byte left", "delivery")):
        if group == "delivery" and not known:
            continue
        rows = told[f"{group}_us"]
        found.append(_row(f"{title}: send", rows["send"]))
        found.append(_row("  overlapped with the decode graph", rows["overlapped_with_graph"]))
        found.append(_row("  idle (no compute kernel runs)", rows["idle"]))
    if "until_received_us" in told:
        found.append(_row("until rank 0 has received it", told["until_received_us"]))
    for title, group, names in (
        ("the host span, by what the host waits for", "host", HOST_NAMES),
        ("until the last byte left, by what the GPU does", "delivery", GPU_NAMES),
    ):
        if group == "delivery" and not known:
            continue
        parts = told["split_us" if group == "host" else "delivery_split_us"]
        whole = told[f"{group}_us"]["send"]["mean"]
        found.append(f"  {title} (means add up)")
        for name, meaning in names.items():
            mean = parts[name]["mean"]
            if mean:
                share = _share(mean / whole)
                found.append(f"    {meaning:<50} {time(mean):>10} {share:>7}")
    calls = [
        f"{row['name']} {time(row['total_us'])} in {row['calls']}"
        for row in told["blocking_calls"][:3]
    ]
    found.append(f"    blocking calls: {'; '.join(calls) or 'none'}")
    return found


def _row(title: str, cell: dict[str, float]) -> str:
    return f"  {title:<34} " + " ".join(
        f"{time(cell[key]):>10}" for key in ("median", "p99", "max")
    )

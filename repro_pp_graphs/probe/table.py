"""The probe's terminal output: at most 80 columns, pure functions that return lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from repro_pp_graphs.probe.options import SETTLING_STEPS, ProbeOptions
from repro_pp_graphs.terminal import wrapped

NOTE = {
    "cpu": "CPU with gloo, no CUDA graphs: the order of calls is real, its times say nothing "
    "about GPUs; comm_stream and events change nothing here.",
    "shared": "The ranks share one GPU in time slices: order, blocking and waiting are real, "
    "durations are not those of one GPU a rank (own step and transfer include other ranks' "
    "slices; less so with two ranks, or with CUDA MPS running).",
    "mps": "The ranks share one GPU, side by side by CUDA MPS: order, blocking and waiting are "
    "real, durations are not those of one GPU a rank.",
}
HEAD = (
    "                 token send, host ms      of it, mean ms  deliv-",
    "graphs send           median   p99   own  peer  rest  ered     step ms tok/s",
)


def heading(options: ProbeOptions, environment: dict[str, Any]) -> list[str]:
    """What is about to be measured."""
    nccl = f", NCCL {environment['nccl']}" if environment["nccl"] else ", gloo"
    return [
        f"PROBE (no sglang): {options.ranks} ranks on {environment['device']}",
        f"  torch {environment['torch']}{nccl}; {options.host_us} us of host work a batch",
        f"  {options.layers} layers of {options.hidden} in all, {options.dtype}; "
        f"{options.micro_batches} micro-batches x {options.batch} sequences",
        f"  {options.repetitions} x {options.steps - SETTLING_STEPS} decode steps each, "
        f"after {SETTLING_STEPS} to settle",
    ]


def progress(row: dict[str, Any], number: int, count: int) -> str:
    """One line on the repetition just done."""
    return (
        f"  {number}/{count}  graphs {row['graphs']}, {row['send']}: send "
        f"{row['send_host_ms']:.2f} ms, step {row['step_ms']:.2f} ms"
    )[:79]


def number(value: float) -> str:
    """Three significant digits or so, at most 5 wide: columns of 6 stay apart."""
    if value >= 99_999.5:
        return f"{value / 1e3:.0f}k"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(estimate: dict[str, float | None]) -> str:
    """`12.3 ±0.4`, at most 11 wide; without the ± for a single repetition."""
    mean, half = estimate["mean"] or 0.0, estimate["half_width"]
    if half is None:
        return number(mean)
    text = f"{number(mean)} ±{number(half)}"
    return text if len(text) < 12 else text.replace(" ", "")


def lines(summary: Sequence[dict[str, Any]], environment: dict[str, Any]) -> list[str]:
    """The table of all combinations, its legend, and what it says."""
    found = ["", *HEAD]
    for row in summary:
        means = {key: row[key]["mean"] for key in row if isinstance(row[key], dict)}
        parts = "".join(f"{number(means[key]):>6}" for key in ("own_ms", "late_peer_ms", "rest_ms"))
        name = f"{row['graphs']:<4} {row['send']:<12}"
        if len(name) > 17:  # combined remedies: the figures go below
            found.append(name)
            name = " " * 17
        found.append(
            f"{name}{spread(row['send_host_ms']):>12}"
            f"{number(means['send_host_p99_ms']):>6}{parts}{number(means['delivered_ms']):>6}"
            f"{spread(row['step_ms']):>12}{number(means['tokens_per_s']):>6}"
        )
    repetitions = max(row["n"] for row in summary)
    averaged = f"Means of {repetitions} repetitions, ± their 95 % interval"
    averaged = averaged if repetitions > 1 else "One repetition"
    found += ["", *wrapped(
        f"{averaged}; all in one start of the program. own, peer and rest add up to the send's "
        "mean, not to its median. own: the rank's own decode step still runs on its device; peer: "
        "rank 0 has not yet entered its receive; rest: transfer and host work. delivered: from "
        "the call until the last byte is at rank 0. step: all micro-batches once round the ring."
    )]  # fmt: skip
    said = [*pattern(summary), *remedies(summary)] if environment["device"] != "cpu" else []
    found += ["", *(line for text in said for line in wrapped(text, "* "))] if said else []
    if environment["device"] == "cpu":
        found += ["", *wrapped(NOTE["cpu"], "! ")]
    elif environment["ranks_share_gpu"]:
        found += ["", *wrapped(NOTE["mps" if environment["mps"] else "shared"], "! ")]
    return [*found, ""]


def pattern(summary: Sequence[dict[str, Any]]) -> list[str]:
    """Does the blocking send with graphs against without show the pattern of #10865?"""
    by_graphs = {row["graphs"]: row for row in summary if row["send"] == "blocking"}
    if set(by_graphs) != {"on", "off"}:
        return []
    on, off = by_graphs["on"], by_graphs["off"]
    with_, without = on["send_host_ms"], off["send_host_ms"]
    whole = with_["mean"]
    waited = on["own_ms"]["mean"] + on["late_peer_ms"]["mean"]
    total = waited + on["rest_ms"]["mean"]
    slower, faster = whole - (with_["half_width"] or 0), without["mean"]
    text = (
        f"Blocking: the host is {number(whole)} ms in the send with graphs, "
        f"{number(without['mean'])} ms without ({number(whole / without['mean'])} times); "
        f"{100 * on['own_ms']['mean'] / total:.0f} % of it while the rank's own graph runs, "
        f"{100 * on['late_peer_ms']['mean'] / total:.0f} % while the peer is late. "
        "The calls it waits in: "
        f"{number(on['upload_ms']['mean'])} ms in the copy of the metadata to the GPU, which syncs "
        f"the stream, {number(on['exchange_ms']['mean'])} ms in handing its size to the peer."
    )
    if with_["half_width"] is None:
        verdict = "One repetition: too few to say whether they differ."
    elif slower > faster + (without["half_width"] or 0) and 2 * waited > total:
        verdict = "That is the pattern of #10865."
    else:
        verdict = "That is not the pattern of #10865, or not clear of the noise."
    return [f"{text} {verdict}"]


def remedies(summary: Sequence[dict[str, Any]]) -> list[str]:
    """Each path's step time against blocking of the same graph state."""
    found = []
    for row in summary:
        against = row.get("step_against_blocking")
        if not against:
            continue
        change, half = 100 * (against["mean"] - 1), against["half_width"]
        where = f"Graphs {row['graphs']}, {row['send']}: a decode step takes"
        if half is None:
            found.append(f"{where} {change:+.1f} % against blocking (one repetition: no interval).")
        elif abs(change) <= 100 * half:
            found.append(
                f"{where} {change:+.1f} % ±{100 * half:.1f} against blocking: no difference shown."
            )
        else:
            found.append(f"{where} {change:+.1f} % ±{100 * half:.1f} against blocking.")
    return found


def truth_lines(checks: Sequence[dict[str, Any]]) -> list[str]:
    """The trace analysis against what the ranks noted."""
    head = f"{'of messages':>12}{'pairs':>7}{'right':>7}{'times that fit':>16}{'no peer':>9}"
    found = ["trace analysis against the ranks' own notes", f"{'graphs send':<24}{head}"]
    for check in checks:
        name = f"{'on' if check['graphs'] else 'off':<6} {check['send']:<18}"
        if check.get("skipped"):
            found.append(f"{name}not checked: {check['skipped']}")
            continue
        share = f"{100 * check['within'] / check['times']:.0f} %" if check["times"] else "-"
        counts = f"{check['messages']:>11}{check['pairs']:>7}{check['right']:>7}"
        found.append(f"{name}{counts}{share:>16}{check['without_peer']:>9}")
    return found

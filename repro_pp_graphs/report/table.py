"""The side-by-side table of a run, at most 80 columns wide."""

from __future__ import annotations

from typing import Any

from repro_pp_graphs.environment import changes
from repro_pp_graphs.server.release_facts import SENDS_MEAN

_NAME_WIDTH, _WIDTH = 21, 24

ROWS = (
    ("TTFT median ms", "median_ttft_ms"),
    ("TTFT p99 ms", "p99_ttft_ms"),
    ("ITL median ms", "median_itl_ms"),
    ("ITL p99 ms", "p99_itl_ms"),
    ("TPOT mean ms", "mean_tpot_ms"),
    ("output tokens/s", "output_throughput"),
)
# means of the profile pass: the last rank's token send to rank 0 (docs/traces.md)
SEND_ROWS = (
    ("token send, host ms", "host"),
    ("last byte left ms", "sent"),
    ("  under own graph ms", "under_graph"),
    ("  no compute ms", "idle"),
)


def number(value: float | None) -> str:
    """Four significant digits; `-` for what was not measured."""
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def graphs(launch: dict[str, Any]) -> str:
    """cudaGraphLaunch calls in the traces: `24 a rank`, or `24/23` where ranks differ."""
    counts = (launch.get("graph_state") or {}).get("launches")
    if counts is None:
        return "not traced"
    values = list(counts.values())
    if len(set(values)) == 1:
        return f"{values[0]} a rank"
    text = "/".join(str(value) for value in values)
    return text if len(text) < _WIDTH else f"{min(values)} to {max(values)}"


def eager_share(launch: dict[str, Any]) -> str:
    """Decode lines of the server's log that ran with a graph: `118 of 118`; `-` for none."""
    state = launch.get("graph_state") or {}
    lines = state.get("decode_lines")
    return f"{state['with_graph']} of {lines}" if lines else "-"


def split(launch: dict[str, Any]) -> str:
    """Sizes of the micro-batches that decoded while traced: `4`, or `1 7` where they differ."""
    return " ".join(launch.get("decode_batches") or ()) or "-"


def _cells(launch: dict[str, Any], sessions: int) -> list[tuple[str, str]]:
    metrics = launch["metrics"]
    cells = [("status", launch["status"])]
    if sessions > 1:
        cells.append(("session", f"{launch.get('session', '-')} of {sessions}"))
    cells += [(name, number(metrics.get(key))) for name, key in ROWS]
    send = launch.get("token_send_ms", {})
    cells += [(name, number(send[key])) for name, key in SEND_ROWS if key in send]
    cells += [("micro-batch sizes", split(launch))]
    cells += [("graph launches", graphs(launch)), ("decode with graph", eager_share(launch))]
    if metrics.get("failed"):
        cells.append(("failed requests", str(metrics["failed"])))
    return cells


def _ratio(name: str, launches: list[dict[str, Any]]) -> str:
    if len(launches) != 2 or any(launch["status"] != "ok" for launch in launches):
        return ""
    by_name = {**dict(ROWS), **dict(SEND_ROWS)}
    values = [{**launch["metrics"], **launch.get("token_send_ms", {})} for launch in launches]
    a, b = (value.get(by_name.get(name, "")) for value in values)
    return f"{a / b:.2f}x" if a and b else ""


def blocks(launches: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """A round's first case beside each of the others, so that a ratio has one meaning; the cases
    in their order (every second round ran backwards)."""
    cases = list(dict.fromkeys(launch["case"] for launch in launches))
    by_round: dict[int, list[dict[str, Any]]] = {}
    for launch in sorted(launches, key=lambda each: cases.index(each["case"])):
        by_round.setdefault(launch["round"], []).append(launch)
    found = []
    for _, (first, *others) in sorted(by_round.items()):
        found += [[first, other] for other in others] or [[first]]
    return found


def _short(label: str) -> str:
    """A label that leaves a gap to its neighbour, cut in the middle: its end tells rounds apart."""
    return label if len(label) < _WIDTH else f"{label[:10]}...{label[14 - _WIDTH :]}"


def lines(summary: dict[str, Any]) -> list[str]:
    """The table: a column a launch, two abreast; the ratio of the first to the second."""
    out = []
    sessions = len(summary["sessions"]) if _resumed(summary) else 1
    for block in blocks(summary["launches"]):
        heads = "".join(f"{_short(launch['label']):>{_WIDTH}}" for launch in block)
        out.append(f"{'':<{_NAME_WIDTH}}{heads}" + ("   ratio" if len(block) == 2 else ""))
        by_launch = [dict(_cells(launch, sessions)) for launch in block]
        for name in dict.fromkeys(name for cells in by_launch for name in cells):
            values = "".join(f"{cells.get(name, '-'):>{_WIDTH}}" for cells in by_launch)
            out.append(f"{name:<{_NAME_WIDTH}}{values}   {_ratio(name, block)}".rstrip())
        out.append("")
    return out


def _resumed(summary: dict[str, Any]) -> list[str]:
    """A remark where launches were measured before and after a --resume."""
    begun: dict[int, list[str]] = {}
    for launch in summary["launches"]:
        if launch.get("session"):
            begun.setdefault(launch["session"], []).append(launch["label"])
    if len(begun) < 2:
        return []
    parts = [
        f"session {number}, begun {summary['sessions'][number - 1]}: {', '.join(labels)}"
        for number, labels in sorted(begun.items())
        if number <= len(summary["sessions"])
    ]
    return [
        f"Resumed ({'; '.join(parts)}): a difference between launches of different sessions may "
        "come from what changed in between."
    ]


def _sends(launches: list[dict[str, Any]]) -> list[str]:
    cases: dict[tuple[str, str], list[str]] = {}
    for launch in launches:
        names = cases.setdefault((launch["sglang_version"], launch["sends"]), [])
        names += [launch["label"]] if launch["round"] == 1 else []
    found = []
    for (version, how), names in cases.items():
        where = f" ({', '.join(names)})" if len(cases) > 1 else ""
        meaning = f": {SENDS_MEAN[how]}" if how in SENDS_MEAN else ""
        found.append(f"sglang {version}{where}: PP sends are {how}{meaning}.")
    return found


def _uneven_splits(launches: list[dict[str, Any]]) -> list[str]:
    """A remark where launches with the same cap on micro-batches split the load differently."""
    by_cap: dict[Any, set[str]] = {}
    for launch in launches:
        cap = launch.get("resolved", {}).get("pp_max_micro_batch_size")
        by_cap.setdefault(cap, set()).add(split(launch))
    sizes = {text for splits in by_cap.values() if len(splits - {"-"}) > 1 for text in splits}
    if not sizes - {"-"}:
        return []
    return [
        f"The load was split into micro-batches of other sizes from launch to launch "
        f"({'; '.join(sorted(sizes - {'-'}))}), by when its prompts were tokenized: not quite the "
        "same work. --pp-max-micro-batch-size (batch / pp) in server_args_base.txt evens it."
    ]


def remarks(summary: dict[str, Any]) -> list[str]:
    """What the reader must know before believing the table."""
    found = []
    probe = summary.get("engine") == "probe"
    if probe:
        found.append(
            "PROBE: the PP ring without sglang, with made-up weights: order of calls and waiting "
            "are sglang's, TTFT, TPOT and tokens/s are the probe's own."
        )
    if summary["rehearsal"]:
        found.append(
            "REHEARSAL on a CPU: no CUDA graphs in any arm, so graphs on against off is an "
            "A/A run; its numbers say nothing about #10865."
        )
    if summary["mode"] == "one_gpu":
        found.append("Ranks shared one GPU in time slices: not the durations of one GPU a rank.")
    if summary["nsys"]:
        found.append("Under nsys: times are not comparable with runs without it.")
    rounds = max(launch["round"] for launch in summary["launches"])
    if rounds < 4:
        found.append(
            f"{rounds} launch(es) a case: too few to tell a difference from launch-to-launch "
            "noise (the unit of replication is a launch; --rounds N adds more)."
        )
    if probe:
        found += [f"{each['label']}: send path {each['sends']}" for each in summary["launches"]]
    else:
        found += _sends(summary["launches"])
    if not probe:
        found += _uneven_splits(summary["launches"])
    found += _resumed(summary) + summary.get("warnings", [])
    changed = [changes.Change(**each) for each in summary.get("environment_changes") or []]
    found += [f"environment changed during the run: {text}" for text in changes.lines(changed)]
    for launch in summary["launches"]:
        texts = [launch["reason"]] if launch.get("reason") else []
        texts += launch.get("warnings", []) + launch["client_warnings"]
        found += [f"{launch['label']}: {text}" for text in texts]
    return found

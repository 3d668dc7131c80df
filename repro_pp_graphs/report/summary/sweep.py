"""A sweep: what was measured of every load, and the cases compared under each.

The main load has the run's verdict. Words of the others are corrected for their number (Holm, a
metric at a time: over all loads of the question's pair, over all loads and pairs of the others).
A launch counts for a load where it measured that whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from repro_pp_graphs.report.call_names import KINDS
from repro_pp_graphs.report.launch_row import Row, cases_of, gpu_fault, is_measured, name
from repro_pp_graphs.report.number_words import number
from repro_pp_graphs.report.summary import verdict
from repro_pp_graphs.report.summary.pairs import pairs_of, question_of
from repro_pp_graphs.report.summary.summary_record import SweptLoad
from repro_pp_graphs.run_record import Plan
from repro_pp_graphs.stats.arms import Sample
from repro_pp_graphs.stats.compare import Metric, correct, pair
from repro_pp_graphs.stats.metric_names import IDLE, OUTSIDE, OWN_GRAPH, RETURN
from repro_pp_graphs.stats.verdict_record import Pair

# of pp_clock's summary, where they are times of calls alone: not split, so without CUDA too
SEND, PREFILL, BESIDE = "token_send_ms", "prefill_token_send_ms", "beside_prefill_token_send_ms"
# what prompts that come beside a load cost it, and wait themselves
ITL, TTFT_BESIDE = "p99_itl_ms", "median_beside_ttft_ms"
# in the order of the tables: name, title
FIGURES = {
    "mean_tpot_ms": "TPOT mean, ms",
    ITL: "ITL p99, ms",
    "median_ttft_ms": "TTFT median, ms",
    "output_throughput": "output tokens/s",
    RETURN: "token return, ms",
    OWN_GRAPH: "of it while its own batch runs, ms",
    IDLE: "of it idle, ms",
    OUTSIDE: "waits while idle, ms a turn",
    SEND: "token send, ms",
    BESIDE: "token send while another micro-batch prefills, ms",
    PREFILL: "token send in prefill turns, ms",
    TTFT_BESIDE: "TTFT median of the prompts beside, ms",
}
SHOWN = ("mean_tpot_ms", ITL, TTFT_BESIDE, RETURN, IDLE, SEND, BESIDE, PREFILL)
COMPARED = ("mean_tpot_ms", RETURN, IDLE)  # of these, with a ratio in report.md
MECHANISM = (RETURN, IDLE, OUTSIDE, SEND, BESIDE, PREFILL)


def of_load(row: Row, load: str) -> Row:
    """What a launch measured of a load; an empty one where it did not."""
    return next((each for each in row.get("loads", []) if each["load"] == load), {})


def values(row: Row, load: str) -> dict[str, float]:
    """Every figure of a load on a launch's server, by FIGURES; empty where it was not measured."""
    found = of_load(row, load)
    if found.get("status") != "ok":
        return {}
    clock = found.get("pp_clock") or {}
    sends = {key: clock[key]["mean"] for key in (SEND, BESIDE, PREFILL) if clock.get(key)}
    return {**found["metrics"], **found.get("waits_ms", {}), **sends}


def compared(plan: Plan, launches: Sequence[Row], floor: float | None = None) -> list[SweptLoad]:
    """Every pair of cases under every load, corrected over the loads, and over the pairs but the
    question's own."""
    metrics = (Metric(plan.primary, "primary"), *(Metric(each, "mechanism") for each in MECHANISM))
    asked = verdict.asked_of(plan, floor)
    question = question_of(launches)
    couples = pairs_of(launches, question)
    found = []
    for load in plan.loads:
        samples = [_sample(row, load.name) for row in verdict.in_order(launches)]
        pairs = [pair(a, b, samples, metrics, asked) for a, b in couples]
        found.append(SweptLoad(load=load, pairs=pairs))
    own = couples.index(question) if question else len(couples)
    _correct([each.pairs[own] for each in found] if question else [], "loads")
    others = [one for each in found for at, one in enumerate(each.pairs) if at != own]
    _correct(others, "loads" if len(others) == len(found) else "loads and pairs of cases")
    return found


def _sample(row: Row, load: str) -> Sample:
    sample = verdict.sample_of(row)
    state = of_load(row, load)
    lacks = "" if state.get("status") == "ok" else state.get("reason") or "load not measured"
    return sample._replace(values=values(row, load), fault=sample.fault or lacks)


def _correct(pairs: Sequence[Pair], over: str) -> None:
    """Each metric over all of `pairs`: what they are of is `over`."""
    for metric in dict.fromkeys(each.metric for one in pairs for each in one.comparisons):
        same = [each for one in pairs for each in one.comparisons if each.metric == metric]
        correct(same, max(one.alpha for one in pairs), over)


def counted(summary: dict[str, Any], case: str, load: str) -> list[Row]:
    """The launches of a case that measured a load: those that ended well, as their GPUs did, else
    those that measured it before they failed; none of which it is known why that is no measurement,
    as the launch's own table shows none of its figures."""
    rows = [row for row in summary["launches"] if row["case"] == case and values(row, load)]
    well = [row for row in rows if not verdict.sample_of(row).fault]
    return well or [
        row for row in rows if not _is_doubted(row, summary["sweep"][0]["load"]["name"])
    ]


def _is_doubted(row: Row, main: str) -> bool:
    """Whether a GPU of a launch had a fault, or the launch measured the main load and was then
    found not to be what it claims."""
    found_out = of_load(row, main).get("status") == "ok" and not is_measured(row)
    return found_out or bool(gpu_fault(row.get("gpu_counters")))


def means(summary: dict[str, Any], load: str) -> dict[str, dict[str, float]]:
    """By case and figure the mean over the launches that count."""
    found = {}
    for case in cases_of(summary["launches"]):
        known = [values(row, load) for row in counted(summary, case, load)]
        names = dict.fromkeys(key for each in known for key in each)
        found[case] = {
            key: fmean([each[key] for each in known if key in each])
            for key in names
            if key in FIGURES
        }
    return found


def figures(summary: dict[str, Any], wanted: Sequence[str]) -> list[str]:
    """Those of `wanted` that any load has; the send alone where the whole return is not known, and
    the longest gaps between tokens where prompts came beside."""
    there = {
        key
        for each in summary["sweep"]
        for its in means(summary, each["load"]["name"]).values()
        for key in its
    }
    needless = {SEND} if RETURN in there else set()
    needless |= set() if TTFT_BESIDE in there else {ITL}
    return [key for key in wanted if key in there and key not in needless]


def ratios(summary: dict[str, Any], metric: str) -> dict[tuple[str, str], dict[str, Any]]:
    """By load and second case the comparison with the first case; none in a rehearsal, whose arms
    are alike."""
    if summary["rehearsal"]:
        return {}
    first = cases_of(summary["launches"])[0]
    return {
        (each["load"]["name"], one["b"]): found
        for each in summary["sweep"]
        for one in each["pairs"]
        if one["a"] == first
        for found in one["comparisons"]
        if found["metric"] == metric and found["estimate"]
    }


def partial(summary: dict[str, Any]) -> list[str]:
    """A sentence for each launch whose loads are not all measured."""
    titles = {each["load"]["name"]: each["load"]["title"] for each in summary["sweep"] or []}
    found = []
    for row in summary["launches"]:
        if row["status"] == "not run":
            continue
        lacks = [each for each in row.get("loads", []) if each["status"] != "ok"]
        if lacks:
            names = "; ".join(titles[each["load"]] for each in lacks[:4])
            more = f" and {len(lacks) - 4} more" if len(lacks) > 4 else ""
            found.append(
                f"{row['label']}: not measured: {names}{more}; --resume measures that launch again"
            )
    return found


def traced(summary: dict[str, Any]) -> list[str]:
    """A sentence for each load but the main one that was profiled: what its traces say of the
    longest wait of a turn, or why there are none."""
    titles = {each["load"]["name"]: each["load"]["title"] for each in summary["sweep"]}
    found = []
    for row in summary["launches"]:
        for each in row.get("loads", []):
            profile = each.get("profile")
            if profile is None:
                continue
            lacks = profile.get("fault") or "its traces have no analysis"
            text = " ".join(each.get("traced", [])) or f"cannot tell: {lacks}."
            found.append(f"{titles[each['load']]}, profiled in {row['label']}: {text}")
    return found


def most_idle(summary: dict[str, Any]) -> list[str]:
    """The largest idle part of the token return of each case and its load, with what the host waits
    for meanwhile; empty where it is not known."""
    found = []
    for case in cases_of(summary["launches"]):
        known = [
            (means(summary, each["load"]["name"])[case][IDLE], each["load"])
            for each in summary["sweep"]
            if IDLE in means(summary, each["load"]["name"])[case]
        ]
        if known:
            largest, load = max(known, key=lambda each: each[0])
            least = min(each[0] for each in known)
            low, high = number(least, 3), number(largest, 3)
            text = f"{high} ms of the token return are idle"
            if len(summary["sweep"]) > 1:
                text = f"under each of {len(known)} loads {text}"
                if low != high:
                    text = (
                        f"over {len(known)} loads {low} to {high} ms of the token return are idle, "
                        f"most under {load['title']}"
                    )
            cause = _cause(summary, case, load)
            found.append(f"{name(summary, case)}: {text}{cause}.")
    return found


def _cause(summary: dict[str, Any], case: str, load: dict[str, Any]) -> str:
    """In which calls a turn's waits outside the rank's own batches lie under a load."""
    clocks = [
        of_load(row, load["name"]).get("pp_clock") or {}
        for row in summary["launches"]
        if row["case"] == case
    ]
    timed = [clock["outside_ms"] for clock in clocks if clock.get("outside_ms")]
    kinds = {kind for each in timed for kind in each}
    means_ms = [(fmean(each.get(kind, 0.0) for each in timed), kind) for kind in kinds]
    parts = sorted(means_ms, reverse=True)
    named = [f"{KINDS[kind][0]} {number(ms, 3)} ms" for ms, kind in parts[:2] if ms > 0]
    several = len(summary["sweep"]) > 1
    where = f"under {load['title']} a turn's" if several else "a turn's"
    return f"; {where} waits while the GPU idles: {', '.join(named)}" if named else ""

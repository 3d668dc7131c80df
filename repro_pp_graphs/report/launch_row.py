"""A launch as summary.json has it, a JSON object: was it measured, what is its case called."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from repro_pp_graphs.launch_record import NOT_BEGUN
from repro_pp_graphs.server.machine import gpu_counters

Row = dict[str, Any]  # a launch of summary.json
HARDLY_ANY = 0.05  # of the turns
_LETTER = re.compile("CASE_[A-Z]_")


def cases_of(launches: Sequence[Row]) -> list[str]:
    """The cases in the order of --cases, whichever ran first. In runs that do not hold that order:
    those with a letter by it, CASE_A first, then the others."""

    def key(case: str) -> tuple[int, bool, str]:
        lettered = bool(_LETTER.match(labels[case]))
        return places[case], not lettered, labels[case] * lettered

    labels: dict[str, str] = {}
    places: dict[str, int] = {}
    for row in sorted(launches, key=lambda row: row["round"]):
        labels.setdefault(row["case"], row["label"])
        places.setdefault(row["case"], row.get("place", 0))
    return sorted(labels, key=key)


def name(summary: dict[str, Any], case: str) -> str:
    """What a case is called: in a rehearsal `arm A` where its name has graphs, which nothing has
    there."""
    cases = cases_of(summary["launches"])
    if not (summary.get("rehearsal") and any("graphs" in each for each in cases)):
        return case
    labels = {row["case"]: row["label"] for row in summary["launches"]}
    if _LETTER.match(labels[case]):
        return f"arm {labels[case][len('CASE_')]}"
    lettered = any(map(_LETTER.match, labels.values()))
    if lettered or "graphs" not in case:
        return case
    return f"arm {chr(ord('A') + cases.index(case))}"


def names_of(summary: dict[str, Any]) -> dict[str, str]:
    """What every case of a run is called."""
    return {row["case"]: name(summary, row["case"]) for row in summary["launches"]}


def with_names(text: str, names: Mapping[str, str]) -> str:
    """A sentence with the cases in it as they are called."""
    if not names:
        return text
    either = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    return re.sub(rf"(?<![\w-])(?:{either})(?![\w-])", lambda found: names[found[0]], text)


def is_measured(row: Row) -> bool:
    """Whether the figures of a launch's measured pass stand, though it failed or was interrupted
    after it; of one that is running nobody has looked yet whether it is what it claims."""
    looked_at = row["status"] in ("failed", "interrupted")
    return row["status"] == "ok" or bool(looked_at and row.get("measured") and row["metrics"])


def prefill_graphs(launches: Sequence[Row]) -> list[str]:
    """The cases in which prefills ran with CUDA graphs, by the servers' logs."""
    graphs = {
        row["case"] for row in launches if (row.get("graph_state") or {}).get("prefills_with_graph")
    }
    return sorted(graphs)


def split(row: Row) -> str:
    """Sizes of the micro-batches that decoded in the measured pass, by pp_clock, but for those of
    hardly any turn; else while traced: `4`, or `1 7` where they differ."""
    measured = (row.get("pp_clock") or {}).get("decode_batches") or {}
    least = HARDLY_ANY * sum(measured.values())
    sizes = [size for size, turns in measured.items() if turns > least]
    return " ".join(sizes or row.get("decode_batches") or ()) or "-"


def ended(row: Row) -> str:
    """How a launch ended: its status, but where its server was not started that."""
    begun = not (row.get("reason") or "").startswith(NOT_BEGUN)
    return row["status"] if begun else NOT_BEGUN


def gpu_fault(counters: dict[str, Any] | None) -> str:
    """What happened to a launch's GPUs so that no mean or comparison counts it; empty for nothing.
    `counters`: its gpu_counters."""
    there = counters and counters.get("before") and counters.get("after")
    if not counters or not there:
        return ""
    sides = counters["before"], counters["after"], counters.get("passes")
    return "; ".join(gpu_counters.faults(*sides))

"""Which cases of a run are compared with which."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from repro_pp_graphs.report.launch_row import Row, cases_of
from repro_pp_graphs.server.case.needs import BASELINE_CASES, BASELINES
from repro_pp_graphs.stats.interaction import Cells

ON, OFF = "graphs_on", "graphs_off"
GRAPHS_BY_SENDS = Cells(ON, OFF, "sync_send", "sync_send_no_graphs")  # run_repro.sh --sends both


def question_of(launches: Sequence[Row]) -> tuple[str, str] | None:
    """The cases that ask #10865's question: graphs on and off, of one release, sent alike."""
    first = {row["case"]: row for row in reversed(launches)}
    if ON in first and OFF in first:
        return ON, OFF
    for a, b in itertools.permutations(cases_of(launches), 2):
        alike = all(first[a][key] == first[b][key] for key in ("sglang_version", "sends"))
        if alike and first[a]["expects_graphs"] and first[b]["expects_graphs"] is False:
            return a, b
    return None


def pairs_of(launches: Sequence[Row], question: tuple[str, str] | None) -> list[tuple[str, str]]:
    """The question's cases first, then graphs on and off with blocking sends, graphs on against
    each case with asynchronous sends, the first case against each other, and each remedy against
    the case from whose sends its own differ in one thing. Of a 2 x 2 no two corners that differ in
    both."""
    cases = cases_of(launches)
    found = [question] if question else []
    on, off, blocking_on, blocking_off = GRAPHS_BY_SENDS
    found += [(blocking_on, blocking_off)] if {blocking_on, blocking_off} <= set(cases) else []
    if question:
        found += [(question[0], other) for other in asynchronous(launches, question[0])]
    found += [(cases[0], other) for other in cases[1:]]
    if set(GRAPHS_BY_SENDS) <= set(cases):
        corners = {(on, blocking_off), (off, blocking_on)}
        found = [each for each in found if not {each, each[::-1]} & corners]
        found += [(on, blocking_on), (off, blocking_off)]
    found += _baselines(launches)
    seen: list[tuple[str, str]] = []
    for a, b in found:
        if (a, b) not in seen and (b, a) not in seen:
            seen.append((a, b))
    return seen


def _baselines(launches: Sequence[Row]) -> list[tuple[str, str]]:
    """(baseline, remedy) of each case whose sends are a change of another one's that is there too,
    of the same release and with graphs alike."""
    first = {row["case"]: row for row in reversed(launches)}
    found = []
    for remedy in cases_of(launches):
        sends = BASELINES.get(first[remedy]["sends"], "")
        case = BASELINE_CASES.get(sends, "")
        wanted = {**first[remedy], "sends": sends}
        keys = ("sends", "sglang_version", "expects_graphs")
        if case in first and all(first[case][key] == wanted[key] for key in keys):
            found.append((case, remedy))
    return found


def asynchronous(launches: Sequence[Row], on: str) -> list[str]:
    """Cases with asynchronous sends of the release of case `on`, where its own are not so."""
    first = {row["case"]: row for row in reversed(launches)}
    here = first[on]
    if here["sends"].startswith("asynchronous"):
        return []
    return [
        case
        for case, row in first.items()
        if row["sends"].startswith("asynchronous")
        and row["expects_graphs"] == here["expects_graphs"]
        and row["sglang_version"] == here["sglang_version"]
    ]

"""Below the figures of a table: what the servers of a run ran, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from repro_pp_graphs.report.launch_row import Row, name, split
from repro_pp_graphs.report.number_words import number
from repro_pp_graphs.report.summary import token_ids
from repro_pp_graphs.terminal import wrapped

NOT_TRACED = "not traced"
_MOST = 14  # characters of a cell


def graphs(row: Row) -> str:
    """cudaGraphLaunch calls in the traces: `24 a rank`, or `24/23` where ranks differ."""
    counts = (row.get("graph_state") or {}).get("launches")
    if counts is None:
        return NOT_TRACED
    values = list(counts.values())
    if len(set(values)) == 1:
        return f"{values[0]} a rank"
    text = "/".join(str(value) for value in values)
    return text if len(text) < _MOST else f"{min(values)}-{max(values)}"


def eager_share(row: Row) -> str:
    """Decode lines of the server's log that ran with a graph: `118 of 118`; `-` for none."""
    state = row.get("graph_state") or {}
    total = state.get("decode_lines")
    return f"{state['with_graph']} of {total}" if total else "-"


def failed(row: Row) -> str:
    """How many requests failed; `-` for none, and where the run itself ended them."""
    if row["status"] == "interrupted" and not row.get("measured"):
        return "-"
    return number(row["metrics"].get("failed") or None)


def network(row: Row) -> str:
    """How NCCL was made to send between ranks; `-` as it chooses."""
    return "sockets" if row.get("network") else "-"


def host(row: Row) -> str:
    """`unlike` where a launch's host was not like the others'; `busy` where other work took it
    anyway; `-` where it was like them, or that cannot be told."""
    return "unlike" if row.get("host_unlike") else "busy" if row.get("host_taken") else "-"


STATE = (
    ("NCCL between ranks", network),
    ("micro-batch sizes", split),
    ("graph launches", graphs),
    ("decode lines w/ graph", eager_share),
    ("failed requests", failed),
    ("same answers as first", token_ids.text),
    ("different answers", token_ids.kinds),
    ("the host", host),
)


def of_run(summary: dict[str, Any]) -> list[tuple[str, Callable[[Row], str]]]:
    """STATE, and of a run that was resumed the session of each launch: `1 of 2`."""
    sessions = len(summary["sessions"])
    if len({row.get("session") for row in summary["launches"]} - {None}) < 2:
        return list(STATE)
    return [*STATE, ("session (--resume)", lambda row: f"{row.get('session', '-')} of {sessions}")]


def by_case(summary: dict[str, Any], launches: list[Row], cases: list[str]) -> list[str]:
    """A line a case of what its servers ran; where rounds differ in one case, each round in all."""
    found = []
    for title, text in of_run(summary):
        by_case = {
            case: [(row["round"], text(row)) for row in launches if row["case"] == case]
            for case in cases
        }
        each = any(len({said for _, said in its}) > 1 for its in by_case.values())
        for case, its in by_case.items():
            values = list(dict.fromkeys(said for _, said in its))
            if values in (["-"], [NOT_TRACED]):
                continue
            told = [value for value in values if value != "-"]  # a round without one is not named
            rounds = {value: [f"r{n}" for n, said in its if said == value] for value in told}
            one = ", ".join(f"{' '.join(at)} {value}" for value, at in rounds.items())
            alike = values[0] + " each" * (len(its) > 1 and " of " in values[0])
            found += wrapped(f"{title}, {name(summary, case)}: {one if each else alike}")
    return found

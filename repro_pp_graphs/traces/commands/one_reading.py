"""A case's merged trace and its analysis from one reading of the traces: a step of run_repro.sh."""

from __future__ import annotations

from concurrent import futures
from dataclasses import dataclass
from pathlib import Path

import msgspec

from repro_pp_graphs.files import write_json, write_whole
from repro_pp_graphs.traces.analysis_record import document
from repro_pp_graphs.traces.commands.analyze import in_words, together
from repro_pp_graphs.traces.commands.merge import KILLED
from repro_pp_graphs.traces.commands.paths import NOTHING_READ, read_cases, with_ranks
from repro_pp_graphs.traces.explain.steps import window
from repro_pp_graphs.traces.explain.timeline import timeline
from repro_pp_graphs.traces.merge.chrome_trace import merge
from repro_pp_graphs.traces.merge.pipeline_tracks import Additions, decode_start, shifts
from repro_pp_graphs.traces.merge.view import LIMIT_BYTES, WHOLE, fitting
from repro_pp_graphs.traces.path.whole_analysis import explained, studied


class CannotExplainError(ValueError):
    """Why a folder's traces could not be merged and analysed, in a sentence with what to do."""


@dataclass(frozen=True, slots=True)
class Explained:
    """How many events of how many ranks the merged trace has, and what is wrong with the traces."""

    events: int
    ranks: int
    warnings: list[str]


def explain_case(
    folder: Path, merged: Path, json: Path, text: Path, slices: Path | None = None
) -> Explained:
    """Read the ranks' traces in a folder once; write the merged trace, and the analysis as JSON and
    as text, and some decode steps as slices for the report. Each file appears whole or not at all,
    the merged one first.

    Raises FileNotFoundError where there is no such folder, CannotExplainError where no trace in it
    could be read or a process was killed, OSError where a file cannot be written.
    """
    found = read_cases([folder])
    cases = with_ranks(found)
    warnings = [text for case in found for text in case.warnings]
    if not cases:
        raise CannotExplainError("; ".join([NOTHING_READ, *warnings]))
    studies = [studied(case) for case in cases]
    try:
        begin_ns = decode_start(cases[0]) or window(cases[0])[0]
        part, left_out = fitting(cases, WHOLE, begin_ns, LIMIT_BYTES)
        warnings += [f"{merged.name}: {left_out}"] if left_out else []
        events = merge(cases, shifts(cases), Additions(studies), merged, part)
    except futures.BrokenExecutor:
        raise CannotExplainError(KILLED) from None
    analyses = [explained(study) for study in studies]
    for path in (json, text):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_json(json, document(together(analyses)))
    write_whole(text, "\n".join(map(in_words, cases, analyses)))
    first = studies[0]
    shown = timeline(first.case, first.edges, first.hosts) if slices else None
    if slices and shown:
        write_whole(slices, msgspec.json.encode(shown).decode() + "\n")
    return Explained(events, sum(len(case.ranks) for case in cases), warnings)

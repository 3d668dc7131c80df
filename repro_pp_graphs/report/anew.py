"""Traces that are read for a report: analysed, and some of their decode steps as slices."""

from __future__ import annotations

from itertools import islice, starmap
from pathlib import Path
from typing import NamedTuple

from repro_pp_graphs.traces.analysis_record import Analysis
from repro_pp_graphs.traces.commands.paths import cases_at, members_of
from repro_pp_graphs.traces.explain.slices import Timeline
from repro_pp_graphs.traces.explain.timeline import timeline
from repro_pp_graphs.traces.path.whole_analysis import explained, studied
from repro_pp_graphs.traces.rank_trace import Case
from repro_pp_graphs.traces.read.cases import read_case


class Read(NamedTuple):
    """A case's name, its analysis, and its slices (None where its ranks share no time)."""

    name: str
    analysis: Analysis
    timeline: Timeline | None


def explain(case: Case) -> Read:
    """A case's analysis and some of its decode steps."""
    study = studied(case)
    return Read(case.name, explained(study), timeline(case, study.edges, study.hosts))


def of_launch(folder: Path, label: str) -> Read | None:
    """The traces of a launch; None where there are none that can be read."""
    found = cases_at("report", [folder]) if folder.is_dir() else None
    read = [case for case in found or [] if case.ranks]
    if not read:
        return None
    read[0].name = label
    return explain(read[0])


def of_folder(folder: Path, most: int) -> tuple[list[Read], list[str]]:
    """The traces in a folder, or in the folders inside it, at most so many cases; and warnings."""
    members = members_of([folder])
    found: list[Read] = []
    warnings: list[str] = []
    for case in starmap(read_case, islice(members.items(), most)):
        if case.ranks:
            found.append(explain(case))
        else:
            warnings += case.warnings
    if len(members) > most:
        warnings.append(f"{len(members)} cases with traces: the first {most} are shown")
    return found, warnings

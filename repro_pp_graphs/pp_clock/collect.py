"""After a server has ended: its ranks' rows become facts, and are kept compressed."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from repro_pp_graphs import files, struct_files
from repro_pp_graphs.files import BadFile
from repro_pp_graphs.pp_clock import launch_facts, rows
from repro_pp_graphs.pp_clock.clock_record import ClockFacts
from repro_pp_graphs.pp_clock.kept import keep, row_files
from repro_pp_graphs.pp_clock.lines import lines
from repro_pp_graphs.pp_clock.rows import CLOCK, Rows, RowsError
from repro_pp_graphs.pp_clock.window import Window, window_of


def facts_path(logs: Path, label: str) -> Path:
    """Where a launch's facts are."""
    return logs / f"{label}{CLOCK}.json"


def _window(logs: Path, label: str) -> Window | None:
    """None where the client left no result, or a damaged one."""
    try:
        client: dict[str, Any] = files.read_object(logs / f"{label}_client.json")
        found = window_of(client)
    except (OSError, BadFile, LookupError, TypeError, AttributeError):
        return None
    return found if found and all(type(ns) is int for ns in found) else None


def _rows(paths: list[Path], faults: list[str]) -> Iterator[Rows]:
    """One rank after the other, as a long load has millions of rows; what cannot be read is added
    to `faults`."""
    for path in paths:
        try:
            found = rows.read(path)
        except (OSError, RowsError) as error:
            faults.append(f"{error}: left out" if isinstance(error, RowsError) else f"{error}")
        else:
            yield found


def read(logs: Path, label: str, not_started: Mapping[str, str]) -> ClockFacts | None:
    """The facts of a launch, from its ranks' rows; None where no rank left any.

    `not_started`: by rank why its clock did not start, as far as the server's log says.
    """
    return next(iter(_read(logs, label, not_started, [label])), None)


def _read(
    logs: Path,
    label: str,
    not_started: Mapping[str, str],
    passes: Sequence[str],
    profiles: Mapping[str, Window] | None = None,
) -> list[ClockFacts]:
    """The facts of the measured passes of a launch, each by the label of its client's result; empty
    where no rank left any rows. `profiles`: as of collect."""
    faults: list[str] = []
    found = _rows(row_files(logs, label), faults)
    first = next(found, None)
    if first is None:
        return []
    ranks = itertools.chain([first], found)
    windows = [_window(logs, each) for each in passes]
    spans = None if profiles is None else [profiles.get(each) for each in passes]
    results = launch_facts.summaries(ranks, windows, not_started, spans)
    results[0].warnings += faults
    return results


def collect(
    logs: Path,
    label: str,
    not_started: Mapping[str, str],
    others: Sequence[str] = (),
    profiles: Mapping[str, Window] | None = None,
) -> ClockFacts | None:
    """Write logs/<label>_pp_clock.json and .txt and keep the rows; None where no rank left any.
    `others`: labels of the same server's other measured passes, which get files of their own.
    `profiles`: by label when each pass was profiled (None: every profile is of each of them).

    Raises OSError where the facts cannot be written.
    """
    measured = [each for each in others if _window(logs, each)]
    results = _read(logs, label, not_started, [label, *measured], profiles)
    faults = keep(logs, label)
    for each, result in zip([label, *measured], results, strict=False):
        result.warnings += faults * (each == label)
        path = facts_path(logs, each)
        files.write_json(path, json.loads(msgspec.json.encode(result)))
        files.write_whole(path.with_suffix(".txt"), "\n".join(lines(result)) + "\n")
    return next(iter(results), None)


def load(logs: Path, label: str) -> ClockFacts | None:
    """The facts that a launch left; None for none.

    Raises BadFile where they are torn or something else.
    """
    path = facts_path(logs, label)
    return struct_files.read(path, ClockFacts) if path.exists() else None

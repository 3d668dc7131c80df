"""What a launch leaves on nodes that do not see --out, brought to the head."""

from __future__ import annotations

import time
from pathlib import Path

from repro_pp_graphs.pp_clock.rows import CLOCK
from repro_pp_graphs.run_record import Launch
from repro_pp_graphs.server.nodes import allocation, node_files
from repro_pp_graphs.server.nodes.allocation import SlurmError

EVERY_S = 5.0  # between two looks at a node


def _away(out: Path) -> tuple[allocation.Nodes | None, list[allocation.Node]]:
    """The run's nodes, and those of them that do not see --out."""
    found = allocation.load(out / "logs")
    return found, [node for node in found.nodes if not node.shares_out] if found else []


class Fetcher:
    """Brings the traces of a launch's nodes, once the ranks whose files come by themselves have
    written theirs: then those have too, or soon will."""

    def __init__(self, out: Path, launch: Launch) -> None:
        self._out = out
        self._launch = launch
        self._found, self._away = _away(out)
        self._next_s = 0.0

    def __call__(self, written: set[tuple[int, int] | None]) -> str:
        """Fetch what is missing, if it is time for it; what went wrong, or an empty text."""
        launch = self._launch
        every = {(pp, tp) for pp in range(launch.pp_size) for tp in range(launch.tp_size)}
        away = {node.number for node in self._away}
        lacking = {launch.node_of(*rank) for rank in every - written}
        if not self._found or not lacking or lacking - away or time.monotonic() < self._next_s:
            return ""
        trouble = ""
        for node in self._away:
            if node.number in lacking:
                try:
                    node_files.fetch(self._found, node, self._out, [f"trace/{launch.label}/*"])
                except SlurmError as error:
                    trouble = str(error)
        self._next_s = time.monotonic() + EVERY_S
        return trouble


def fetch_rows(out: Path, launch: Launch) -> list[str]:
    """Bring what the ranks' clocks wrote; a sentence for each node that did not send it."""
    if launch.started_nodes == 1:
        return []
    found, away = _away(out)
    faults = []
    for node in away:
        try:
            assert found
            node_files.fetch(found, node, out, [f"logs/{launch.label}{CLOCK}_PP*"])
        except SlurmError as error:
            faults.append(str(error))
    return faults


def steps_left(out: Path, launch: Launch) -> list[str]:
    """The steps of a launch's servers that have not ended, as `12.5 on node1`."""
    found = allocation.load(out / "logs") if launch.started_nodes > 1 else None
    return allocation.steps_left(found.job, launch.label) if found else []

"""The probe's result: a row a repetition, a summary a combination, and the sentences on top."""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from repro_pp_graphs.files import write_json
from repro_pp_graphs.probe import send_split, table
from repro_pp_graphs.probe.cells import Cell
from repro_pp_graphs.probe.client_result import client_result
from repro_pp_graphs.probe.interval import interval
from repro_pp_graphs.probe.journal import Journal
from repro_pp_graphs.probe.options import SETTLING_STEPS, ProbeOptions
from repro_pp_graphs.probe.ring import Ring
from repro_pp_graphs.probe.schedule import Schedule
from repro_pp_graphs.probe.truth import check_folder
from repro_pp_graphs.terminal import rewrite

# of a repetition's row: what the summary takes the mean and interval of
SUMMARISED = (
    "send_host_ms",
    "send_host_p99_ms",
    "own_ms",
    "late_peer_ms",
    "rest_ms",
    "upload_ms",
    "exchange_ms",
    "delivered_ms",
    "delivered_own_ms",
    "delivered_late_peer_ms",
    "delivered_rest_ms",
    "launch_ms",
    "device_ms",
    "step_ms",
    "tokens_per_s",
)


def environment(ring: Ring) -> dict[str, Any]:
    """What the figures were measured on and with."""
    nccl = ".".join(map(str, torch.cuda.nccl.version())) if ring.cuda else None
    return {
        "torch": torch.__version__,
        "nccl": nccl,
        "device": torch.cuda.get_device_name() if ring.cuda else "cpu",
        "cores": len(os.sched_getaffinity(0)),
        "ranks_share_gpu": ring.shared,
        "mps": ring.cuda and _mps(),
    }


def _mps() -> bool:
    """Whether CUDA's multi-process service lets processes use a GPU side by side."""
    place = os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps")
    return Path(place, "control").exists()


def row_of(
    cell: Cell, journals: list[Journal], clocks: list[int], schedule: Schedule, batch: int
) -> dict[str, Any]:
    """One repetition's figures, from all ranks' journals; keys carry their units."""
    first_turn = SETTLING_STEPS * schedule.slots
    queued = None if cell.send.asynchronous else schedule.slots - 1
    sends = send_split.token_sends(journals, clocks, first_turn, queued)
    parts = send_split.explained(sends)
    pace = send_split.pace(journals[0], schedule.slots, batch, first_turn)
    host, delivered = parts["host"], parts["delivered"]
    return {
        "graphs": "on" if cell.graphs else "off",
        "send": cell.send.name,
        "repetition": cell.repetition,
        "sends_counted": len(sends),
        "send_host_ms": host["median"],
        "send_host_p99_ms": host["p99"],
        "own_ms": host["own"],
        "late_peer_ms": host["late_peer"],
        "rest_ms": host["rest"],
        "upload_ms": statistics.fmean(send.upload_ns / 1e6 for send in sends),
        "exchange_ms": statistics.fmean(send.exchange_ns / 1e6 for send in sends),
        "delivered_ms": delivered["median"],
        "delivered_own_ms": delivered["own"],
        "delivered_late_peer_ms": delivered["late_peer"],
        "delivered_rest_ms": delivered["rest"],
        "launch_ms": send_split.launch_ms(journals[-1], first_turn)["median"],
        "device_ms": send_split.device_ms(journals[-1], first_turn)["median"],
        "step_ms": pace["step_ms"]["median"],
        "step_p99_ms": pace["step_ms"]["p99"],
        "tokens_per_s": pace["tokens_per_s"],
    }


def summarise(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line a combination: mean and 95 % half-width over its repetitions; step time against
    blocking of the same graph state, repetition by repetition."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["graphs"], row["send"]), []).append(row)
    found = []
    for (graphs, send), members in sorted(groups.items(), key=lambda item: item[0][0] == "off"):
        line: dict[str, Any] = {"graphs": graphs, "send": send, "n": len(members)}
        line |= {key: interval([row[key] for row in members]) for key in SUMMARISED}
        base = {row["repetition"]: row for row in groups.get((graphs, "blocking"), [])}
        ratios = [
            row["step_ms"] / base[row["repetition"]]["step_ms"]
            for row in members
            if row["repetition"] in base
        ]
        if ratios and send != "blocking":
            line["step_against_blocking"] = interval(ratios)
        found.append(line)
    return found


class Report:
    """Collects rows on rank 0, writes after every one, prints at the end."""

    def __init__(self, options: ProbeOptions, ring: Ring) -> None:
        self.options = options
        self.schedule = Schedule(ring.size, options.micro_batches, options.steps)
        self.rows: list[dict[str, Any]] = []
        self.truth: list[dict[str, Any]] = []
        self.environment = environment(ring)
        print("\n".join(table.heading(options, self.environment)), flush=True)

    def add(
        self, cell: Cell, journals: list[Journal], clocks: list[int], number: int, count: int
    ) -> None:
        row = row_of(cell, journals, clocks, self.schedule, self.options.batch)
        self.rows.append(row)
        self._write()
        if self.options.client_json:
            result = client_result(journals[0], self.options, self.schedule)
            _save(self.options.client_json, result)
        if sys.stdout.isatty():
            text = table.progress(row, number, count)
            rewrite(text if number < count else "")

    def add_trace(self, cell: Cell, folder: Path) -> None:
        """Hold the analyser's reading of a traced run against what the ranks noted."""
        self.truth.append({"graphs": cell.graphs, "send": cell.send.name, **check_folder(folder)})
        self._write()

    def finish(self) -> None:
        """Print the table, what it says, and where the rest lies."""
        print("\n".join(table.lines(summarise(self.rows), self.environment)))
        if self.truth:
            print("\n".join(table.truth_lines(self.truth)))
        for name, path in (("json", self.options.json), ("traces", self.options.trace)):
            if path:
                print(f"{name:<8}{path}")

    def document(self) -> dict[str, Any]:
        """The JSON: schema 1, marked probe; times in ms unless the key says otherwise."""
        options = {
            key: str(value) if isinstance(value, Path) else value
            for key, value in asdict(self.options).items()
            if key not in ("json", "client_json", "trace")
        }
        options["sends"] = [send.name for send in self.options.sends]
        return {
            "schema": 1,
            "probe": True,
            "options": options,
            "environment": self.environment,
            "checked": "token ids equal those of a single process on every rank",
            "rows": self.rows,
            "summary": summarise(self.rows),
            "truth": self.truth,
        }

    def _write(self) -> None:
        if self.options.json:
            _save(self.options.json, self.document())


def _save(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, document)

"""The machine's CPUs around a launch's passes: ranks pinned where asked for, counters read."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from repro_pp_graphs import launch_record
from repro_pp_graphs.files import BadFile
from repro_pp_graphs.launch_record import HostLoad
from repro_pp_graphs.run_record import Launch, Plan
from repro_pp_graphs.server.machine import host_load, pinning, process

BEFORE_S = 0.5  # how long the machine is looked at before the first pass


class Host:
    """The host of one launch; `server`: the pid that leads its processes, 0 for none of ours."""

    def __init__(self, server: int) -> None:
        self._server = server
        self._before: host_load.Reading | None = None
        self._begun: host_load.Reading | None = None
        self._loop_ms: float | None = None

    def pin(self, plan: Plan, launch: Launch, logs: Path) -> str:
        """Pin the ranks where the plan says so; why that cannot be, recorded, or an empty text."""
        if not plan.pin_cpus:
            return ""
        family = process.family(self._server) if self._server else set()
        ranks = host_load.ranks_of(family)
        try:
            sets = _sets(plan, launch, logs)
            if len(ranks) != len(sets):
                raise pinning.PinError(f"{len(ranks)} of {len(sets)} ranks were found")
        except pinning.PinError as error:
            why = f"--pin-cpus {plan.pin_cpus}: {error}"
            launch_record.amend(logs, launch.label, status="failed", reason=why)
            return why
        by_pid = dict(zip((ranks[name] for name in sorted(ranks, key=_place)), sets, strict=True))
        others = [*(family - set(by_pid)), os.getpid()]
        failed = pinning.apply(by_pid, others)
        launch_record.amend(logs, launch.label, warnings=failed)
        return ""

    def begin(self) -> None:
        """Before the first pass; takes BEFORE_S and the loops."""
        self._loop_ms = host_load.loop_ms()
        self._before = host_load.read(self._server)
        time.sleep(BEFORE_S)
        self._begun = host_load.read(self._server)

    def end(self, logs: Path, label: str) -> None:
        """After the last pass: what the counters say goes to the launch's record."""
        if self._before is None or self._begun is None:
            return
        last = host_load.read(self._server)
        found = HostLoad(
            before=host_load.window(self._before, self._begun),
            during=host_load.window(self._begun, last),
            ranks=host_load.ranks_between(self._begun, last),
            loop_ms=self._loop_ms,
            loop_python=f"{sys.version_info.major}.{sys.version_info.minor}",
        )
        launch_record.amend(logs, label, host=found)


def _place(name: str) -> tuple[int, int]:
    """A rank's place on the GPUs: by its PP rank, then its TP rank, whichever is named first."""
    found = {part[:2]: int(part[2:]) for part in name.split() if part[2:].isdigit()}
    return found.get("PP", 0), found.get("TP", 0)


def _sets(plan: Plan, launch: Launch, logs: Path) -> list[set[int]]:
    """The cores of each rank. Raises PinError."""
    if plan.pin_cpus != pinning.AUTO:
        return pinning.listed(plan.pin_cpus, launch.ranks)
    return pinning.automatic(_bus_ids(logs, launch.label), launch.ranks)


def _bus_ids(logs: Path, label: str) -> list[str]:
    """The PCI addresses of the GPUs, in their order; empty where they are not known."""
    try:
        found = launch_record.load(logs, label)
    except (OSError, BadFile):
        return []
    counters = found.gpu_counters if found else None
    rows = (counters.before or {}).get("gpus") if counters else None
    known = [row for row in rows or [] if row.get("pci.bus_id")]
    return [str(row["pci.bus_id"]) for row in sorted(known, key=lambda row: int(row["index"]))]

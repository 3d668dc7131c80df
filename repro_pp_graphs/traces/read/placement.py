"""How a run put its ranks on GPUs: from the record of the run in whose folder its traces lie."""

from __future__ import annotations

from pathlib import Path

import msgspec

from repro_pp_graphs import struct_files
from repro_pp_graphs.files import BadFile
from repro_pp_graphs.traces.rank_trace import Placement

GPUS_ENV = "REPRO_GPUS"  # of a launch whose ranks share: over how many GPUs (server/shims/one_gpu)


class _Launch(msgspec.Struct):
    label: str
    attached: bool = False
    env: dict[str, str] = {}
    pp_size: int = 1
    tp_size: int = 1


class _Run(msgspec.Struct):
    """What is asked of a run's record."""

    mode: str
    launches: list[_Launch]
    ranks_per_gpu: int = 0


def placement(trace: Path) -> Placement | None:
    """Of a trace in a run's trace/LABEL, or trace/LABEL_at_LOAD: what the run's logs/run.json says.

    None where there is no such record, it has no such launch, the run did not start the server
    itself, or it does not say over how many GPUs its ranks are.
    """
    folder = trace.resolve().parent
    try:
        run = struct_files.read(folder.parent.parent / "logs" / "run.json", _Run)
    except (OSError, BadFile):
        return None
    name = folder.name
    its = [
        each for each in run.launches if name == each.label or name.startswith(each.label + "_at_")
    ]
    if not its or its[0].attached or run.mode not in ("gpu", "one_gpu"):
        return None
    if run.mode == "gpu":
        return Placement(0)
    ranks = its[0].pp_size * its[0].tp_size
    known = its[0].env.get(GPUS_ENV, "")
    if known.isdecimal() and int(known):
        return Placement(int(known))
    return Placement(-(-ranks // run.ranks_per_gpu)) if run.ranks_per_gpu else None

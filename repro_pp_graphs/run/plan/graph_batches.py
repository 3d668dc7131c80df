"""The decode batches of a case: into which micro-batches the load is split, which have graphs."""

from __future__ import annotations

import json
from typing import Any

from repro_pp_graphs.run.plan import sweep
from repro_pp_graphs.run.plan.refusal import PlanError
from repro_pp_graphs.run.plan.sweep import MICRO_BATCH
from repro_pp_graphs.server.case.argfile import ServerArgs

OFF = ("--disable-cuda-graph", "--disable-decode-cuda-graph")
LISTED = ("--cuda-graph-bs", "--cuda-graph-bs-decode")  # the batch sizes that have a graph
LARGEST = ("--cuda-graph-max-bs", "--cuda-graph-max-bs-decode")


def wants_graphs(args: ServerArgs) -> bool:
    """Whether these arguments leave decode CUDA graphs on."""
    disabled = args.get("--cuda-graph-backend-decode") == "disabled"
    disabled |= _decode_config(args).get("backend") == "disabled"
    return not disabled and not any(flag in args.flags for flag in OFF)


def _decode_config(args: ServerArgs) -> dict[str, Any]:
    """The decode part of --cuda-graph-config; empty where there is none or it is no JSON."""
    try:
        found = json.loads(args.get("--cuda-graph-config", "{}"))["decode"]
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def captured_max_bs(args: ServerArgs) -> int | None:
    """The largest decode batch that has a graph; None where the arguments do not say. Raises
    PlanError where they say no numbers."""
    for flag in LISTED:
        if flag in args.flags:
            sizes = args.flags[flag]
            if not sizes or not all(size.isdigit() for size in sizes):
                raise PlanError(f"{flag} {' '.join(sizes)}: name whole numbers, as 1 2 4 8")
            return max(map(int, sizes))
    for flag in LARGEST:
        if flag in args.flags:
            return args.get_int(flag, 0)
    return None


def split_evenly(args: ServerArgs, batch: int) -> list[str]:
    """Cap micro-batches at the load's even share of those in flight, unless the files say more;
    returns notes.

    Without it a server fills them by when prompts get tokenized: 8 prompts run as 1 + 7 in one
    launch and 4 + 4 in the next. Its own cap is --max-running-requests / pp: even where that is
    below the load.
    """
    in_flight = sweep.in_flight(args)
    if args.get_int("--pp-size", 1) == 1 or MICRO_BATCH in args.flags:
        return []
    if args.get_int("--max-running-requests", batch) < batch:
        return []
    share = -(-batch // in_flight)
    args.set(MICRO_BATCH, str(share))
    notes = [f"{MICRO_BATCH} {share}: set, so that every launch splits the load alike"]
    if (used := -(-batch // share)) < in_flight:
        full = share * in_flight
        notes.append(f"--batch {batch} fills {used} of {in_flight} micro-batches, {full} all")
    return notes


def cover_batch(args: ServerArgs, batch: int) -> list[str]:
    """Make the captured graphs cover a micro-batch of `batch`; returns notes."""
    captured = captured_max_bs(args)
    if captured is None or captured >= batch:
        return []
    for flag in LARGEST:
        if flag in args.flags:
            args.set(flag, str(batch))
            return [f"{flag} raised from {captured} to {batch}, the size of the load's batch"]
    return [
        f"graphs are captured up to batch {captured}, the load may form one of {batch}: "
        "micro-batches beyond run eagerly and fail the case"
    ]

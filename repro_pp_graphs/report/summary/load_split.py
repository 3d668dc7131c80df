"""How launches split their load into micro-batches, where that was left to chance."""

from __future__ import annotations

from typing import Any

from repro_pp_graphs.report.launch_row import split
from repro_pp_graphs.run.launch.micro_batches import NOT_AS_ASKED, WHY
from repro_pp_graphs.server.release.release_facts import MICRO_BATCH

ATTACHED = "attached"  # the case of a server that was already running
MOST_SIZES = 4  # more come of prompts that arrive one by one


def remark(launches: list[dict[str, Any]]) -> list[str]:
    """A remark where launches with the same cap on micro-batches split the load differently; not of
    those that say themselves that they did not split it as asked."""
    by_cap: dict[Any, set[str]] = {}
    for launch in launches:
        if any(text.startswith(NOT_AS_ASKED) for text in launch.get("warnings", [])):
            continue
        resolved = launch.get("resolved", {})
        cap = next((resolved[name] for name in MICRO_BATCH if name in resolved), None)
        by_cap.setdefault(cap, set()).add(split(launch))
    uneven = {cap: each for cap, splits in by_cap.items() if len(each := splits - {"-"}) > 1}
    sizes = {text for splits in uneven.values() for text in splits}
    if not sizes:
        # nobody asked a server that ran already for a size
        theirs = {split(launch) for launch in launches if launch.get("case") == ATTACHED}
        return _unlike_sizes(by_cap.get(None, set()) | theirs)
    if None in uneven:
        why = (
            ", by when its prompts were tokenized: not quite the same work. "
            "--pp-max-micro-batch-size (batch / pp) in server_args_base.txt evens it."
        )
    else:
        why = f" under the same cap: not quite the same work. {WHY}."
    return [
        "The load was split into micro-batches of other sizes from launch to launch "
        f"({'; '.join(sorted(sizes))}){why}"
    ]


def _unlike_sizes(splits: set[str]) -> list[str]:
    """A remark where every launch split the load into sizes that a cap would even."""
    sizes = sorted({int(size) for text in splits for size in text.split() if size.isdigit()})
    if not 2 <= len(sizes) <= MOST_SIZES or sizes[-1] - sizes[0] < 2:
        return []
    return [
        f"The load was split into micro-batches of unlike sizes ({', '.join(map(str, sizes))}), by "
        "when its prompts were tokenized: not the work of an even split. A server started with "
        "--pp-max-micro-batch-size (batch / pp) evens it."
    ]

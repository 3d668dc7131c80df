"""What a rank's host does, as sets of time: messages, launches, and what is left: Python."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from repro_pp_graphs.traces.explain.host import Host
from repro_pp_graphs.traces.explain.words import ROWS
from repro_pp_graphs.traces.path.gpu_groups import Groups
from repro_pp_graphs.traces.time_sets import Intervals, intervals, lengths_before, merged, outside

Ints = npt.NDArray[np.int64]

# So many kernels that the host launches one by one are a batch's, and what lies between launches.
MANY = 8
LAUNCH, OPERATORS, PYTHON = "launch", "operators", "python"


def host_rows(host: Host, groups: Groups) -> dict[str, Intervals]:
    """What the host's time is made of, as disjoint sets: the rows of `explain.host.ROWS`, of whose
    `launch` only the launching of batches stays (from a group's first kernel to its last, and the
    launch of a graph); what else are operators has a row of its own. Python is what they leave."""
    rows: dict[str, Intervals] = {
        name: host.rows[name] for name in ROWS if name in host.rows and name != LAUNCH
    }
    others = merged(np.concatenate([intervals([]), *rows.values()]))
    many = ~groups.graph & (groups.items >= MANY)
    one_by_one = np.stack([groups.posted[many], groups.last[many]], axis=1)
    order = np.argsort(one_by_one[:, 0], kind="stable")
    at_once = intervals((start, end) for start, end, _ in host.rank.launches)
    launching = outside(merged(np.concatenate([one_by_one[order], at_once])), others)
    rows[LAUNCH] = launching
    rows[OPERATORS] = outside(host.rows.get("launch", intervals([])), launching)
    return rows


def saved(
    rows: Mapping[str, Intervals], factors: Mapping[str, float], moments: Ints, since_ns: int
) -> Ints:
    """What is saved from a moment until each of others, ns, where each row takes so many times as
    long as it does."""
    python = factors.get(PYTHON, 1.0)
    found = (1 - python) * (moments - since_ns).astype(np.float64)
    for name, times in rows.items():
        factor = factors.get(name, 1.0)
        if factor != python:
            found = found + (python - factor) * lengths_before(times, moments)
    whole: Ints = np.rint(found).astype(np.int64)
    return whole

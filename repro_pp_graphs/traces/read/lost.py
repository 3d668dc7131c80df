"""How much of a rank's GPU work the profiler lost, as where it ran out of buffers."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt

from repro_pp_graphs.traces.read.columns import GPU_COLUMNS, Columns

Floats = npt.NDArray[np.float64]
# Of a graph's kernels, by how many those of two batch sizes may differ.
SIZES_APART = 0.1


def lost_share(columns: Columns) -> float:
    """The share of the calls that launch kernels or copy whose GPU work is not in the trace; of
    graph launches alone, those among them of which a part is missing, where that is more.

    Of the calls between the first and the last whose work is there: at its edges a recording has
    one without the other. 0 without GPU work.
    """
    calls = np.array(columns.posted).reshape(-1, 2)
    p2p = [float(kernel.correlation) for kernel in (*columns.p2p, *columns.generic)]
    work = np.concatenate([np.array(columns.gpu).reshape(-1, GPU_COLUMNS)[:, 2], p2p])
    work.sort()
    is_there = _counts(work, calls[:, 0]) > 0
    if not is_there.any():
        return 0.0
    first, last = calls[is_there, 1].min(), calls[is_there, 1].max()
    inside = (calls[:, 1] >= first) & (calls[:, 1] <= last)
    launched = [float(each) for _, _, each in sorted(columns.launches)]
    graphs = np.isin(calls[:, 0], launched)
    is_there &= ~np.isin(calls[:, 0], _in_part(launched, work))
    among = [chosen for chosen in (inside, inside & graphs) if chosen.any()]
    return max(float(1 - is_there[chosen].mean()) for chosen in among)


def _counts(work: Floats, wanted: Floats | list[float]) -> npt.NDArray[np.int64]:
    """How often each of the wanted is among the work, which is sorted."""
    return work.searchsorted(wanted, side="right") - work.searchsorted(wanted)


def _in_part(launched: list[float], work: Floats) -> list[float]:
    """Of graph launches in order those of whose kernels a part is missing; of all but the first and
    the last that have any: in these a recording begins and ends.

    A graph has as many kernels at each launch, those of other batch sizes hardly more or fewer: a
    number that no other launch has, and none has one near it, is of a part.
    """
    kernels = dict(zip(launched, _counts(work, launched).tolist(), strict=True))
    inner = [each for each in launched if kernels[each]][1:-1]
    times = Counter(kernels[each] for each in inner)
    whole = [number for number, count in times.items() if count > 1]
    return [
        each
        for each in inner
        if whole
        and min(abs(kernels[each] - number) for number in whole) > SIZES_APART * kernels[each]
    ]

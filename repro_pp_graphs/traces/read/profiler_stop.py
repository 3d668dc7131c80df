"""The end of a recording: the batch in which sglang stopped its profiler is no batch."""

from __future__ import annotations

from repro_pp_graphs.traces.rank_trace import RUN_SPANS, Span
from repro_pp_graphs.traces.time_sets import Intervals


def without_stop(spans: list[Span], operators: Intervals) -> list[Span]:
    """`spans`, by start, without the batch in which the profiler was stopped, where there is one.

    sglang stops it as the batch after the last recorded one begins, in `run_batch`: that annotation
    lasts until the profiler has let go (9 to 420 ms in real traces of 0.5.16 and 0.5.21, beside
    batches of 2 to 22), and no operator runs in it, while some do in the batch before it.
    `operators`: those of the main thread, n x 2, ns.
    """

    def works(span: Span) -> bool:
        starts = operators[:, 0]
        return bool(((starts >= span.start_ns) & (starts <= span.end_ns)).any())

    stops = []
    for name in RUN_SPANS:
        runs = [span for span in spans if span.name == name]
        if len(runs) > 1 and works(runs[-2]) and not works(runs[-1]):
            stops.append(runs[-1])
    return [span for span in spans if not any(span is stop for stop in stops)]

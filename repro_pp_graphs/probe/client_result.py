"""A probe run in the client's JSON contract, so that the same summary reads it."""

from __future__ import annotations

from typing import Any

from repro_pp_graphs.client.metrics import distribution, itl_ms
from repro_pp_graphs.client.record import Record
from repro_pp_graphs.client.result import result_document
from repro_pp_graphs.probe.journal import Journal
from repro_pp_graphs.probe.options import ProbeOptions
from repro_pp_graphs.probe.schedule import Schedule


def client_result(journal: Journal, options: ProbeOptions, schedule: Schedule) -> dict[str, Any]:
    """Rank 0's journal as requests: one a sequence; its first token is the first step's, its start
    the launch of that step. There is no queue and no network in these times."""
    started = {batch.turn: batch.entered_ns for batch in journal.batches}
    records = []
    for slot in range(options.micro_batches):
        turns = [slot + step * schedule.slots for step in range(schedule.steps)]
        begin_ns = started[turns[0]]
        events = [[journal.arrivals[turn], step + 1] for step, turn in enumerate(turns)]
        for lane in range(options.batch):
            record = Record(begin_ns, begin_ns, begin_ns, lane)
            record.events, record.tokens, record.finish_reason = events, len(events), "length"
            records.append(record)
    begin_ns = min(record.start_ns for record in records)
    duration_s = (max(record.events[-1][0] for record in records) - begin_ns) / 1e9
    tokens = sum(record.tokens for record in records)
    summary: dict[str, Any] = {
        "backend": "probe",
        "batch": len(records),
        "max_new_tokens": schedule.steps,
        "completed": len(records),
        "failed": 0,
        "duration": duration_s,
        "total_output_tokens": tokens,
        "output_throughput": tokens / duration_s,
        "warnings": [],
        **distribution("ttft_ms", ((r.events[0][0] - r.start_ns) / 1e6 for r in records)),
        **distribution(
            "tpot_ms",
            ((r.events[-1][0] - r.events[0][0]) / 1e6 / max(1, r.tokens - 1) for r in records),
        ),
        **distribution("itl_ms", (gap for r in records for gap in itl_ms(r))),
    }
    return result_document(summary, records)

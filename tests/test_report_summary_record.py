"""summary.json's types: they fit what runs of schema 1 stored."""

from __future__ import annotations

import msgspec
import pytest

from repro_pp_graphs.launch_record import LaunchRecord
from repro_pp_graphs.report.summary import summary_record

OLD = {
    "schema": 1, "mode": "gpu", "rehearsal": False, "nsys": False, "complete": True,
    "load": {"batch": 16, "max_new_tokens": 256},
    "launches": [{"label": "A", "case": "graphs_on", "round": 1, "status": "ok"}],
}  # fmt: skip


def test_a_summary_of_schema_1_is_read():
    read = summary_record.from_json(OLD)
    assert (read.schema, read.engine, read.verdict) == (1, "sglang", None)
    assert read.launches[0].label == "A" and read.launches[0].metrics == {}


@pytest.mark.parametrize("torn", [{}, {"launches": 3}, {**OLD, "launches": [{"label": 1}]}])
def test_what_is_no_summary_is_refused(torn):
    with pytest.raises(msgspec.ValidationError):
        summary_record.from_json(torn)


def test_what_is_known_of_a_launch_is_in_a_summary_that_report_makes_anew():
    not_shown = {"server_info", "run_id", "bad_argument", "client_sha256"}
    known = set(LaunchRecord.__struct_fields__) - not_shown
    assert known <= set(summary_record.LaunchSummary.__struct_fields__)

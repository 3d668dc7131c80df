"""Whether the launches of a run answered with the same token ids."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest
import report_runs

from repro_pp_graphs import run_record
from repro_pp_graphs.client.payload import digest_of, take_event
from repro_pp_graphs.client.record import Record
from repro_pp_graphs.client.result import result_document
from repro_pp_graphs.report import launch_row
from repro_pp_graphs.report.summary import run_summary, token_ids
from repro_pp_graphs.report.tables import launch_table


def event(tokens, ids, reason="length"):
    meta = {"completion_tokens": tokens, "finish_reason": reason and {"type": reason}}
    return {"text": "x", "output_ids": ids, "meta_info": meta}


def test_the_last_event_of_a_prompt_has_the_digest_of_its_ids():
    records = [Record()]
    take_event(records, 1, event(1, [7], reason=None))
    assert records[0].output_ids_sha256 is None
    take_event(records, 2, event(3, [7, 8, 9]))
    assert records[0].output_ids_sha256 == sha256(b"7 8 9").hexdigest()
    (row,) = result_document({}, records)["requests"]
    assert row["output_ids_sha256"] == records[0].output_ids_sha256


@pytest.mark.parametrize("ids", [None, [], [8, 9], [7, 8, True], [7, 8, "9"], [7, 8, 9.0], "789"])
def test_ids_that_are_not_all_there_have_none(ids):
    assert digest_of(ids, 3) is None
    records = [Record()]
    take_event(records, 1, event(3, ids))
    assert "output_ids_sha256" not in result_document({}, records)["requests"][0]


def answered(run, label, ids):
    """As if the launch's prompts had been answered with these digests; None: it sent none."""

    def put(found):
        for each, digest in zip(found["requests"], ids, strict=True):
            if digest is not None:
                each["output_ids_sha256"] = digest

    report_runs.changed(run / "logs" / f"{label}_client.json", put)


def rows_of(run):
    logs = run / "logs"
    for path in logs.glob("*_launch.json"):  # its client JSON is what was measured
        report_runs.changed(path, lambda one: one.pop("client_sha256", None))
    found = run_summary.summarise(logs, run_record.load(logs))
    return found, {row["label"]: row for row in found["launches"]}


def prompts(run):
    text = (run / "logs" / f"{report_runs.A}_client.json").read_text(encoding="utf-8")
    return len(json.loads(text)["requests"])


def test_a_launch_with_other_ids_is_counted_and_remarked(tmp_path):
    run = report_runs.series(tmp_path / "run")
    size = prompts(run)
    same = [f"{number:064x}" for number in range(size)]
    answered(run, report_runs.A, same)
    answered(run, report_runs.B, ["f" * 64, None, *same[2:]])
    answered(run, f"{report_runs.A}_r2", same)
    found, rows = rows_of(run)
    assert rows[report_runs.A].get("same_token_ids") is None  # what the others are held against
    assert token_ids.text(rows[report_runs.B]) == f"{size - 2} of {size - 1}"
    assert token_ids.text(rows[f"{report_runs.A}_r2"]) == f"{size} of {size}"
    assert token_ids.text(rows[f"{report_runs.B}_r2"]) == "-"  # it sent none
    kinds = {label: token_ids.kinds(row) for label, row in rows.items()}
    completed = rows[report_runs.A]["metrics"]["completed"]
    assert kinds[report_runs.A] == f"{size} of {completed}"
    assert kinds[report_runs.B] == f"{size - 1} of {completed}"
    assert kinds[f"{report_runs.B}_r2"] == "-"
    text = "\n".join(launch_table.lines(found))
    assert f"{size - 2} of {size - 1}" in text
    (said,) = token_ids.remark(found["launches"])
    assert f"{report_runs.B} {size - 2} of {size - 1}" in said and f"{report_runs.A}_r2" not in said


def test_a_prompt_that_failed_is_not_counted(tmp_path):
    run = report_runs.series(tmp_path / "run")
    size = prompts(run)
    for label in (report_runs.A, report_runs.B):
        answered(run, label, ["a" * 64] * size)

    def fail(found):
        found["requests"][0].update(error="aborted: ", output_ids_sha256="b" * 64)

    report_runs.changed(run / "logs" / f"{report_runs.B}_client.json", fail)
    found, rows = rows_of(run)
    assert token_ids.text(rows[report_runs.B]) == f"{size - 1} of {size - 1}"
    assert not token_ids.remark(found["launches"])


def test_launches_that_agree_are_no_remark_and_without_ids_nothing_is_said(tmp_path):
    run = report_runs.series(tmp_path / "run")
    found, _ = rows_of(run)
    assert "token ids" not in "\n".join(launch_table.lines(found))
    for label in (report_runs.A, report_runs.B):
        answered(run, label, ["a" * 64] * prompts(run))
    found, rows = rows_of(run)
    assert rows[report_runs.B]["same_token_ids"]["first"] == report_runs.A
    assert (
        token_ids.kinds(rows[report_runs.A])
        == f"1 of {rows[report_runs.A]['metrics']['completed']}"
    )
    assert not token_ids.remark(found["launches"])


def test_where_one_case_names_its_rounds_all_do(tmp_path):
    """The first launch is held against none, so its case has the answers of its other rounds."""
    run = report_runs.series(tmp_path / "run")
    for label in (report_runs.A, report_runs.B, f"{report_runs.A}_r2", f"{report_runs.B}_r2"):
        answered(run, label, ["a" * 64] * prompts(run))
    found, _ = rows_of(run)
    text = " ".join(" ".join(launch_table.lines(found)).split())
    all_of, (one, other) = (
        f"{prompts(run)} of {prompts(run)}",
        launch_row.cases_of(found["launches"]),
    )
    assert f"same answers as first, {one}: r2 {all_of}" in text
    assert f"same answers as first, {other}: r1 r2 {all_of}" in text

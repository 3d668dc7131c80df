"""Warnings of launches: under their launch's name, those that say alike once."""

from __future__ import annotations

import json

from made_up_run import plan
from measured_runs import ABBA, launch, measured, metrics

from repro_pp_graphs.report.summary import remarks, run_summary


def test_reasons_and_warnings_name_their_launch(tmp_path):
    facts = {"status": "failed", "reason": "server died: port in use", "warnings": ["3 files"]}
    one = plan(launch("A", "on"))
    measured(tmp_path, one, [30], **facts)
    client = {"summary": metrics(30) | {"warnings": ["cached prefix"]}}
    (tmp_path / "A_client.json").write_text(json.dumps(client), encoding="utf-8")
    found = remarks.remarks(run_summary.summarise(tmp_path, one))
    assert {"A: server died: port in use", "A: 3 files", "A: cached prefix"} <= set(found)


def test_what_several_launches_say_alike_stands_once(tmp_path):
    made = plan(*(launch(*one) for one in ABBA))
    result = measured(tmp_path, made, [30] * 4, warnings=["clocks held back"])
    result["launches"][0]["warnings"].append("3 files")
    said_ = remarks.remarks(result)
    assert [each for each in said_ if "clocks" in each] == ["every launch: clocks held back"]
    assert "A: 3 files" in said_


def test_warnings_that_differ_in_numbers_alone_stand_once(tmp_path):
    made = plan(*(launch(*one) for one in ABBA))
    result = measured(tmp_path, made, [30] * 4)
    for at, each in enumerate(result["launches"]):
        each["warnings"] = [f"GPU {gpu}: held back for {at}.{gpu} s" for gpu in range(2)]
    result["launches"][0]["warnings"].append("GPU 0: held up")
    found = [text for text in remarks.remarks(result) if "held" in text]
    assert found == [
        "A: GPU 0: held back for 0.0 s (the other launches: likewise, GPU 1; 0.1 to 3.1 s)",
        "A: GPU 0: held up",
    ]
    result["launches"][1]["warnings"] = []
    (found,) = [text for text in remarks.remarks(result) if "held back" in text]
    assert "(the other launches but B: likewise, GPU 1; " in found
    result["launches"][2]["warnings"] = []
    result["launches"][1]["warnings"] = ["so 1 or 2", "so 1 or 3"]
    found = [text for text in remarks.remarks(result) if "held back" in text or "so 1" in text]
    assert found == [
        "A: GPU 0: held back for 0.0 s (A_r2: likewise, GPU 1; 0.1 to 3.1 s)",
        "B: so 1 or 2 (and 1 more like it, with other numbers)",
    ]


def test_each_number_that_differs_stands_with_what_it_is_of(tmp_path):
    made = plan(launch("A", "on"), launch("B", "off"))
    result = measured(tmp_path, made, [30] * 2)
    for at, each in enumerate(result["launches"], 1):
        each["warnings"] = [f"1.{at} times as long (1.{at}5 by medians)", f"3 prompts, {at} sent"]
        each["warnings"].append(f"backlog of {at}")
    found = [text for text in remarks.remarks(result) if "likewise" in text]
    assert found == [
        "A: 1.1 times as long (1.15 by medians) (B: likewise, 1.2 times; 1.25 by medians)",
        "A: 3 prompts, 1 sent (B: likewise, 2 sent)",
        "A: backlog of 1 (B: likewise, 2 in place of 1)",  # 2 what, is not said
    ]


def test_of_warnings_with_many_other_numbers_none_is_singled_out(tmp_path):
    made = plan(*(launch(*one) for one in ABBA))
    result = measured(tmp_path, made, [30] * 4)
    for at, each in enumerate(result["launches"]):
        each["warnings"] = [f"not settled: TTFT {at}, {at + 1}, {at + 2} ms"]
    (found,) = [text for text in remarks.remarks(result) if "settled" in text]
    assert found.endswith("TTFT 0, 1, 2 ms (the other launches: likewise, with other numbers)")

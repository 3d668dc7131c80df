"""Remarks on a run's numbers: what makes them special, few launches, loads split unevenly."""

from __future__ import annotations

from typing import Any

import pytest
from made_up_run import plan
from measured_runs import launch, measured, told

from repro_pp_graphs.report.summary import load_split, remarks
from repro_pp_graphs.run.launch.micro_batches import NOT_AS_ASKED
from repro_pp_graphs.run_record import Plan


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"mode": "cpu"}, "REHEARSAL"),
        ({"mode": "one_gpu"}, "time slices"),
        ({"nsys": True}, "nsys"),
    ],
)
def test_what_makes_the_numbers_special_is_told_then_and_only_then(tmp_path, changes, says):
    one = launch("A", "on")
    assert says in told(tmp_path / "special", plan(one, **changes))
    assert says not in told(tmp_path / "plain", plan(one))


def test_few_launches_are_told_and_enough_are_not(tmp_path):
    def rounds(count: int) -> Plan:
        return plan(
            *(
                launch(f"{case}_r{n}", case, n)
                for n in range(1, count + 1)
                for case in ("on", "off")
            )
        )

    assert "2 launches a case" in told(tmp_path / "few", rounds(2))
    assert "1 launch a case: too few" in told(tmp_path / "one", rounds(1))
    assert "too few" not in told(tmp_path / "enough", rounds(4))
    alone = plan(launch("A", "on", 1))  # nothing to compare it with
    assert "too few" not in told(tmp_path / "alone", alone)


@pytest.mark.parametrize("name", ["pp_max_micro_batch_size", "max_micro_batch_size"])
@pytest.mark.parametrize(
    ("launches", "told_of"),
    [
        ([(4, {"4": 24}), (4, {"4": 24})], ""),
        ([(16, {"1": 12, "7": 12}), (16, {"3": 12, "5": 12})], "(1 7; 3 5)"),
        ([(16, {"1": 12, "7": 12}), (16, {})], ""),
        ([(4, {"4": 24}), (3, {"2": 8, "3": 16})], ""),  # each as its own cap has it
        ([(None, {"4": 24}), (None, {"3": 12, "5": 12})], "(3 5; 4)"),
        ([(None, {"1": 12, "3": 12})], "unlike sizes (1, 3)"),
        ([(None, {"3": 12, "4": 12})], ""),  # seven prompts cannot be split otherwise
        ([(3, {"1": 12, "3": 12})], ""),
    ],
)
def test_loads_that_were_split_by_chance_are_told(launches, told_of, name):
    made = [
        {"resolved": {name: cap} if cap else {}, "decode_batches": sizes} for cap, sizes in launches
    ]
    assert [told_of in text for text in load_split.remark(made)] == [True] * bool(told_of)


def test_a_server_that_ran_already_may_have_a_cap_and_split_a_small_load_by_chance():
    one = {"case": load_split.ATTACHED, "decode_batches": {"1": 12, "3": 12}}
    one["resolved"] = {"pp_max_micro_batch_size": 4}
    (text,) = load_split.remark([one])
    assert "unlike sizes (1, 3)" in text


def test_launches_with_one_cap_are_not_told_to_set_it():
    made: list[dict[str, Any]] = [
        {"resolved": {"pp_max_micro_batch_size": 4}, "decode_batches": sizes}
        for sizes in ({"4": 24}, {"3": 12, "4": 12})
    ]
    (text,) = load_split.remark(made)
    assert "--pp-max-micro-batch-size" not in text and "--chunked-prefill-size" in text
    made[1]["warnings"] = [f"{NOT_AS_ASKED}: 3 requests in 12 decode turns"]  # it says so itself
    assert load_split.remark(made) == []


def test_a_launch_of_another_load_is_told_of_before_all_that_is_less(tmp_path):
    result = measured(tmp_path / "logs", plan(launch("A", "on"), launch("B", "off")), [30, 20])
    said = f"{NOT_AS_ASKED}: 3 requests in 12 decode turns"
    result["launches"][1]["warnings"] = ["GPU 0: something small", said]
    assert remarks.remarks(result)[0] == f"B: {said}"
    rehearsed = remarks.remarks({**result, "rehearsal": True})
    assert rehearsed[0].startswith("REHEARSAL") and rehearsed[1] == f"B: {said}"


def test_what_the_client_said_under_other_loads_of_a_sweep_is_told_once():
    def swept(label: str, *passes: tuple[str, float, list[str]]) -> dict[str, Any]:
        loads = [
            {"load": name, "status": "ok", "metrics": {"tpot": ms}, "client_warnings": texts}
            for name, ms, texts in passes
        ]
        return {"label": label, "metrics": {"tpot": 1.0}, "loads": loads}

    first = swept("A", ("b4", 1.0, ["its own remark"]), ("b64", 2.0, ["not settled: 3 ms", "cut"]))
    second = swept("B", ("b4", 1.0, []), ("b64", 2.5, ["not settled: 4 ms"]))
    second["loads"].append({"load": "b128", "status": "failed"})
    assert remarks.of_other_loads([first, second]) == [
        "2 of 2 passes under other loads, one of them A under b64: not settled: 3 ms",
        "1 of 2 passes under other loads, one of them A under b64: cut",
    ]
    assert remarks.of_other_loads([{"label": "A", "metrics": {}}]) == []

"""What a run says it is about to do."""

from __future__ import annotations

from repro_pp_graphs.run import overview
from repro_pp_graphs.run_record import Launch, Plan


def plan(**notes: list[str]) -> Plan:
    launches = [
        Launch(
            label=case, case=case, round=1, python="p", sglang_version="0.5.21", args=[], argv=[],
            env={}, port=1, model="m", pp_size=2, tp_size=1, nodes=1, expects_graphs=None,
            captured_max_bs=None, notes=its,
        )
        for case, its in notes.items()
    ]  # fmt: skip
    return Plan(
        mode="cpu", batch=8, max_new_tokens=48, profile=True, profile_steps=24, with_stack=False,
        nsys=False, gpu_used_mib={}, launches=launches,
    )  # fmt: skip


def test_a_note_says_which_cases_it_is_of_where_not_of_all():
    even, uneven = "micro-batches of 4", "micro-batches of 3"
    assert overview.notes(plan(a=[even], b=[even])) == [even]
    assert overview.notes(plan(a=[even], b=[even], depth=[uneven])) == [
        f"a, b: {even}",
        f"depth: {uneven}",
    ]

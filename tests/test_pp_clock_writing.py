"""When the clock writes what it has noted; of turns without work it writes their number."""

from __future__ import annotations

from typing import Any

from pp_clock_fakes import Batch, go, kinds, made

from repro_pp_graphs.pp_clock import rows
from repro_pp_graphs.pp_clock.rows import CODES
from repro_pp_graphs.server.shims.pp_clock.clock import MOST_NOTED

__all__ = ["made"]  # a fixture


def test_what_was_noted_is_written_as_soon_as_the_next_batch_is_launched(made):
    kind, torch, path = made
    scheduler = kind(torch)
    seen: list[list[int]] = []

    def process(batch: Batch, result: Any) -> None:  # of a turn whose batch has been launched
        found = kinds(rows.read(path))
        seen.append([found.get(name, 0) for name in ("turn", "launch", "process")])

    scheduler.process_batch_result = process
    go(made, *[Batch(True, 1)] * 3, scheduler=scheduler)
    assert seen == [[0, 1, 0], [1, 2, 1], [2, 3, 2]]


def test_a_clock_that_sees_no_launch_and_no_turn_writes_all_the_same(made):
    kind, torch, path = made
    scheduler = kind(torch)
    go(made, scheduler=scheduler)
    for _ in range(MOST_NOTED + 1):
        scheduler.pp_group.send_tensor_dict({"next_token_ids": 1})
    assert kinds(rows.read(path))["send_tokens"] == MOST_NOTED + 1


def test_turns_without_work_leave_no_rows_but_are_counted(made):
    _, found = go(made, Batch(True, 1), *[None] * 500, Batch(True, 1))
    turns = [row for row in found.rows if row.kind == CODES["turn"]]
    assert [(row.turn, row.value) for row in turns] == [(0, 0), (501, 500)]

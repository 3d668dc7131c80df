"""The micro-batches that decoded, held against those that were asked for."""

from __future__ import annotations

import made_up_run
import pytest

from repro_pp_graphs.pp_clock.clock_record import ClockFacts, Rank
from repro_pp_graphs.run.launch import micro_batches
from repro_pp_graphs.run_record import Launch, Load, Plan


def clock(loop_size: int = 2, **sizes: int) -> ClockFacts:
    """Facts whose first rank ran `n8=30`: 30 decode turns of 8 requests."""
    batches = {name.removeprefix("n"): count for name, count in sizes.items()}
    first = Rank(
        **{"pp_rank": 0, "tp_rank": 0, "rows": 9, "lost": 0, "torn": 0, "measured": {}},
        profiled={},
        decode_batches=batches,
    )
    return ClockFacts(pp_size=2, loop_size=loop_size, ranks={"PP0": first})


def swept(asked: int | None, args: list[str], **load: object) -> tuple[Plan, Launch]:
    """A launch under two loads, both of 16 requests."""
    launch = made_up_run.launch(loads={"main": asked, "other": asked}, args=args)
    loads = [Load(name, f"the {name} load", {}, 16, 32, **load) for name in launch.loads]
    return made_up_run.plan(launch, loads=loads), launch


@pytest.mark.parametrize("label", ["A", "A_at_other"])
def test_a_larger_one_than_was_asked_for_is_told_of_each_load(label: str):
    """As sglang 0.5.2 ran 16 prompts as 15 + 1, with a size for 64 that was not set anew."""
    plan, launch = swept(8, [])
    (text,) = micro_batches.remark(plan, launch, {label: clock(n1=31, n15=30)})
    load = "main" if label == "A" else "other"
    counted = "31 decode turns with 1 request each, 30 decode turns with 15 requests each"
    assert f': under "the {load} load" {counted}, in place of at most 8. What' in text


def test_of_several_loads_each_is_named():
    plan, launch = swept(8, [])
    wrong = clock(n1=31, n15=30)
    (text,) = micro_batches.remark(plan, launch, {"A": wrong, "A_at_other": wrong})
    assert 'under "the main load" 31' in text and '; under "the other load" 31' in text


@pytest.mark.parametrize(
    ("asked", "sizes", "fits"),
    [
        (8, {"n8": 60}, True),
        (8, {"n3": 2, "n8": 60}, True),  # until all had come
        (8, {"n5": 30, "n6": 30}, False),  # all 16 were never in flight
        (12, {"n4": 30, "n12": 30}, True),
        (12, {"n8": 60}, True),
        (12, {"n3": 30, "n13": 30}, False),
        (4, {"n4": 60}, True),  # they do not hold the batch: prompts wait
        (8, {}, True),  # nothing is known
    ],
)
def test_sizes_that_can_come_of_the_batch_are_no_warning(asked, sizes, fits):
    plan, launch = swept(asked, [])
    assert micro_batches.remark(plan, launch, {"A": clock(**sizes)}) == [] or not fits
    assert fits or len(micro_batches.remark(plan, launch, {"A": clock(**sizes)})) == 1


@pytest.mark.parametrize("how", [{"rate": 2.0}, {"beside_len": 4000, "beside_rate": 2.0}])
def test_where_prompts_arrive_one_by_one_only_a_larger_one_is(how: dict[str, float]):
    plan, launch = swept(8, [], **how)
    assert micro_batches.remark(plan, launch, {"A": clock(n1=9, n3=9)}) == []
    assert len(micro_batches.remark(plan, launch, {"A": clock(n9=9)})) == 1


@pytest.mark.parametrize("name", ["--max-micro-batch-size", "--pp-max-micro-batch-size"])
def test_without_a_sweep_it_is_the_size_of_the_arguments(name: str):
    launch = made_up_run.launch(args=[name, "8"])
    plan = made_up_run.plan(launch)
    assert micro_batches.remark(plan, launch, {"A": clock(n8=60)}) == []
    (text,) = micro_batches.remark(plan, launch, {"A": clock(n1=30, n15=30)})
    assert (
        ": 30 decode turns with 1 request each, 30 decode turns with 15 requests each, in pl"
        in text
    )
    launch.args = []
    assert micro_batches.remark(plan, launch, {"A": clock(n1=30, n15=30)}) == []

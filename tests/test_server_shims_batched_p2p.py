"""The shim batched_p2p: one exchange a turn, all ranks in step."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from pp_ring import PATTERNS, Group, Hung, Scheduler, ring, turns

from repro_pp_graphs.server.shims import batched_p2p

__all__ = ["ring"]  # a fixture


@pytest.fixture
def batched(monkeypatch):
    """Group's methods are those of an exchange where it has one; undone afterwards."""
    monkeypatch.setattr(Group, "recv_tensor_dict", Group.recv_tensor_dict)
    monkeypatch.setattr(Group, "exchange_tensor_dicts", None, raising=False)
    batched_p2p.patch_group(SimpleNamespace(GroupCoordinator=Group))  # type: ignore[arg-type]

    def prepare(scheduler: Scheduler) -> None:
        batched_p2p.exchange_in_batches(scheduler)
        group = scheduler.pp_group
        # a server never ends its loop; here rank r has to end as many exchanges later
        more = group.world_size - 1 - group.rank_in_group
        exchange = getattr(group, batched_p2p._EXCHANGE_OF)
        scheduler.drain = lambda: [exchange.run([]) for _ in range(more)]

    return prepare


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("even_first", [False, True])
@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_a_ring_of_batches_computes_the_same_and_does_not_hang(
    ring, batched, size, even_first, pattern
):
    busy = turns(size, 0, pattern)
    normal = ring(size, busy, lambda scheduler: None, even_first=even_first)
    found = ring(size, busy, batched, even_first=even_first)
    assert found == normal and len(found[0]) == sum(busy)


def test_without_the_first_exchanges_of_later_ranks_the_ring_would_fail(ring, batched, monkeypatch):
    # what the test above can see: rank r is in turn T - r while rank 0 is in turn T
    monkeypatch.setattr(batched_p2p.Turns, "begin", lambda self: None)
    with pytest.raises((Hung, RuntimeError, KeyError, AssertionError)):
        ring(2, turns(2, 0, "#" * 6), batched, limit_s=0.5)


def test_token_ids_and_hidden_states_of_a_turn_go_in_one_exchange(ring, batched, monkeypatch):
    sizes: list[int] = []
    run = batched_p2p.Exchange.run

    def count(self: Any, sent: list[dict]) -> None:
        sizes.append(len(sent))
        run(self, sent)

    monkeypatch.setattr(batched_p2p.Exchange, "run", count)
    busy = turns(2, 0, "#" * 10)
    ring(2, busy, batched)
    # rank 0 passes on and sends in all but the first turns and the last ones; rank 1 has tokens
    # alone, and one exchange more than turns
    assert sizes.count(2) == sum(busy) - 2
    assert len(sizes) == 2 * (len(busy) + 1)


@pytest.mark.parametrize("arguments", [{"depth": 1}, {"tp_size": 2}])
def test_what_batches_do_not_go_with_ends_the_rank(ring, batched, arguments):
    def prepare(scheduler: Scheduler) -> None:
        scheduler.server_args.tp_size = arguments.get("tp_size", 1)
        batched(scheduler)

    depth = arguments.get("depth", 0)
    with pytest.raises(RuntimeError, match="for --pp-async-batch-depth 0 and --tp-size 1 alone"):
        ring(2, turns(2, depth, "##"), prepare, depth=depth, limit_s=0.5)

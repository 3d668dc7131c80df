"""What a simulated ring is: its ranks, what everything takes there, and how its times vary."""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """A ring: times in us, means that vary by `jitter` (a share) from turn to turn.

    `turns` are recorded, `warm_up` turns run before: a profiler is started in a ring that runs, and
    by then the ring has settled. `depth` is --pp-async-batch-depth: so many slots more than ranks.
    The factors are what a what-if changes: `free_messages` as `send=0`,
    `free_token_send` as `token_send`.
    """

    seed: int = 0
    ranks: int = 2
    micro_batches: int = 2
    turns: int = 40
    warm_up: int = 4
    depth: int = 0
    blocking: bool = True
    graphs: bool = True
    compute_us: tuple[float, ...] = (3000.0, 3000.0)
    kernels: int = 12
    launch_us: float = 100.0  # the host's time between two kernels, or of a graph's launch
    graph_starts_us: float = 6.0  # after the call that launches it, where nothing keeps it
    host_us: float = 300.0  # what the host does in a turn outside of messages and launches
    message_us: float = 60.0  # the host's own time in a message
    transfer_us: float = 40.0
    jitter: float = 0.1
    ahead_us: tuple[float, ...] = ()
    compute: float = 1.0
    launch: float = 1.0
    transfer: float = 1.0
    host: float = 1.0
    free_messages: bool = False
    free_token_send: bool = False


def chance_of(key: str, after: int = 0) -> float:
    """A number from -1 to 1 by a key: no state, and cheaper than a generator for each. `after`: the
    CRC-32 of the key's first part, where that is known."""
    return zlib.crc32(key.encode(), after) / 2**31 - 1


def random_plan(seed: int, clocks: bool = False, deep: bool = False) -> Plan:
    """A ring of the kinds that there are, by a seed; `deep`: with --pp-async-batch-depth, and up to
    twice as many micro-batches as ranks."""
    chance = random.Random(seed)
    ranks = chance.randint(2, 8)
    depth = chance.randint(1, ranks) if deep else 0
    micro_batches = chance.randint(1, ranks + depth)

    def times(low: float, high: float) -> tuple[float, ...]:
        return tuple(chance.uniform(low, high) for _ in range(ranks))

    return Plan(
        seed=seed,
        ranks=ranks,
        micro_batches=micro_batches,
        turns=max(16, 60 // micro_batches),
        depth=depth,
        blocking=chance.random() < 0.5 and not deep,
        graphs=chance.random() < 0.5,
        compute_us=times(800, 4000),
        launch_us=chance.uniform(20, 250),
        host_us=chance.uniform(100, 600),
        message_us=chance.uniform(20, 100),
        transfer_us=chance.uniform(10, 200),
        jitter=chance.uniform(0, 0.2),
        ahead_us=times(-200, 200) if clocks else (),
        graph_starts_us=chance.uniform(0, 13),
    )

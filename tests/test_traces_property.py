"""A ring with known pairs, cut, shifted and thinned out: what pairing recovers, and never wrongly.

The ring is simulated: stages with their own speed and jitter, micro-batches that must come back
before they run again, hidden states that wait for their recv, tokens that are buffered. Each rank's
record then begins and ends at its own time, loses single events, and has its clock set wrong.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import pytest

pytest.importorskip("msgspec")
pytest.importorskip("hypothesis")

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from repro_pp_graphs.traces.pair.edges import edges_of
from repro_pp_graphs.traces.rank_trace import Case, P2POp, RankTrace

pytestmark = pytest.mark.slow

WIRE_NS = 15_000
NONE, NO_SKEW = st.just(0), st.just(0.0)


@dataclass(frozen=True)
class Plan:
    """One ring and what befalls its records. Times in us."""

    pp_size: int
    batch_sizes: tuple[int, ...]
    stage_us: tuple[int, ...]
    jitter: float
    steps: int
    cut_steps: tuple[float, ...]
    drops: int
    clock_us: tuple[float, ...]
    seed: int


@st.composite
def plans(draw, drops=NONE, clock=NO_SKEW):
    pp_size = draw(st.integers(2, 5))
    batches = draw(st.integers(1, pp_size))
    stage = draw(st.integers(300, 5000))
    return Plan(
        pp_size=pp_size,
        batch_sizes=tuple(
            draw(st.lists(st.sampled_from([1, 4, 4, 8]), min_size=batches, max_size=batches))
        ),
        stage_us=tuple(int(stage * draw(st.floats(0.8, 1.25))) for _ in range(pp_size)),
        jitter=draw(st.floats(0.01, 0.2)),
        steps=draw(st.integers(20, 120)),
        cut_steps=tuple(draw(st.floats(0, 6)) for _ in range(2 * pp_size)),
        drops=draw(drops),
        clock_us=tuple(draw(clock) for _ in range(pp_size)),
        seed=draw(st.integers(0, 2**32 - 1)),
    )


@dataclass
class Edge:
    """What really went over one edge: recv i took send i."""

    sends: list[P2POp] = field(default_factory=list)
    recvs: list[P2POp] = field(default_factory=list)

    def carry(self, elements: int, sent: tuple[int, int], received: tuple[int, int]) -> None:
        self.sends.append(P2POp("send", 1, elements, "Long", *sent, "nccl", sent[0]))
        self.recvs.append(P2POp("recv", 0, elements, "Long", *received, "nccl", received[0]))


def simulate(plan: Plan) -> list[Edge]:
    """Edges r -> r+1, the last one back to rank 0; micro-batch n needs its token of step n - m."""
    random = np.random.default_rng(plan.seed)
    size, in_flight = plan.pp_size, len(plan.batch_sizes)
    edges = [Edge() for _ in range(size)]
    free = [0] * size
    tokens: list[tuple[int, int]] = []
    for n in range(plan.steps):
        batch = plan.batch_sizes[n % in_flight]
        if n >= in_flight:
            sent = tokens[n - in_flight]
            begin = free[0]
            end = max(begin, sent[0]) + WIRE_NS
            edges[-1].carry(plan.batch_sizes[n % in_flight], sent, (begin, end))
            free[0] = end
        for stage in range(size):
            cost = plan.stage_us[stage] * 1000 * (1 + plan.jitter * random.standard_normal())
            done = free[stage] + max(int(cost), 50_000)
            if stage == size - 1:
                tokens.append((done, done + WIRE_NS))
                free[stage] = done + WIRE_NS
                continue
            posted = free[stage + 1]
            end = max(done, posted) + WIRE_NS
            edges[stage].carry(batch * 8192, (done, end), (posted, end))
            free[stage], free[stage + 1] = end, end
    return edges


def record(plan: Plan, edges: list[Edge]) -> list[tuple[list[tuple[int, P2POp]], ...]]:
    """What the ranks' files hold of each edge: (true index, operation), sends and recvs.

    Missing events lie at least eight steps apart and three from the records' ends: two next to each
    other, one a side, or one at the very end cannot be told from a turn that stalled.
    """
    random = np.random.default_rng(plan.seed + 1)
    whole = max(op.end_ns for edge in edges for op in edge.recvs)
    found = []
    for at, edge in enumerate(edges):
        sides = [
            _window(plan, ops, rank, whole)
            for rank, ops in ((at, edge.sends), ((at + 1) % plan.pp_size, edge.recvs))
        ]
        first = max(min(side, default=0) for side in sides) + 3
        last = min(max(side, default=0) for side in sides) - 3
        slots = random.permutation(np.arange(first, max(first, last), 8))[: plan.drops]
        for slot in slots.tolist():
            sides[int(random.integers(2))].pop(slot, None)
        found.append(tuple(list(side.items()) for side in sides))
    return found


def _window(plan: Plan, ops: list[P2POp], rank: int, whole_ns: int) -> dict[int, P2POp]:
    """A rank's operations between where its record begins and ends, on the rank's clock."""
    step = whole_ns / plan.steps
    begin = plan.cut_steps[2 * rank] * step
    end = whole_ns - plan.cut_steps[2 * rank + 1] * step
    skew = int(plan.clock_us[rank] * 1000)
    return {
        index: P2POp(
            op.kind,
            op.peer,
            op.elements,
            op.dtype,
            op.start_ns + skew,
            op.end_ns + skew,
            "nccl",
            op.posted_ns,
        )
        for index, op in enumerate(ops)
        if op.start_ns >= begin and op.end_ns <= end
    }


def smallest_lag_holds(edge: Edge) -> bool:
    """Whether a message is taken before the next of its shape is sent: what the rule rests on."""
    last: dict[int | None, int] = {}
    for send, recv in zip(edge.sends, edge.recvs, strict=True):
        if last.get(send.elements, 0) > send.start_ns:
            return False
        last[send.elements] = recv.end_ns
    return True


def ends_together(edge: Edge) -> float:
    """The share of messages of which one side waited for the other."""
    ends = [s.end_ns == r.end_ns for s, r in zip(edge.sends, edge.recvs, strict=True)]
    return sum(ends) / max(1, len(ends))


def case_of(records: list[tuple[list[tuple[int, P2POp]], ...]], hosts: list[str]) -> Case:
    """The ranks' traces: rank r sends on edge r and receives on the one before."""
    ranks = []
    for rank, (sends, _) in enumerate(records):
        _, recvs = records[rank - 1]
        for _, op in sends:
            op.peer = (rank + 1) % len(records)
        for _, op in recvs:
            op.peer = (rank - 1) % len(records)
        ops = sorted((op for _, op in (*sends, *recvs)), key=lambda op: op.start_ns)
        ranks.append(RankTrace(f"rank{rank}", rank, 0, rank, hosts[rank], p2p=ops))
    return Case("made up", ranks, len(ranks), 1)


@dataclass
class Tally:
    """Pairs that could be found, were found, were found wrongly; over all examples of a test.

    `hosts`: the ranks' files name none, one, or one each.
    """

    hosts: str = "unnamed"
    together: float = 0.0
    possible: int = 0
    right: int = 0
    wrong: int = 0
    wrong_in: list[Plan] = field(default_factory=list)

    def run(self, plan: Plan) -> None:
        """Pair a ring; edges on which the rule does not hold are not counted."""
        true_edges = simulate(plan)
        records = record(plan, true_edges)
        names = {"unnamed": "", "one": "node", "each": "node{}"}
        hosts = [names[self.hosts].format(rank) for rank in range(plan.pp_size)]
        found = {edge.src_rank: edge for edge in edges_of(case_of(records, hosts))}
        for src, (edge, (sends, recvs)) in enumerate(zip(true_edges, records, strict=True)):
            if not smallest_lag_holds(edge) or ends_together(edge) < self.together:
                continue
            index = {id(op): at for at, op in (*sends, *recvs)}
            self.possible += len({at for at, _ in sends} & {at for at, _ in recvs})
            for send, recv in found[src].paired() if src in found else []:
                if index[id(send)] == index[id(recv)]:
                    self.right += 1
                else:
                    self.wrong += 1
                    self.wrong_in.append(plan)

    @property
    def share(self) -> float:
        return self.right / max(1, self.possible)


def check(tally: Tally, least: float, record_property) -> None:
    for name in ("possible", "right", "wrong", "share"):
        record_property(name, getattr(tally, name))
    print(
        f"\nrecovered {tally.right} of {tally.possible} pairs ({100 * tally.share:.2f}%), "
        f"{tally.wrong} wrong"
    )
    assert tally.possible > 1000
    assert tally.wrong == 0, f"such as {tally.wrong_in[-1]}"
    assert tally.share >= least


# Many: PAIRING_EXAMPLES=3000 pytest --hypothesis-seed=1 tests/test_traces_property.py
MANY = os.environ.get("PAIRING_EXAMPLES")
FEW = settings(
    max_examples=int(MANY or 80),
    deadline=None,
    derandomize=not MANY,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("hosts", ["unnamed", "one"])
def test_cut_and_shifted_records_are_paired_and_never_wrongly(hosts, record_property):
    tally = Tally(hosts)
    FEW(given(plans())(tally.run))()
    check(tally, 0.999, record_property)


@pytest.mark.parametrize("hosts", ["unnamed", "one"])
def test_clocks_off_by_less_than_a_transfer_change_little(hosts, record_property):
    tally = Tally(hosts)
    FEW(given(plans(clock=st.floats(-12, 12)))(tally.run))()
    # hypothesis draws other rings where other modules are loaded, and one ring that is left
    # unpaired is up to 2 % of 80: by seeds 97.9 to 100 %
    check(tally, 0.95, record_property)


@pytest.mark.parametrize("hosts", ["unnamed", "each"])
def test_clocks_far_apart_are_told_by_lags_where_steps_vary(hosts, record_property):
    tally = Tally(hosts, together=0.5)
    steps_vary = plans(clock=st.floats(-500, 500)).filter(
        lambda plan: min(plan.stage_us) > 1200 and min(plan.stage_us) * plan.jitter > 100
    )
    FEW(given(steps_vary)(tally.run))()
    check(tally, 0.97, record_property)


@pytest.mark.parametrize("hosts", ["unnamed", "each"])
def test_clocks_far_apart_leave_unpaired_what_they_make_ambiguous(hosts, record_property):
    tally = Tally(hosts)
    FEW(given(plans(drops=st.integers(0, 1), clock=st.floats(-500, 500)))(tally.run))()
    check(tally, 0.8, record_property)


@pytest.mark.parametrize("hosts", ["unnamed", "one"])
def test_records_with_missing_events_are_never_paired_wrongly(hosts, record_property):
    tally = Tally(hosts)
    FEW(given(plans(drops=st.integers(1, 3)))(tally.run))()
    check(tally, 0.85, record_property)

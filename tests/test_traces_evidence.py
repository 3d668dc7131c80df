"""Evidence taken out of real traces: what is still said is what the whole ones say, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import msgspec
import pytest
from kept_traces import Rank, case_of, ranks_of
from trace_changes import DATA, explained_of, only_case, texts

from repro_pp_graphs.traces.analysis_record import Analysis
from repro_pp_graphs.traces.explain.analysis_lines import lines
from repro_pp_graphs.traces.explain.token_return_words import sends_held
from repro_pp_graphs.traces.explain.words import clock_doubt_us
from repro_pp_graphs.traces.path.whole_analysis import explained

pytestmark = pytest.mark.slow

CASES = ("sglang052_graphs_on", "sglang0516_graphs_on", "sglang052_pp4", "sglang056_graphs_on")
ON_GPU = ("kernel", "gpu_memcpy", "gpu_memset")
Change = Callable[[list[Rank]], None]


def analysed(folder: Path) -> Analysis:
    return explained(only_case(folder))


def changed(name: str, change: Change) -> Analysis:
    """The analysis of a real case, ranks' headers changed and events taken out in place."""
    ranks = ranks_of(name)
    change(list(ranks.values()))
    return explained(case_of(name, ranks))


def claims(facts: Analysis) -> dict[str, float]:
    """What an analysis says for certain, ms or shares, by what it is about."""
    found: dict[str, float | None] = {}
    if held := sends_held(facts):
        host, split = held
        found |= {"send": host.send.mean, "send idle": host.idle.mean}
        found["send graph"] = split.blocked_on_own_graph.mean
    if facts.token_return and facts.token_return.delivery_known:
        received = facts.token_return.until_received_us
        found["received"] = received.mean if received else None
    for label, turn in facts.turns.items():
        found |= {f"turn {label}": turn.mean, f"idle in turn {label}": turn.gpu_idle}
        for name, row in turn.rows.items():
            for cause in ("peer_late", "transfer") if not doubt_us(facts) else ():
                found[f"{label} {name} {cause}"] = row.waits.get(cause)
    for label, rank in facts.ranks.items():
        share = rank.idle_fraction
        found[f"idle share {label}"] = None if share is None else share * 1e4
    for edge in (*facts.p2p, *facts.p2p_gloo) if not doubt_us(facts) else ():
        if edge.send_wait_us and edge.pairs > 0.8 * min(edge.sends, edge.recvs):
            found[f"wait {edge.backend} {edge.src} {edge.dst}"] = edge.send_wait_us.mean
    if facts.decode_step:
        found["step"] = facts.decode_step.mean
    return {name: us / 1000 for name, us in found.items() if us is not None}


@cache
def truth_of(name: str) -> dict[str, float]:
    """What is said of a whole case."""
    return claims(explained_of(name))


def doubt_us(facts: Analysis) -> float:
    """By how much the ranks' clocks are said to differ at the most."""
    return clock_doubt_us(facts.clocks, facts.hosts)


def agree_ms(facts: Analysis) -> float:
    """To what the clocks are said to agree: as good are times between ranks."""
    ends = [end for row in facts.clocks for end in (row.low_us, row.high_us)]
    return max((abs(end) for end in ends if end is not None), default=0) / 1000


def work_ns(rank: Rank) -> tuple[float, float]:
    times = [float(e["ts"]) for e in rank["traceEvents"] if e.get("cat") == "kernel"]
    return min(times), max(times)


def without(rank: Rank, gone: Callable[[Rank], bool]) -> None:
    rank["traceEvents"] = [event for event in rank["traceEvents"] if not gone(event)]


def lost(rank: Rank, begin: float, end: float, cats: tuple[str, ...] = ON_GPU) -> None:
    """A stretch of its GPU work is not there, as where the profiler ran out of buffers."""
    first, last = work_ns(rank)
    low, high = first + begin * (last - first), first + end * (last - first)
    without(rank, lambda e: e.get("cat") in cats and low <= float(e["ts"]) <= high)


def clock(rank: Rank, ahead_ms: float) -> None:
    rank["baseTimeNanoseconds"] = int(rank["baseTimeNanoseconds"]) + round(ahead_ms * 1e6)


def cpu_only(rank: Rank) -> None:
    gone = (*ON_GPU, "gpu_user_annotation", "cuda_runtime", "cuda_driver")
    without(rank, lambda e: e.get("cat") in gone)


def graph_in_part(rank: Rank, launches: int = 3) -> None:
    """Of some of its graph launches in the middle the later half of the kernels is not there."""
    events = rank["traceEvents"]
    found = [e for e in events if e["name"] == "cudaGraphLaunch"]
    found.sort(key=lambda e: float(e["ts"]))
    middle = len(found) // 2
    gone: set[int] = set()
    for at, launch in enumerate(found[middle : middle + launches]):
        own = launch["args"]["correlation"]
        its = [e for e in events if e.get("cat") == "kernel" and e["args"]["correlation"] == own]
        its.sort(key=lambda e: float(e["ts"]))
        gone |= {id(event) for event in its[len(its) // 2 + at :]}
    without(rank, lambda event: id(event) in gone)


CHANGES: dict[str, Change] = {
    "half of some graphs' kernels lost on the last rank": lambda ranks: graph_in_part(ranks[-1]),
    "work lost on the last rank": lambda ranks: lost(ranks[-1], 0.4, 0.6),
    "work lost on the first rank": lambda ranks: lost(ranks[0], 0.4, 0.6),
    "work lost on all ranks": lambda ranks: [lost(rank, 0.4, 0.6) for rank in ranks] and None,
    "work lost from a third on": lambda ranks: lost(ranks[-1], 0.33, 2, ("kernel",)),
    "the last rank's CPU activities only": lambda ranks: cpu_only(ranks[-1]),
    "the first rank's CPU activities only": lambda ranks: cpu_only(ranks[0]),
    "CPU activities only": lambda ranks: [cpu_only(rank) for rank in ranks] and None,
    "the last rank of another profile": lambda ranks: clock(ranks[-1], 60_000),
    "the first rank of another profile": lambda ranks: clock(ranks[0], 60_000),
    "the last rank's clock 1 ms ahead": lambda ranks: clock(ranks[-1], 1),
    "the last rank's clock 1 ms behind": lambda ranks: clock(ranks[-1], -1),
    "the last rank's clock 5 ms ahead": lambda ranks: clock(ranks[-1], 5),
    "the last rank's clock 0.15 s behind": lambda ranks: clock(ranks[-1], -150),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", CASES)
def test_what_is_said_with_evidence_missing_is_what_all_of_it_says(name, change):
    truth = truth_of(name)
    facts = changed(name, CHANGES[change])
    # within a tenth, or 0.4 ms: as good as small times are where few steps are left
    least = max(0.4, 0 if doubt_us(facts) else agree_ms(facts))
    wrong = {
        what: (truth.get(what), value)
        for what, value in claims(facts).items()
        if abs(value - truth.get(what, 0)) > max(least, 0.1 * truth.get(what, 0))
    }
    assert not wrong


def test_ranks_that_were_not_recorded_together_are_said_to_be_of_different_profiles():
    facts = changed(CASES[0], CHANGES["the last rank of another profile"])
    assert not any(edge.pairs for edge in (*facts.p2p, *facts.p2p_gloo))
    text = " ".join(" ".join(lines(facts)).split())
    assert "not recorded at the same time (they begin 60.0 s apart)" in text
    assert "Token return PP1 -> PP0: cannot tell." in text


def test_pairs_that_make_more_micro_batches_than_ranks_are_not_kept():
    facts = changed(CASES[0], CHANGES["the last rank's clock 1 ms ahead"])
    assert not any(edge.pairs for edge in (*facts.p2p, *facts.p2p_gloo))
    (warning,) = facts.warnings
    assert "no messages are paired" in warning and "3 micro-batches in 2 ranks" in warning


def test_lost_gpu_work_is_counted_and_the_ranks_gpu_use_is_not_given():
    facts = changed(CASES[0], CHANGES["work lost on the last rank"])
    assert facts.ranks["1"].idle_fraction is None and facts.ring.bubble_fraction is None
    assert facts.ranks["0"].idle_fraction is not None
    assert "of its launches is missing" in " ".join(facts.warnings)
    assert "of its launches is missing" in facts.turns_unknown["1"]


def test_of_a_profile_of_two_steps_too_few_steps_are_why_there_is_no_steps_time():
    """Not that 2 of 2 batches cannot be followed."""

    def short(ranks: list[Rank]) -> None:
        begin = max(work_ns(rank)[0] for rank in ranks) + 20_000
        for rank in ranks:
            without(rank, lambda e: "ts" in e and not begin <= float(e["ts"]) < begin + 100_000)

    facts = changed(CASES[0], short)
    assert facts.decode_step is None
    assert facts.decode_step_unknown.endswith("recorded whole: too few")


@pytest.mark.parametrize(
    ("kept", "says"),
    [
        (0.5, "the send's own part is the rest"),  # half of each graph's kernels
        (0.0, "in it the host waits"),  # none: only what is launched one by one
    ],
)
def test_a_wait_in_the_send_while_nothing_of_the_rank_runs_is_named(kept, says):
    """As #10865 has it: the host blocked, the GPU idle, and nothing in the trace that explains it.
    Kernels are taken out of every launch alike, so that none seems lost."""

    def later_half_gone(ranks: list[Rank]) -> None:
        rank = ranks[-1]
        graphs = {
            event["args"]["correlation"]
            for event in rank["traceEvents"]
            if event["name"] == "cudaGraphLaunch"
        }
        its: dict[int, list[Rank]] = {each: [] for each in graphs}
        for event in rank["traceEvents"]:
            if event.get("cat") == "kernel" and event["args"]["correlation"] in graphs:
                its[event["args"]["correlation"]].append(event)
        gone = set()
        for found in its.values():
            found.sort(key=lambda event: float(event["ts"]))
            gone |= {id(event) for event in found[max(1, int(kept * len(found))) :]}
        without(rank, lambda event: id(event) in gone)

    facts = changed(CASES[0], later_half_gone)
    text = " ".join(" ".join(lines(facts)).split())
    said = text[text.index("Token return") :].split(" a decode step waits")[0]
    assert says in said
    assert "for something that the trace does not show" in said
    whole = " ".join(" ".join(lines(analysed(DATA / CASES[0]))).split())
    assert "something that the trace does not show" not in whole


def test_a_graph_of_which_a_part_is_missing_is_lost_work():
    facts = changed(CASES[0], lambda ranks: graph_in_part(ranks[-1], 1))
    assert facts.ranks["1"].idle_fraction is None and facts.ranks["0"].idle_fraction is not None
    assert "of its launches is missing" in facts.turns_unknown["1"]


def test_times_of_an_edge_of_which_a_part_is_paired_are_not_shown():
    def some_lost(ranks: list[Rank]) -> None:
        kinds = ("kernel", "cpu_op", "user_annotation", "cuda_runtime", "cuda_driver", *ON_GPU)
        lost(ranks[0], 0.45, 0.55, kinds)

    facts = changed("sglang0516_graphs_on", some_lost)
    partial = [e for e in (*facts.p2p, *facts.p2p_gloo) if 0 < e.pairs < 0.8 * e.recvs]
    shown = [line for line in lines(facts) if "too few paired" in line]
    assert len(shown) == len(partial) > 0


def test_files_of_unknown_ranks_are_not_called_a_pipeline_of_one_rank(tmp_path):
    for number, text in enumerate(texts(CASES[0]).values()):
        document = msgspec.json.decode(text)
        del document["distributedInfo"]
        (tmp_path / f"run-{number}.json").write_bytes(msgspec.json.encode(document))
    facts = analysed(tmp_path)
    text = " ".join(" ".join(lines(facts)).split())
    assert "one rank of several" in text and "there is one PP rank" not in text
    assert "no file says which rank it is of" in text


def test_message_times_between_clocks_that_differ_stand_with_what_these_may_change():
    """Numbered messages are paired whatever the clocks are; their times are as recorded."""
    name = "sglang0516_sync_send_numbered"
    facts = changed(name, lambda ranks: clock(ranks[-1], 40))
    assert doubt_us(facts) > 39_000
    text = lines(facts)
    (head,) = [line for line in text if line.startswith("messages, means in ms")]
    rows = [line.split() for line in text if line.startswith(("nccl PP", "gloo PP"))]
    assert head.endswith("+-") and all(float(row[-1]) > 39 for row in rows)

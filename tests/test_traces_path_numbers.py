"""The decode steps of real traces against the numbers that pp_clock gave their messages, followed
through the raw events: nothing of the package reads them here."""

from __future__ import annotations

import gzip
import re
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

pytest.importorskip("msgspec")

import msgspec
from trace_changes import only_case

from repro_pp_graphs.traces.path.followed import Followed
from repro_pp_graphs.traces.path.ring_path import ring_path
from repro_pp_graphs.traces.path.whole_analysis import studied

DATA = Path(__file__).parent / "data" / "traces"
# folder -> mean of the steps that the path has, ms, by a program written apart from the package
BLOCKING = {"sglang0516_sync_send_numbered": 57.788, "sglang0516_event_send_numbered": 64.564}


class Rank(NamedTuple):
    """Of a rank, us: its graph launches; sends (begin) and receives by their number in gloo."""

    launches: list[float]
    sent: dict[int, float]
    received: dict[int, tuple[float, float]]


def rank(path: Path, pp: int) -> Rank:
    found = Rank([], {}, {})
    number = re.compile(rf"pp_clock:(send|recv) ({pp}->{1 - pp}|{1 - pp}->{pp}) pp_cpu #(\d+)")
    for event in msgspec.json.decode(gzip.decompress(path.read_bytes()))["traceEvents"]:
        if event.get("name") == "cudaGraphLaunch":
            found.launches.append(event["ts"])
        elif event.get("cat") == "user_annotation" and (mark := number.fullmatch(event["name"])):
            if mark[1] == "send":
                found.sent[int(mark[3])] = event["ts"]
            else:
                found.received[int(mark[3])] = event["ts"], event["ts"] + event["dur"]
    found.launches.sort()
    return found


def after(moment: float, times: list[float]) -> float | None:
    return min((time for time in times if time >= moment), default=None)


def steps_by_hand(folder: Path) -> dict[float, float]:
    """From a launch on PP0 to the next one of its micro-batch, us.

    Behind a launch PP0 sends token ids on, then hidden states: the last numbered message before its
    next launch. PP1 launches when it has them, then sends the token ids.
    """
    first, last = (rank(path, pp) for pp, path in enumerate(sorted(folder.iterdir())))
    found = {}
    for begin, following in pairwise(first.launches):
        numbers = [n for n, moment in first.sent.items() if begin < moment < following]
        if len(numbers) != 2 or max(numbers) not in last.received:
            continue
        there = after(last.received[max(numbers)][0], last.launches)
        tokens = there and after(there, list(last.sent.values()))
        number = next((n for n, moment in last.sent.items() if moment == tokens), None)
        if number in first.received:
            over = after(first.received[number][1], first.launches)
            if over:
                found[begin] = over - begin
    return found


def followed(name: str) -> Followed:
    found = studied(only_case(DATA / name)).followed
    assert isinstance(found, Followed), found
    return found


@pytest.mark.parametrize(("name", "mean_ms"), BLOCKING.items())
def test_every_step_is_the_one_that_the_numbers_lead_round(name, mean_ms):
    by_hand = steps_by_hand(DATA / name)
    base_us = only_case(DATA / name).ranks[0].base_ns // 1000
    path = followed(name)
    time, launch = path.timing.time, path.batches.launch
    assert len(path.steps) >= 9
    for begin, over in path.steps:
        start_us = float(time[launch[begin]] - base_us * 1000) / 1000
        nearest = min(by_hand, key=lambda moment: abs(moment - start_us))
        assert nearest == pytest.approx(start_us, abs=1)
        length_us = float(time[launch[over]] - time[launch[begin]]) / 1000
        assert by_hand[nearest] == pytest.approx(length_us, abs=1)
    case = only_case(DATA / name)
    assert ring_path(case, path).step_us.mean / 1000 == pytest.approx(mean_ms, abs=0.001)

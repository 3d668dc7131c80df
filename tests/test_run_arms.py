"""The arms of a run: whether decode graphs ran where they were claimed, by log and traces."""

from __future__ import annotations

import pytest
from gpu_plans import launch

from repro_pp_graphs.launch_record import GraphState
from repro_pp_graphs.run.launch import arm_check
from repro_pp_graphs.run.launch.arm_check import objections, observe
from repro_pp_graphs.server.log.log_lines import DecodeLine, prefills_with_graph

GRAPH, EAGER = DecodeLine(0, 32, True), DecodeLine(0, 24, False)
ALL_RANKS = {"0": 24, "1": 24, "2": 24, "3": 24}
NONE_AT_ALL = {"0": 0, "1": 0, "2": 0, "3": 0}


def test_prefills_with_a_graph_are_counted_by_the_lines_that_say_so():
    line = "[2026-11-27 23:23:39 PP0] {} batch, #new-seq: 1, #running-req: 0, {} graph: {}, input"
    said = [("Prefill", "cuda", True), ("Prefill", "cuda", False), ("Decode", "cuda", True)]
    text = "\n".join(line.format(*each) for each in said)
    assert prefills_with_graph(f"{text}\n[.. PP0] Prefill batch. #new-seq: 1, #new-token: 2") == 1
    state, _ = arm_check.check(text, None, launch(expects_graphs=False))
    assert (state.decode_lines, state.prefills_with_graph) == (1, 1)
    older = launch(
        expects_graphs=True, sglang_version="0.5.6.post2"
    )  # whose line it is, is not known
    assert arm_check.check(text, None, older)[0].prefills_with_graph == 0


def test_graph_launches_of_prefills_are_no_objection_to_an_arm_without_decode_graphs():
    off = launch(expects_graphs=False)
    assert objections(observe([EAGER], {"0": 5}, prefills=3), off) == []
    assert objections(observe([EAGER, GRAPH], {"0": 5}, prefills=3), off) != []


def test_a_logs_decode_lines_are_counted():
    lines = [GRAPH, EAGER, DecodeLine(3, 17, False)]
    assert observe(lines, None) == GraphState(3, 1, 24, None)
    assert observe([], {"0": 1}) == GraphState(0, 0, 0, {"0": 1})


@pytest.mark.parametrize(
    ("expects", "lines", "launches", "says"),
    [
        (True, [GRAPH] * 3, ALL_RANKS, []),
        (True, [GRAPH] * 3, None, []),
        (True, [], ALL_RANKS, []),
        (False, [EAGER] * 3, NONE_AT_ALL, []),
        (False, [EAGER] * 3, None, []),
        (None, [EAGER, GRAPH], {"0": 1}, []),
        (True, [GRAPH, EAGER, EAGER], ALL_RANKS, ["2 of 3", "24 requests", "batch is 64"]),
        (True, [GRAPH], {**ALL_RANKS, "2": 0}, ["rank 2"]),
        (True, [GRAPH], NONE_AT_ALL, ["rank 0, 1, 2, 3"]),
        (True, [GRAPH], {}, ["rank any"]),
        (False, [EAGER, GRAPH], NONE_AT_ALL, ["1 decode lines replayed"]),
        (False, [EAGER], {**NONE_AT_ALL, "3": 5}, ["cudaGraphLaunch", "5"]),
        (True, [], None, ["not seen"]),
        (False, [], None, ["not seen"]),
    ],
)
def test_an_arm_that_is_not_what_it_claims_is_told(expects, lines, launches, says):
    found = objections(observe(lines, launches), launch(expects_graphs=expects))
    assert len(found) == (1 if says else 0), found
    assert all(text in found[0] for text in says)

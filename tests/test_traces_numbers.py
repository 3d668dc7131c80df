"""Messages that carry numbers (the shim pp_clock) are paired by them, order and times checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("msgspec")

import msgspec
from trace_changes import DATA, analysed, analysis_of, only_case, texts, write, written_of

from repro_pp_graphs.traces.explain.analysis import analyze
from repro_pp_graphs.traces.explain.analysis_lines import lines
from repro_pp_graphs.traces.pair.edge import Channel, Pairing
from repro_pp_graphs.traces.pair.numbered_pairs import by_number
from repro_pp_graphs.traces.rank_trace import P2POp

pytestmark = pytest.mark.slow

# h200_case_A: recv index less send index, known (tests/data/traces, from the reference traces)
OFFSETS = {(0, 1): -1, (1, 2): -1, (2, 3): -1, (3, 0): 2}


def numbered(folder: Path, shift: int = 0, skip: int = 0) -> Path:
    """The reference traces with an annotation around every call that posts a message.

    Recvs into rank 0 count `shift` more; every `skip`-th send of rank 0 has no number.
    """
    case = only_case(DATA / "h200_case_A")
    changed: dict[str, str | bytes] = {}
    for rank in case.ranks:
        name = Path(rank.path).name.removesuffix(".gz")
        document = msgspec.json.decode(texts()[name])
        tid = max((e for e in document["traceEvents"] if e.get("cat") == "cpu_op"),
                  key=lambda e: e["ts"])["tid"]  # fmt: skip
        counts: dict[tuple[str, int], int] = {}
        for op in (each for each in rank.p2p if each.backend == "nccl"):
            counts[op.kind, op.peer] = at = counts.get((op.kind, op.peer), 0) + 1
            ends = (rank.rank, op.peer) if op.kind == "send" else (op.peer, rank.rank)
            number = 500 + at - (OFFSETS[ends] if op.kind == "recv" else 0)
            number += shift * (op.kind == "recv" and rank.rank == 0)
            if skip and rank.rank == 0 and op.kind == "send" and at % skip == 0:
                continue
            assert op.posted_ns is not None
            document["traceEvents"].append({
                "ph": "X", "cat": "user_annotation", "pid": rank.rank, "tid": tid, "args": {},
                "name": f"pp_clock:{op.kind} {ends[0]}->{ends[1]} pp #{number}",
                "ts": (op.posted_ns - rank.base_ns) / 1000 - 2, "dur": 4.0,
            })  # fmt: skip
        changed[name] = msgspec.json.encode(document)
    return write(folder, changed)


def edges(facts: dict[str, Any]) -> dict[tuple[int, int], dict[str, Any]]:
    return {(edge["src"], edge["dst"]): edge for edge in facts["p2p"]}


def test_pairs_by_number_are_those_of_order_and_times(tmp_path):
    plain, found = written_of("h200_case_A"), numbered(tmp_path / "n")
    facts = analysed(only_case(found))
    for ends, edge in edges(facts).items():
        pairs = edges(plain)[ends]["pairs"]
        assert edge["by_number"] == {"pairs": pairs, "same": pairs, "other": 0}
        assert edge["offset"] == OFFSETS[ends]
    assert facts["warnings"] == []
    # and nothing else of the analysis moves for the annotations
    for each in (plain, facts):
        del each["case"]
        for edge in each["p2p"]:
            edge.pop("by_number", None)
    assert facts == plain


def test_that_pairs_are_exact_is_said(tmp_path):
    told = lines(analyze(only_case(numbered(tmp_path / "n"))))
    text = " ".join(" ".join(told).split())
    assert "by the numbers that pp_clock gave the messages." in text
    plain = " ".join(lines(analysis_of("h200_case_A")))
    assert "pp_clock" not in plain


def test_numbers_that_contradict_hold_and_it_is_said(tmp_path):
    # every token of rank 3 is received a turn later than order and times say
    facts = analysed(only_case(numbered(tmp_path / "n", shift=-1)))
    edge = edges(facts)[3, 0]
    assert edge["offset"] == OFFSETS[3, 0] + 1
    assert edge["by_number"]["same"] == 0 < edge["by_number"]["other"]
    assert any("would have been paired otherwise" in text for text in facts["warnings"])


@pytest.mark.parametrize(("skip", "used"), [(40, True), (3, False)])
def test_a_few_messages_without_a_number_stay_alone_and_many_stop_it(tmp_path, skip, used):
    edge = edges(analysed(only_case(numbered(tmp_path / "n", skip=skip))))[0, 1]
    assert ("by_number" in edge and edge["by_number"] is not None) == used
    missing = edge["sends"] // skip if used else 0
    plain = edges(written_of("h200_case_A"))[0, 1]
    assert plain["pairs"] - missing <= edge["pairs"] <= plain["pairs"]


def op(kind: Any, number: int) -> P2POp:
    return P2POp(kind, 1, None, None, 0, 1, "nccl", 0, number=number, group="pp")


def test_numbers_that_repeat_are_not_believed():
    twice = Channel("", [op("send", 4), op("send", 4)], [op("recv", 4)], Pairing.none("x"))
    assert by_number(twice) is twice


def test_a_real_rehearsals_messages_are_paired_to_the_last():
    # sglang 0.5.21 on a CPU: the requests' channel too, which order and times leave alone
    facts = written_of("cpu_numbered")
    for edge in facts["p2p"]:
        told = edge["by_number"]
        assert told["other"] == 0 and told["pairs"] == edge["pairs"] >= told["same"] > 0
        # what has no partner is at the ends of the files
        assert edge["pairs"] >= min(edge["sends"], edge["recvs"]) - 3

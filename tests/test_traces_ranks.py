"""Which rank a file is of, and of which case: by name, distributedInfo and process groups."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("msgspec")

from trace_changes import analysed, facts_of, only_case, texts, with_events, write
from trace_maker import TraceMaker, ring

from repro_pp_graphs.traces.read.cases import cases_of, read_case


def groups(rank: int, pp_size: int, tp_size: int, *, named: bool = False) -> dict[str, Any]:
    """distributedInfo as torch writes it of sglang's process groups: all ranks', TP's, PP's and,
    after these, one of the rank's own."""
    world = pp_size * tp_size
    tp, pp = rank % tp_size, rank // tp_size
    of_kind = {
        "world": list(range(world)),
        "tp": list(range(pp * tp_size, (pp + 1) * tp_size)),
        "moe_ep": list(range(pp * tp_size, (pp + 1) * tp_size, max(1, tp_size // 2))),
        "pp": list(range(tp, world, tp_size)),
        "self_pp": [rank],
    }
    found = [{"pg_name": "0", "pg_desc": "default_pg", "ranks": of_kind["world"]}]
    for kind, ranks in of_kind.items():
        for device in ("device", "cpu"):
            desc = f"{kind}:{device}" if named else "undefined"
            found.append({"pg_name": str(len(found)), "pg_desc": desc, "ranks": ranks})
    return {"backend": "nccl", "rank": rank, "world_size": world, "pg_config": found}


def write_ranks(folder: Path, pp_size: int, tp_size: int, *names: str, named: bool = False) -> None:
    """A ring of PP ranks for each TP rank, under names that may hold {tp}, {pp} and {rank}."""
    for at, maker in enumerate(ring(pp_size)):
        for tp in range(tp_size):
            rank = at * tp_size + tp
            lane = TraceMaker(rank, pp_size * tp_size, pid=700 + rank)
            lane.events = [{**event, "args": dict(event["args"])} for event in maker.events]
            for event in lane.events:
                for side in {"Src Rank", "Dst Rank"} & event["args"].keys():
                    event["args"][side] = event["args"][side] * tp_size + tp
            lane.header = {"distributedInfo": groups(rank, pp_size, tp_size, named=named)}
            for name in names:
                lane.write(folder, name.format(tp=tp, pp=at, rank=rank))


def found(folder: Path) -> dict[str, list[tuple[int, int]]]:
    cases = [read_case(*each) for each in cases_of([folder]).items()]
    assert [text for case in cases for text in case.warnings] == []
    return {case.name: [(rank.pp, rank.tp) for rank in case.ranks] for case in cases}


RING = [(0, 0), (1, 0), (2, 0), (3, 0)]


def test_replicas_of_a_server_are_cases_of_their_own(tmp_path):
    for name, text in texts().items():
        for dp in range(2):
            rank = name.removeprefix("CASE_A-TP-0-").replace(".json", ".json")
            (tmp_path / f"1759000000.1-TP-0-DP-{dp}-{rank}").write_text(text)
    assert found(tmp_path) == {"1759000000.1 DP0": RING, "1759000000.1 DP1": RING}


def test_replicas_of_which_ranks_are_missing_are_not_made_into_one_server(tmp_path):
    for pp, maker in enumerate(ring(2)):
        maker.write(tmp_path, f"9.5-TP-0-DP-{pp}-PP-{pp}.trace.json")
    cases = {name: read_case(name, files) for name, files in cases_of([tmp_path]).items()}
    assert list(cases) == ["9.5 DP0", "9.5 DP1"]
    assert all(any("no trace of PP" in w for w in case.warnings) for case in cases.values())


def test_with_dp_attention_the_dp_ranks_are_of_one_server(tmp_path):
    write_ranks(tmp_path, 2, 2, "9.5-TP-{tp}-DP-{tp}-PP-{pp}-EP-{tp}.trace.json")
    assert list(found(tmp_path).values()) == [[(0, 0), (0, 1), (1, 0), (1, 1)]]


@pytest.mark.parametrize(
    "name",
    [
        "9.5-TP-{tp}.trace.json",  # as 0.5.2 and 0.5.3 write, were it not for ranks of one name
        "9.5-TP-{tp}-PP-{pp}.trace.json.gz",
        "mine-9.5-TP-{tp}-PP-{pp}-EP-{tp}-DECODE.trace.json",
        "rank{rank}.json",
        "host_{rank}.pt.trace.json.gz",
    ],
)
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(("pp_size", "tp_size"), [(4, 1), (2, 2), (2, 4), (1, 4)])
def test_process_groups_tell_what_the_name_does_not(tmp_path, name, named, pp_size, tp_size):
    for rank in range(pp_size * tp_size):
        name_of = name.replace("9.5", f"9.5_{rank // tp_size}") if "{pp}" not in name else name
        one = tmp_path / str(rank)
        one.mkdir()
        write_ranks(one, pp_size, tp_size, name_of, named=named)
    folder = tmp_path / "all"
    folder.mkdir()
    write_ranks(folder, pp_size, tp_size, "{rank}" + name if "{pp}" not in name else name)
    expected = [(pp, tp) for pp in range(pp_size) for tp in range(tp_size)]
    assert list(found(folder).values()) == [expected]


def test_the_groups_count_where_ranks_are_missing(tmp_path):
    write_ranks(tmp_path, 2, 2, "9.5-TP-{tp}-PP-{pp}.trace.json")
    for path in tmp_path.glob("*-TP-1-*"):
        path.unlink()
    case = only_case(tmp_path)
    assert [(rank.pp, rank.tp, rank.rank) for rank in case.ranks] == [(0, 0, 0), (1, 0, 2)]
    assert case.warnings == ["no trace of PP0 TP1, PP1 TP1: its edges are not paired"]
    assert {(e["src"], e["dst"]): e["pairs"] for e in analysed(case)["p2p"]} == {
        (0, 1): 5,
        (1, 0): 5,
    }


@pytest.mark.parametrize(
    "name", ["frontend.trace.json", "0_AsyncLLM.pt.trace.json", "tokenizer-1.json"]
)
@pytest.mark.parametrize("ranks", ["9.5-TP-0-PP-{pp}.trace.json", "9.5_{rank}.trace.json"])
def test_a_file_of_another_process_displaces_no_rank(tmp_path, name, ranks):
    write_ranks(tmp_path, 2, 1, ranks)
    maker = TraceMaker(0, 2)
    maker.span("tokenize", 0, 10)
    document = maker.document()
    del document["distributedInfo"]
    (tmp_path / name).write_text(json.dumps(document))
    case = only_case(tmp_path)
    assert [Path(rank.path).name for rank in case.ranks] == [
        ranks.format(pp=0, rank=0),
        ranks.format(pp=1, rank=1),
    ]
    assert [text for text in case.warnings if "left out" in text] == case.warnings
    assert len(case.warnings) == 1


def test_of_two_files_of_a_rank_that_with_kernels_is_taken(tmp_path):
    write_ranks(tmp_path, 2, 1, "b-TP-0-PP-{pp}.trace.json")
    maker = TraceMaker(0, 2)
    maker.span("serve", 0, 10)
    maker.write(tmp_path, "a-frontend.trace.json")
    case = only_case(tmp_path)
    assert Path(case.ranks[0].path).name == "b-TP-0-PP-0.trace.json"
    assert sum("was read already" in text for text in case.warnings) == 1


@pytest.mark.parametrize("info", [{"rank": 7, "world_size": 2}, {"rank": -1}, {"rank": 10**30}])
def test_a_rank_that_cannot_be_is_not_believed(tmp_path, info):
    makers = ring(2)
    makers[1].header = {"distributedInfo": info}
    for maker in makers:
        maker.write(tmp_path)
    case = only_case(tmp_path)
    assert [rank.rank for rank in case.ranks] == [0, 1]
    assert (len([text for text in case.warnings if "which cannot be" in text]) == 1) == (
        info["rank"] < 10**30
    )


def test_many_missing_ranks_are_told_in_a_line(tmp_path):
    maker = ring(1)[0]
    maker.header = {"distributedInfo": {"rank": 0, "world_size": 4096}}
    maker.write(tmp_path)
    (text,) = only_case(tmp_path).warnings
    assert "and 4087 more" in text
    assert len(text) < 120


def test_a_trace_without_cpu_activities_says_that_they_are_missing(tmp_path):
    def on_gpu(event: dict[str, Any]) -> dict[str, Any] | None:
        if event.get("cat") in ("cpu_op", "user_annotation", "gpu_user_annotation"):
            return None
        if "args" in event:
            event["args"] = {key: event["args"][key] for key in event["args"] if " " not in key}
        return event

    folder = write(tmp_path, {name: with_events(text, on_gpu) for name, text in texts().items()})
    facts, warnings = facts_of(folder)
    assert facts["p2p_without_metadata"] == {"0": 96, "1": 146, "2": 146, "3": 98}
    (text,) = warnings
    assert text.startswith("all ranks: no CPU activities")

"""The printed analysis: fits a terminal, the token return and its reason first, nothing made up."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

pytest.importorskip("msgspec")

import msgspec
from trace_changes import only_case, whole
from trace_maker import TraceMaker, ring, sync_release

from repro_pp_graphs.traces.commands.analyze import main as analyze_command
from repro_pp_graphs.traces.commands.paths import members_of
from repro_pp_graphs.traces.explain import side_by_side
from repro_pp_graphs.traces.explain.analysis import analyze
from repro_pp_graphs.traces.explain.analysis_lines import lines
from repro_pp_graphs.traces.explain.words import column
from repro_pp_graphs.traces.path import difference_words

DATA = Path(__file__).parent / "data" / "traces"


def shown(*paths: Path) -> str:
    found = lines(analyze(only_case(*paths)))
    assert max(map(len, found)) <= 80
    return "\n".join(found)


def sentences(text: str) -> str:
    """The text without its line breaks."""
    return " ".join(text.split())


@pytest.mark.parametrize("case", ["A", "B"])
def test_a_send_in_which_the_host_does_not_wait_is_said_to_be_one_before_the_tables(case):
    text = shown(DATA / f"h200_case_{case}")
    assert text.startswith(f"CASE_{case}: 4 PP ranks, all recorded at once for ")
    told = sentences(text.split("\n\n")[0])
    assert "The send does not hold the host (as from sglang 0.5.7)" in told
    assert "(mean of 22 steps), and does not wait in it. The last byte has left after" in told
    assert ("PP3's own decode graph runs" in told) == (case == "A")


def test_a_send_that_blocks_is_split_into_the_graph_and_its_own_part(tmp_path):
    for maker in sync_release(named=True):
        maker.write(tmp_path)
    text = shown(tmp_path)
    told = sentences(text)
    assert (
        "the send holds PP1's host for 29.60 ms (mean of 3 steps). For 29.00 ms of it the host "
        "waits for PP1's own decode graph, before whose end there are no token ids; the send's own "
        "part is the rest, 0.60 ms." in told
    )
    assert (
        "The last byte has left after 99.90 ms: for 70.26 ms PP0 has not started its receive, "
        "for 29.00 ms PP1's own decode graph runs and no NCCL or gloo send is under way." in told
    )
    rows = {line.strip()[:28].strip(): line.split() for line in text.splitlines()}
    assert rows["until the last byte has left"][-2:] == ["99.90", "99.90"]
    assert rows["the send holds PP1's host"][-1] == "100"
    assert "the send blocks in cudaMemcpyAsync 29.00 ms a step" in told


def without_a_gpu(folder: Path, target: Path) -> None:
    """The ranks of a folder as a machine without a GPU records them."""
    for path in folder.iterdir():
        document = msgspec.json.decode(gzip.decompress(path.read_bytes()))
        on_gpu = ("kernel", "gpu_memcpy", "gpu_memset", "gpu_user_annotation")
        document["traceEvents"] = [
            event
            for event in document["traceEvents"]
            if event.get("cat") not in (*on_gpu, "cuda_runtime", "cuda_driver")
            and not str(event.get("name")).startswith("nccl:")
        ]
        (target / path.name).write_bytes(gzip.compress(json.dumps(document).encode()))


def test_without_a_gpu_nothing_is_said_of_kernels_and_graphs(tmp_path):
    without_a_gpu(DATA / "h200_case_A", tmp_path)
    text, _, warnings = shown(tmp_path).partition("\nwarning:")
    assert "no GPU kernels" in warnings
    assert not [word for word in ("kernel", "graph", "GPU", "computes") if word in text]
    assert "Token return PP3 -> PP0: the send holds PP3's host for" in text
    assert "outside run_batch" in text


def test_edges_that_cannot_be_paired_are_said_to_be_and_the_peer_is_called_unknown(tmp_path):
    first, last = sync_release(named=True)
    for event in first.events:
        if "Src Rank" in event["args"]:
            event["args"]["In msg nelems"] += 1
    for maker in (first, last):
        maker.write(tmp_path)
    text = shown(tmp_path)
    assert "nccl PP1 -> PP0                0 of 8  not paired: see the warnings" in text
    assert "warning: nccl rank 1 -> 0: 8 sends and 8 recvs not paired" in sentences(text)
    assert "Not known: what PP0 does meanwhile (no nccl sends to it are paired)" in sentences(text)


def test_no_token_return_is_said_with_its_reason(tmp_path):
    def text(name: str, *makers: TraceMaker) -> str:
        (tmp_path / name).mkdir()
        for maker in makers:
            maker.write(tmp_path / name)
        return shown(tmp_path / name)

    (alone,) = ring(1)
    assert "Token return: none, there is one PP rank" in text("one", alone)
    gap = text("gap", *ring(3)[:2])
    assert "3 PP ranks, 2 with a trace" in gap
    assert "Token return: not seen, PP2 has no trace" in gap
    silent, mute = ring(2), ring(2)
    silent[1].events = [e for e in silent[1].events if "Dst Rank" not in e["args"]]
    assert "Token return: not seen, PP1 sent no tokens while" in text("silent", *silent)
    for event in mute[1].events:
        if event["name"].startswith("nccl"):
            event["args"] = {"correlation": event["args"]["correlation"]}
    assert "Token return: not seen, no P2P kernel of PP1 says who" in text("mute", *mute)


def test_the_column_of_a_receive_that_begins_late_is_called_so(tmp_path):
    for maker in sync_release(named=True):
        maker.write(tmp_path)
    text = shown(tmp_path)
    (head,) = [line for line in text.splitlines() if line.startswith("messages, means")]
    (row,) = [line for line in text.splitlines() if line.startswith("nccl PP1 -> PP0")]
    assert head.split()[-4:] == ["late", "recv", "late", "send"]
    late_recv, late_send = map(float, row.split()[-2:])
    assert late_recv > 1 and late_send == 0, "every receive begins after its send there"
    assert "late recv: how long after its send a receive began" in sentences(text)


def test_many_batch_sizes_are_summed_up_in_the_width_there_is(tmp_path):
    for maker in ring(2, steps=60):
        for n, event in enumerate(maker.events):
            if event["name"].startswith("step["):
                event["name"] = f"step[DECODE bs={n % 97 + 1}]"
        maker.write(tmp_path)
    row = next(line for line in shown(tmp_path).splitlines() if line.startswith("PP0"))
    assert row.endswith("60 at 2 to 96")


def test_tensor_parallel_lanes_are_told_apart(tmp_path):
    for pp in range(2):
        for tp in range(2):
            lane = TraceMaker(2 * pp + tp, 4)
            for n in range(6):
                peer = 2 * (1 - pp) + tp
                lane.p2p("send" if pp else "recv", peer, 1000 * n + 100 * (1 - pp), 300)
            lane.write(tmp_path, f"CASE-TP-{tp}-PP-{pp}.trace.json.gz")
    text = shown(tmp_path)
    assert "CASE: 2 PP ranks x 2 TP, all recorded at once" in text
    assert "nccl PP1 -> PP0 TP1" in text


def test_many_ranks_are_summed_up_on_a_screen(tmp_path):
    for maker in ring(64, steps=6):
        maker.write(tmp_path)
    found = lines(analyze(only_case(tmp_path)))
    warned = next(at for at, line in enumerate(found) if line.startswith("warning: "))
    assert warned <= 80
    text = "\n".join(found)
    assert "64 PP ranks" in text
    assert "--json" in text


def test_a_trace_with_gpu_activities_only_says_so_where_the_token_return_would_stand(tmp_path):
    on_host = ("cpu_op", "user_annotation", "cuda_runtime", "cuda_driver")
    for path in (DATA / "h200_case_A").iterdir():
        document = msgspec.json.decode(gzip.decompress(path.read_bytes()))
        document["traceEvents"] = [
            event for event in document["traceEvents"] if event.get("cat") not in on_host
        ]
        (tmp_path / path.name).write_bytes(gzip.compress(json.dumps(document).encode()))
    text = sentences(shown(tmp_path))
    assert "Token return: not seen, the trace has GPU activities only; profile with" in text


def test_a_folder_of_cases_is_analysed_case_by_case_and_side_by_side(tmp_path, capsys):
    for name in ("trace/on", "trace/off", "logs"):
        (tmp_path / name).mkdir(parents=True)
    for maker in sync_release(named=True):
        maker.write(tmp_path / "trace" / "on")
    for maker in ring():
        maker.write(tmp_path / "trace" / "off")
    (tmp_path / "logs" / "summary.json").write_text('{"schema": 1}')  # of a run: no trace
    assert analyze_command([str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    *cases, table = printed.out.split("side by side")
    assert "".join(cases).count("PP ranks, ") == 2
    rows = [line.split() for line in table.splitlines() if line.startswith(("on ", "off "))]
    assert [row[0] for row in rows] == ["off", "on"] and all(len(row) == 6 for row in rows)
    on = analyze(only_case(tmp_path / "trace" / "on"))
    assert rows[1][3] == f"{on.token_return.host_us.send.mean / 1e3:.2f}"
    assert max(map(len, table.splitlines())) <= 80


TABLE = "messages, means in ms"


@pytest.mark.parametrize(
    ("options", "tables"), [((), 0), (("--tables",), 2), (("--what-if", "send=0"), 2)]
)
def test_of_several_cases_the_tables_are_printed_where_they_are_asked_for(
    tmp_path, capsys, options, tables
):
    for name in ("on", "off"):
        (tmp_path / name).mkdir()
        for maker in sync_release(named=True):
            maker.write(tmp_path / name)
    assert analyze_command([str(tmp_path), *options]) == 0
    said = capsys.readouterr().out
    assert said.count(TABLE) == tables and said.count("side by side") == 1
    assert ("analyze its folder alone, or --tables" in said) == (not tables)
    assert said.count("Token return PP1 -> PP0: ") == 2


def test_a_case_beside_one_that_cannot_be_read_has_its_tables(tmp_path, capsys):
    (tmp_path / "a").mkdir()
    for maker in sync_release(named=True):
        maker.write(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x-TP-0-PP-0.trace.json.gz").write_bytes(b"no gzip")
    assert analyze_command([str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    printed = capsys.readouterr()
    assert printed.out.count(TABLE) == 1 and "side by side" not in printed.out
    assert "x-TP-0-PP-0" in printed.err


def scaled(value: object, factor: float) -> object:
    """An analysis with every time, all of which are in us, so many times as long."""
    if isinstance(value, float):
        return value * factor
    if isinstance(value, msgspec.Struct):
        names = value.__struct_fields__
        same = ("ratio", "fraction", "share")
        return msgspec.structs.replace(
            value,
            **{
                name: scaled(getattr(value, name), factor)
                for name in names
                if not any(word in name for word in same)
            },
        )
    if isinstance(value, dict):
        return {key: scaled(each, factor) for key, each in value.items()}
    return [scaled(each, factor) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("longest_ms", [90, 172.88, 999.996, 9_999.996, 99_999.6, 100_000])
@pytest.mark.parametrize("case", ["h200_case_A", "sglang052_graphs_on"])
def test_columns_stay_apart_however_long_a_turn_is(case, longest_ms):
    made = whole(case)
    path = made.ring_path
    longest_us = max(*(turn.p99 for turn in made.turns.values()), path.step_us.mean)
    found = scaled(made, longest_ms * 1e3 / longest_us)
    text = [*lines(found), *side_by_side.lines([made, found])]
    text += difference_words.lines("CASE_A_decode_graphs", path, "CASE_B", found.ring_path)
    assert max(map(len, text)) <= 80
    tables = text[next(at for at, line in enumerate(text) if line.startswith("a decode step")) :]
    for line in tables:  # two numbers in one word have two points, or more digits than one has
        figures = re.sub(r"\b0\.5\.\d+", "", line)  # a release is none
        joined = re.search(r"\d\.\d+\.|\ds\d|[a-z]\d+\.\d\d|\d{7}", figures)
        assert not joined or line.startswith("("), line
    rows = {line[:24].strip(): line.split() for line in tables}
    assert len(rows["the whole turn"]) == 3 + 2 * len(found.turns)
    most_us = max(turn.p99 for turn in found.turns.values())
    assert column(most_us, 6).strip() in rows["the whole turn"]
    sends, turns = found.token_return.steps_counted, list(found.turns.values())[-1].turns
    over = f"the {turns} turns from one send of token ids to the next, the token return below of "
    over += f"all {sends} sends"
    assert (over in " ".join(" ".join(text).split())) == (sends != turns)


@pytest.mark.parametrize(
    ("value_us", "width", "text"),
    [
        (172_880.0, 7, " 172.88"),
        (172_880.0, 6, " 172.9"),
        (99.996e3, 6, " 100.0"),
        (99_999.4e3, 6, " 99999"),
        (99_999.6e3, 6, "  100s"),
        (100_000e3, 6, "  100s"),
        (1_230.0, 6, "  1.23"),
        (None, 6, "     -"),
    ],
)
def test_a_time_has_the_decimals_that_there_is_room_for(value_us, width, text):
    assert column(value_us, width) == text
    assert column(1_230.0, 8, "+") == "   +1.23"


def test_cases_of_the_same_name_in_other_folders_go_by_their_paths(tmp_path):
    for name in ("monday/on", "tuesday/on"):
        (tmp_path / name).mkdir(parents=True)
        for maker in ring():
            maker.write(tmp_path / name)
    assert list(members_of([tmp_path])) == [
        str(tmp_path / "monday" / "on"),
        str(tmp_path / "tuesday" / "on"),
    ]


def test_a_wait_for_something_else_says_what_that_can_be():
    facts = analyze(only_case(DATA / "sglang052_graphs_on"))
    assert "Something else:" not in "\n".join(lines(facts))
    turn = next(iter(facts.turns.values()))
    row = next(row for row in turn.rows.values() if row.mean)
    row.waits["otherwise"] = turn.mean
    text = sentences("\n".join(lines(facts)))
    assert "for something else" in text
    assert "Something else: a call or message that waits while the traces show nothing" in text

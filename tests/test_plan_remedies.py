"""The cases beside graphs on and off: the remedies, and sends that hold the host."""

from __future__ import annotations

import json
from pathlib import Path

import made_up_run
import pytest
from plan_harness import FLAGS, plan_of, value
from release_sources import release_of

from repro_pp_graphs import run_record
from repro_pp_graphs.probe import cells
from repro_pp_graphs.report.summary import pairs, remarks, run_summary
from repro_pp_graphs.run import finish_step, overview
from repro_pp_graphs.run.plan import probe_engine
from repro_pp_graphs.run.plan.refusal import PlanError
from repro_pp_graphs.server import shim_names
from repro_pp_graphs.server.case import argfile, needs
from repro_pp_graphs.server.case.argfile import ServerArgs
from repro_pp_graphs.server.release import pp_loop
from repro_pp_graphs.server.release.installed import Release
from repro_pp_graphs.server.shims import sync_send
from repro_pp_graphs.traces.explain import step_path
from repro_pp_graphs.traces.path import what_if

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("comm_overlap", "async_depth", "sync_send", "event_send", "comm_stream", "batched_p2p")
TEXTS = {name: (ROOT / f"server_args_{name}.txt").read_text() for name in NAMES}


def release(folder: Path, version: str, overlap: bool = False) -> Release:
    """A release of which the two files of its PP loop exist."""
    place = release_of(folder, version)
    if overlap:
        with (place / pp_loop.LOOP_FILE).open("a", encoding="utf-8") as loop:
            loop.write("# envs.SGLANG_PP_COMM_OVERLAP.get()\n")
    return Release(version, FLAGS, place)


# the files


def test_each_case_differs_from_graphs_on_by_its_remedy_alone():
    on = argfile.load(ROOT / "server_args_graphs_on.txt")
    extra = {}
    for name in NAMES:
        args = argfile.load(ROOT / f"server_args_{name}.txt")
        extra[name] = ({k: v for k, v in args.flags.items() if on.flags.get(k) != v}, args.env)
        assert on.flags.items() <= args.flags.items()
    assert extra == {
        "comm_overlap": ({}, {"SGLANG_PP_COMM_OVERLAP": "1"}),
        "async_depth": ({"--pp-async-batch-depth": ["1"]}, {}),
        **{
            name: ({}, {"REPRO_SHIMS": name})
            for name in ("sync_send", "event_send", "comm_stream", "batched_p2p")
        },
    }
    off = argfile.load(ROOT / "server_args_graphs_off.txt")
    args = argfile.load(ROOT / "server_args_sync_send_no_graphs.txt")
    assert (args.flags, args.env) == (off.flags, {"REPRO_SHIMS": "sync_send"})


def test_every_case_has_a_label_of_its_own():
    names = (
        "graphs_on",
        "graphs_off",
        "sync_send_no_graphs",
        *NAMES,
    )  # a user's own cases may do without
    labels = [argfile.load(ROOT / f"server_args_{name}.txt").label for name in names]
    assert None not in labels and len(set(labels)) == len(labels)


def test_no_remedy_runs_unasked(tmp_path):
    release(tmp_path, "0.5.21", overlap=True)
    texts = {name: text for name, text in TEXTS.items() if name != "comm_stream"}  # before 0.5.21
    plan = plan_of(tmp_path, graphs_on="# label: A\n", graphs_off="# label: B\n", **texts)
    assert {launch.case for launch in plan.launches} == {"graphs_on", "graphs_off", *texts}
    (tmp_path / "other").mkdir()
    assert {launch.case for launch in plan_of(tmp_path / "other").launches} == {
        *("graphs_on", "graphs_off")
    }


@pytest.mark.parametrize("name", ["comm_stream", "event_send", "batched_p2p"])
def test_a_remedy_has_one_name_as_case_shim_send_path_and_what_if(name):
    assert name in TEXTS and name in shim_names.REASONS
    assert name in cells.SENDS and name in what_if.REMEDIES and name in step_path.IF
    assert probe_engine.SENDS[name] == name


# what each is held against


def notes_on_two_things(folder: Path, *cases: str, version: str = "0.5.16") -> list[str]:
    folder.mkdir()
    texts = {"graphs_on": "# label: A\n", "graphs_off": "# label: B\n--disable-cuda-graph\n"}
    asked = {name: {**texts, **TEXTS}[name] for name in cases}
    release(folder, version, overlap=version == "0.5.21")
    plan = plan_of(folder, release=version, **asked)
    return [note for note in overview.notes(plan) if "changes two things" in note]


def test_a_remedy_that_differs_in_two_things_from_all_cases_has_a_note_with_the_case_to_add(
    tmp_path,
):
    (note,) = notes_on_two_things(tmp_path / "1", "sync_send", "comm_stream", "event_send")
    assert note.startswith("comm_stream: against sync_send this case changes two things: ")
    assert "its sends are asynchronous in place of blocking" in note
    assert "add graphs_on to --cases" in note
    (note,) = notes_on_two_things(
        tmp_path / "2", "sync_send", "comm_overlap", "batched_p2p", version="0.5.21"
    )
    assert note.startswith("comm_overlap: ") and "add graphs_on" in note
    (note,) = notes_on_two_things(tmp_path / "3", "graphs_on", "batched_p2p", "comm_stream")
    assert note.startswith("batched_p2p: ") and "add sync_send to --cases" in note
    # graphs off is as released in its sends, but not what the remedy is beside
    assert notes_on_two_things(tmp_path / "4", "graphs_off", "comm_stream") != []
    assert notes_on_two_things(tmp_path / "5", "comm_stream", "graphs_on", "sync_send") == []
    assert notes_on_two_things(tmp_path / "6", "sync_send", "graphs_on", "comm_stream") == []


def test_a_run_compares_each_remedy_with_its_own_baseline_beside_the_first_case():
    sends = {
        "sync_send": needs.SEND_SHIMS["sync_send"].sends,
        "async_depth": "asynchronous",
        "graphs_on": "asynchronous",
        "comm_stream": needs.SEND_SHIMS["comm_stream"].sends,
        "event_send": needs.SEND_SHIMS["event_send"].sends,
    }
    rows = [
        {"case": case, "label": case, "sends": how, "sglang_version": "0.5.16"}
        | {"expects_graphs": True, "place": place, "round": 1}
        for place, (case, how) in enumerate(sends.items(), 1)
    ]
    assert pairs.pairs_of(rows, None) == [
        *(("sync_send", other) for other in list(sends)[1:]),
        ("graphs_on", "comm_stream"),
    ]
    rows[2]["sglang_version"] = "0.5.21"  # another release is a second difference
    assert ("async_depth", "comm_stream") not in pairs.pairs_of(rows, None)
    assert ("graphs_on", "comm_stream") not in pairs.pairs_of(rows, None)
    del rows[1:3]
    assert pairs.pairs_of(rows, None) == [("sync_send", "comm_stream"), ("sync_send", "event_send")]


def test_every_case_whose_sends_are_changed_names_a_baseline_that_there_is():
    assert set(needs.BASELINES.values()) == set(needs.BASELINE_CASES)
    for case in needs.BASELINE_CASES.values():
        assert (ROOT / f"server_args_{case}.txt").is_file()
    changed = {one.sends for name, one in needs.SEND_SHIMS.items() if name != "sync_send"}
    assert set(needs.BASELINES) == {*changed, needs.OWN_STREAM}


# what a release must have


def unmet(text: str, of: Release) -> str:
    return needs.unmet(argfile.parse(text, "case"), needs.installed(of))


def test_the_overlap_is_refused_by_what_the_source_reads_not_by_the_number(tmp_path):
    without, with_it = release(tmp_path / "a", "0.5.16"), release(tmp_path / "b", "0.5.21", True)
    refused = unmet(TEXTS["comm_overlap"], without)
    assert "SGLANG_PP_COMM_OVERLAP needs sglang 0.5.21 or newer; this is 0.5.16: " in refused
    assert "--python" in refused and "RELEASE=" in refused
    assert unmet(TEXTS["comm_overlap"], with_it) == ""
    backported = Release("0.5.16", FLAGS, with_it.place)
    assert unmet(TEXTS["comm_overlap"], backported) == ""
    nightly = Release("0.5.30.dev1", FLAGS, without.place)
    assert "this is 0.5.30.dev1" in unmet(TEXTS["comm_overlap"], nightly)


@pytest.mark.parametrize("value", ["0", "false", "No", ""])
def test_an_overlap_that_is_switched_off_needs_nothing(tmp_path, value):
    assert unmet(f"SGLANG_PP_COMM_OVERLAP={value}", release(tmp_path, "0.5.16")) == ""


def test_the_asynchronous_depth_is_refused_where_the_release_has_no_such_argument(tmp_path):
    found = release(tmp_path, "0.5.7")
    old = Release("0.5.6.post2", FLAGS - {"--pp-async-batch-depth"}, found.place)
    assert unmet(TEXTS["async_depth"], found) == ""
    assert "--pp-async-batch-depth needs sglang 0.5.7 or newer; this is 0.5.6.post2: " in unmet(
        TEXTS["async_depth"], old
    )


def test_synchronous_sends_are_refused_where_they_are_so_already(tmp_path):
    found = release(tmp_path, "0.5.16")
    assert unmet(TEXTS["sync_send"], found) == ""
    (found.place / pp_loop.LOOP_FILE).unlink()
    old = Release("0.5.2", FLAGS, found.place)
    assert unmet(TEXTS["sync_send"], old).startswith(
        "shim sync_send on sglang 0.5.2: this release's PP sends block as they are"
    )


def test_overlap_and_synchronous_sends_exclude_each_other(tmp_path):
    both = TEXTS["comm_overlap"] + TEXTS["sync_send"]
    assert "use one" in unmet(both, release(tmp_path, "0.5.21", True))
    depth = TEXTS["async_depth"] + TEXTS["sync_send"]
    assert unmet(depth, release(tmp_path, "0.5.21", True)) == ""


def test_two_shims_that_change_the_sends_are_refused(tmp_path):
    both = "REPRO_SHIMS=sync_send,batched_p2p"
    assert unmet(both, release(tmp_path, "0.5.16")) == (
        "the shims sync_send and batched_p2p each change how PP messages go: name one"
    )


@pytest.mark.parametrize(
    ("case", "more", "says"),
    [
        ("batched_p2p", "--pp-async-batch-depth 1", "does not go with --pp-async-batch-depth"),
        ("batched_p2p", "--tp-size 2", "does not go with --tp-size"),
        ("batched_p2p", "--tp-size 1\n--pp-async-batch-depth 0", ""),
        ("batched_p2p", "--speculative-algorithm EAGLE", "with --speculative-algorithm"),
        ("comm_stream", "--tp-size 2", "comm_stream is for --tp-size 1"),
        ("event_send", "--tp-size 2\n--pp-async-batch-depth 1", ""),
    ],
)
def test_what_a_shim_does_not_go_with_is_refused_by_name(tmp_path, case, more, says):
    found = unmet(f"{TEXTS[case]}{more}\n", release(tmp_path, "0.5.16"))
    assert says in found and bool(found) == bool(says)


@pytest.mark.parametrize("case", ["event_send", "comm_stream", "batched_p2p"])
@pytest.mark.parametrize("version", ["0.5.2", "0.5.6.post2"])
def test_a_remedy_is_refused_where_sends_are_synchronous_as_released(tmp_path, case, version):
    found = release(tmp_path, "0.5.7")
    (found.place / pp_loop.LOOP_FILE).unlink()
    said = unmet(TEXTS[case], Release(version, FLAGS - {"--pp-async-batch-depth"}, found.place))
    why = "this release's PP sends block" if case == "comm_stream" else "it is made for the PP lo"
    assert said.startswith(f"shim {case} on sglang {version}: {why}")


def test_comm_stream_is_refused_where_the_release_has_its_own(tmp_path):
    assert unmet(TEXTS["comm_stream"], release(tmp_path / "a", "0.5.16")) == ""
    said = unmet(TEXTS["comm_stream"], release(tmp_path / "b", "0.5.21", overlap=True))
    assert "SGLANG_PP_COMM_OVERLAP" in said and "the case comm_overlap" in said
    assert said.count(": ") == 1


def test_a_refusal_names_the_file(tmp_path):
    with pytest.raises(PlanError, match=r"^server_args_comm_overlap\.txt: SGLANG_PP_COMM_OVERLAP"):
        plan_of(tmp_path, comm_overlap=TEXTS["comm_overlap"])


# the launches


@pytest.mark.parametrize(
    ("argv", "count", "names"),
    [
        ([], 4, ["sync_send"]),
        (["--one-gpu"], 1, ["one_gpu", "keep_profilers", "sync_send"]),
        (["--cpu"], 0, ["cpu", "keep_profilers", "sync_send"]),
    ],
)
def test_a_cases_shim_joins_those_that_the_mode_needs(tmp_path, argv, count, names):
    release_of(tmp_path, "0.5.21")
    (launch,) = plan_of(tmp_path, *argv, count=count, sync_send=TEXTS["sync_send"]).launches
    assert launch.env["REPRO_SHIMS"].split(",") == [*names, "pp_clock"]
    assert launch.argv[1:3] == ["-m", "repro_pp_graphs.server.launch"]
    assert any(note.startswith("the server is changed (shim sync_send): ") for note in launch.notes)


def test_a_shim_named_twice_is_installed_once():
    twice = ServerArgs(env={shim_names.ENV_NAME: "cpu,sync_send"}).over(
        ServerArgs(env={shim_names.ENV_NAME: "cpu"})
    )
    assert shim_names.names_in(twice.env) == ["cpu", "sync_send"]


def test_the_depth_reaches_the_server(tmp_path):
    (launch,) = plan_of(tmp_path, async_depth=TEXTS["async_depth"]).launches
    assert value(launch, "--pp-async-batch-depth") == "1"
    assert launch.expects_graphs is True


@pytest.mark.parametrize("case", ["comm_stream", "event_send"])
def test_a_rehearsal_says_what_a_shim_is_there(tmp_path, case):
    release_of(tmp_path, "0.5.16")
    text = {case: TEXTS[case]}
    plan = plan_of(tmp_path, "--cpu", count=0, release="0.5.16", **text)
    (note,) = [each for each in plan.launches[0].notes if "on a CPU" in each and case in each]
    assert note.startswith(f"shim {case} ")


@pytest.mark.parametrize(("argv", "count", "told"), [([], 4, 0), (["--cpu"], 0, 1)])
def test_a_rehearsal_says_that_the_overlap_does_nothing_there(tmp_path, argv, count, told):
    place = release(tmp_path, "0.5.21", overlap=True).place
    assert place == tmp_path / "sglang"
    plan = plan_of(tmp_path, *argv, count=count, comm_overlap=TEXTS["comm_overlap"])
    notes = [note for note in plan.launches[0].notes if "does nothing on a CPU" in note]
    assert len(notes) == told


# the proof in the server's log


def line(rank: int, ranks: int) -> str:
    return f"[2026-11-24 00:00:07 PP{rank}] {sync_send.ACTIVE}: PP rank {rank} of {ranks} ...\n"


OVERLAP = f"[2026-11-24 00:00:07 PP0] {needs.OVERLAP_ON} on a dedicated CUDA stream\n"


@pytest.mark.parametrize(
    ("env", "log", "cuda", "said"),
    [
        ({"REPRO_SHIMS": "sync_send"}, line(0, 2) + line(1, 2), True, None),
        ({"REPRO_SHIMS": "cpu,sync_send"}, line(0, 2), False, "1 of 2 ranks"),
        ({"REPRO_SHIMS": "cpu"}, "", False, None),
        ({"SGLANG_PP_COMM_OVERLAP": "1"}, OVERLAP * 2, True, None),
        ({"SGLANG_PP_COMM_OVERLAP": "true"}, "", True, "0 of 2 ranks"),
        ({"SGLANG_PP_COMM_OVERLAP": "0"}, "", True, None),
        ({"SGLANG_PP_COMM_OVERLAP": "1"}, "", False, None),  # no such stream on a CPU
        ({"REPRO_SHIMS": "comm_stream"}, "", False, None),
        ({"REPRO_SHIMS": "comm_stream"}, "", True, "shim comm_stream asked for, but 0 of 2"),
        ({"REPRO_SHIMS": "event_send"}, line(0, 2) + line(1, 2), True, "0 of 2 ranks"),
        ({"REPRO_SHIMS": "batched_p2p"}, "", False, "shim batched_p2p asked for, but 0 of 2"),
    ],
)
def test_every_rank_must_say_that_it_does_what_was_asked(env, log, cuda, said):
    found = needs.unproven(log, env, 2, cuda)
    assert (said is None) == (found == [])
    assert said is None or said in found[0]


@pytest.mark.parametrize(("lines", "status"), [(2, 0), (1, 1)])
def test_a_case_without_its_remedy_fails_and_the_shims_are_recorded(tmp_path, lines, status):
    log = "".join(line(rank, 2) for rank in range(lines))
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "E_server.log").write_text(log, encoding="utf-8")
    env = {"REPRO_SHIMS": "cpu,sync_send"}
    plan = made_up_run.plan(
        made_up_run.launch("E", case="sync_send", env=env), mode="cpu", profile=False
    )
    run_record.save(logs, plan)
    assert finish_step.main([str(tmp_path), "E"]) == status
    facts = json.loads((logs / "E_launch.json").read_text())
    assert facts["shims"] == {name: shim_names.REASONS[name] for name in ("cpu", "sync_send")}
    assert ("1 of 2 ranks" in facts.get("reason", "")) == (status == 1)


# the table


def test_the_table_says_how_each_case_sends(tmp_path):
    release(tmp_path, "0.5.21", overlap=True)
    texts = {name: text for name, text in TEXTS.items() if name != "comm_stream"}
    plan = plan_of(tmp_path, graphs_on="# label: A\n", **texts)
    assert remarks.remarks(run_summary.summarise(tmp_path, plan))[-5:] == [
        "sglang 0.5.21 (A, CASE_D_async_depth): PP sends are asynchronous: the host does not wait "
        "in the send (in #10865 it does).",
        "sglang 0.5.21 (CASE_C_comm_overlap): PP sends are asynchronous, on a stream of their own.",
        "sglang 0.5.21 (CASE_E_sync_send): PP sends are blocking (shim sync_send).",
        "sglang 0.5.21 (CASE_H_event_send): PP sends are blocking, on events (shim event_send).",
        "sglang 0.5.21 (CASE_J_batched_p2p): PP sends are batched, ranks in step (shim "
        "batched_p2p).",
    ]


def test_of_one_pipeline_rank_the_table_does_not_say_how_it_sends(tmp_path):
    summary = run_summary.summarise(tmp_path, plan_of(tmp_path))
    assert any("PP sends are" in text for text in remarks.remarks(summary))
    for launch in summary["launches"]:
        launch["resolved"] = {"pp_size": 1}  # as the server said; nothing was traced
    assert not any("PP sends are" in text for text in remarks.remarks(summary))


# the whole command


@pytest.mark.launches
@pytest.mark.parametrize("option", [[], ["--dry-run"]])
def test_a_release_without_the_overlap_is_refused_before_anything_starts(harness, option):
    done = harness.run("--cpu", "--cases", "graphs_on,comm_overlap", *option)
    assert done.status == 2 and done.out == ""
    (told,) = done.own_errors
    assert "server_args_comm_overlap.txt: SGLANG_PP_COMM_OVERLAP needs sglang 0.5.21" in told
    assert "this is 0.5.16" in told
    assert harness.files() == set()

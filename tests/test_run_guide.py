"""What a person reads of a run: logs/README.txt, the differences of cases, the dry run."""

from __future__ import annotations

import re
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from plan_harness import BASE, plan_of

from repro_pp_graphs.run import dry_run, overview, plan_step
from repro_pp_graphs.run.folder import guide, results
from repro_pp_graphs.run.plan import options
from repro_pp_graphs.run.plan.planner import FULL_LOAD
from repro_pp_graphs.server.machine import gpus

FOREIGN = {"README.txt"}


def described(name: str, label: str) -> bool:
    """Whether logs/README.txt has a row for a file of that launch."""
    folder, _, name = name.partition("/")
    rows = {"logs": guide.LOGS, "trace": guide.TRACE}[folder]
    patterns = [pattern for names in rows for pattern in names.split(", ")]
    return any(fnmatchcase(name, pattern.replace("LABEL", label)) for pattern in patterns)


@pytest.mark.parametrize("argv", [[], ["--nsys"], ["--no-profile"]])
def test_every_file_that_a_run_leaves_is_described(tmp_path: Path, argv: list[str]):
    plan = plan_of(tmp_path, *argv)
    for launch in plan.launches:
        for name in results.claimed(launch, plan):
            assert described(
                name.replace(".rows.gz", ".rows").replace(".rows", ".rows.gz"), launch.label
            ), name
    for name in results.of_run(plan):
        assert Path(name).name in FOREIGN or described(name, "-"), name


def test_the_probes_files_are_described(tmp_path: Path):
    plan = replace(plan_of(tmp_path), engine="probe")
    for name in results.of_launch(plan.launches[0], plan):
        assert described(name, plan.launches[0].label), name


def test_the_readme_fits_80_columns():
    assert max(map(len, guide.lines())) <= 80


def test_a_model_from_the_hub_is_called_what_was_typed_and_a_folder_by_its_name(tmp_path: Path):
    gpu = gpus.Gpu("0", "", "", 80_000, 0)
    for model, name in (("nosuch/model", "nosuch/model"), (f"{tmp_path}/a/model", "model")):
        plan = plan_of(tmp_path, "--model", model)
        asked = options.parse(["--root", str(tmp_path), "--out", str(tmp_path), "--dry-run"])
        text = " ".join(" ".join(overview.lines(plan, asked, [gpu] * 4)).split())
        assert f" model {name} memory:" in text and f"whether the weights of {name} fit" in text


def shown(folder: Path, plan, *argv: str, goes_on: bool = False) -> str:
    asked = options.parse(["--root", str(folder), "--out", str(folder), "--dry-run", *argv])
    return " ".join(" ".join(overview.lines(plan, asked, goes_on=goes_on)).split())


def test_a_case_is_shown_by_what_it_differs_in(tmp_path: Path):
    plan = plan_of(
        tmp_path,
        graphs_on="# label: A\n--cuda-graph-max-bs 64\n",
        mine="--chunked-prefill-size 2048\nNAME=x\n",
        flags=frozenset({*plan_of.__kwdefaults__["flags"], "--chunked-prefill-size"}),
    )
    text = shown(tmp_path, plan)
    assert "differ: CASE_mine, against A: " in text
    assert "adds --chunked-prefill-size 2048, NAME=x; lacks --cuda-graph-max-bs 64" in text
    assert "--port" not in text


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_further_cases_are_held_against_case_a_whichever_runs_first(tmp_path: Path, order):
    plan = plan_of(
        tmp_path,
        graphs_on="# label: CASE_A_on\n--cuda-graph-max-bs 64\n",
        graphs_off="# label: CASE_B_off\n--disable-cuda-graph\n",
        mine="# label: CASE_C_mine\n--cuda-graph-max-bs 8\n",
    )
    plan.launches = [plan.launches[at] for at in order]
    said = re.findall(r"differ: (\w+), against (\w+):", shown(tmp_path, plan))
    assert said == [("CASE_B_off", "CASE_A_on"), ("CASE_C_mine", "CASE_A_on")]


def test_names_of_files_are_no_difference_of_cases(tmp_path: Path):
    plan = plan_of(tmp_path)
    for launch in plan.launches:
        launch.args += ["--json", f"{tmp_path}/logs/{launch.label}_probe.json"]
    assert "_probe.json" not in shown(tmp_path, plan)


def test_a_rehearsal_says_what_it_leaves_aside(tmp_path: Path):
    plan = plan_of(tmp_path)
    base = "--model-path some/Model-70B\n--pp-size 3\n--tp-size 2\n"
    (tmp_path / "server_args_base.txt").write_text(base)
    aside = "in place of some/Model-70B, pp 3 x tp 2 (server_args_base.txt)"
    rehearsal = replace(plan, mode="cpu")
    assert aside in shown(tmp_path, rehearsal)
    assert "--dry-run --gpus 6" in shown(tmp_path, rehearsal)
    assert aside not in shown(tmp_path, replace(plan, mode="gpu"))
    assert aside not in shown(tmp_path, rehearsal, "--model", "x/y", "--pp-size", "2")


def test_the_shim_that_is_on_by_default_is_named(tmp_path: Path):
    assert "shim pp_clock; --no-pp-clock" in shown(tmp_path, plan_of(tmp_path))
    assert "pp_clock" not in shown(tmp_path, plan_of(tmp_path, "--no-pp-clock"))


def timed(folder: Path, plan, *asked: str, goes_on: bool = False) -> str:
    """The plan's words on how long it takes."""
    text = shown(folder, plan, *asked, goes_on=goes_on)
    found = re.search(r" time: (.*?) (?:verdict|clock|leaves): ", text)
    return found[1] if found else ""


def test_a_plan_tells_about_how_long_its_servers_take_and_what_comes_on_top(tmp_path: Path):
    # 256 tokens of 100 ms, four ranks: three passes 77 s, six 154 s; two servers, with starts and
    # profiles
    once = timed(tmp_path, plan_of(tmp_path))
    assert once.startswith(
        "about 5 to 11 min for 2 servers, one after another; on top of that: each start loads 141 "
    )
    assert (
        "Each server: its load 80 s to 3 min (3 to 6 passes at an assumed 100 ms a token, " in once
    )
    assert once.endswith("a profile with its analysis 15 to 25 s, as on H100s and H200s")
    unprofiled = timed(tmp_path, plan_of(tmp_path, "--no-profile"))
    assert "profile" not in unprofiled and "after the download where there is one" in unprofiled
    rounds = plan_of(tmp_path, "--rounds", "3")
    assert timed(tmp_path, rounds).startswith("about 18 to 38 min for 8 servers, one after another")
    notes = shown(tmp_path, rounds)
    assert notes[notes.index("note: ") :].startswith("note: --rounds 3 is made 4: ")
    said = timed(tmp_path, plan_of(tmp_path, "--sweep", "batch=4,16", "--rounds", "4"))
    assert "its loads 3 to 5 min" in said and "passes of each" in said
    assert said.startswith("about 28 to 59 min for 8 servers, one after another")
    dummy = timed(tmp_path, plan_of(tmp_path, "--dummy-weights"))
    assert "loads" not in dummy and "141 GB" not in dummy
    other = timed(tmp_path, plan_of(tmp_path, "--model", "somebody/else"))
    assert "its weights, whose size is not known here" in other
    on_cpu = timed(tmp_path, replace(rounds, mode="cpu"))
    assert "at an assumed 100 ms a token" in on_cpu and "H100" not in on_cpu
    assert timed(tmp_path, replace(rounds, engine="probe")) == ""
    assert timed(tmp_path, rounds, "--resume").startswith("about 18 to 38 min for 8 servers")
    assert timed(tmp_path, rounds, "--resume", goes_on=True) == ""  # its launches tell, later


def test_a_renamed_argument_that_is_set_by_itself_has_a_note_too(tmp_path: Path):
    flags = plan_of.__kwdefaults__["flags"]
    old = (flags - {"--pp-max-micro-batch-size"}) | {"--max-micro-batch-size"}
    renamed = "--pp-max-micro-batch-size is passed as --max-micro-batch-size, its name in sglang"
    assert renamed in shown(tmp_path, plan_of(tmp_path, release="0.5.2", flags=old))
    assert renamed not in shown(tmp_path, plan_of(tmp_path))


def test_what_cases_differ_in_has_the_names_of_their_files_too(tmp_path: Path):
    flags = plan_of.__kwdefaults__["flags"] - {"--cuda-graph-max-bs"}
    flags |= {"--cuda-graph-max-bs-decode", "--chunked-prefill-size"}
    own = {"graphs_on": CHUNKED["graphs_on"], "mine": "--chunked-prefill-size 2048\n"}
    new = plan_of(tmp_path, flags=flags, **own)
    said = "lacks --cuda-graph-max-bs-decode 64 (--cuda-graph-max-bs in graphs_on's argument files)"
    assert said in shown(tmp_path, new)
    assert "lacks" not in shown(tmp_path, plan_of(tmp_path))  # graphs_off has no graphs to size
    assert "argument files)" not in shown(tmp_path, plan_of(tmp_path))


CHUNKED = {
    "graphs_on": "# label: A\n--cuda-graph-max-bs 64\n",
    "mine": "--cuda-graph-max-bs 64\n--chunked-prefill-size 2048\n",
}


def notes_of(folder: Path, *argv: str, base: str = BASE, **cases: str) -> list[str]:
    """The notes on a length that the load does not reach, beside 30 prompts of 100 bytes
    and a long one."""
    (folder / "prompts.txt").write_text(f"{'x' * 100}\n\n" * 30 + "x" * 9999, encoding="utf-8")
    flags = plan_of.__kwdefaults__["flags"] | {"--chunked-prefill-size", "--context-length"}
    plan = plan_of(folder, *argv, base=base, flags=flags, **(cases or CHUNKED))
    return [note for note in overview.notes(plan) if "is not reached" in note]


def test_a_chunk_that_the_loads_prompts_do_not_reach_is_named_with_a_load_that_does(tmp_path: Path):
    (note,) = notes_of(tmp_path)  # 16 prompts of 100 bytes, and what stands around each
    assert note.startswith("mine: --chunked-prefill-size 2048 is not reached: ")
    assert "1,632 tokens at most in all" in note and "--sweep input_len=4096" in note
    assert notes_of(tmp_path, "--batch", "20") != []
    assert notes_of(tmp_path, "--sweep", "rate=1") == []  # any of the prompts may come
    assert notes_of(tmp_path, "--batch", "21") == []  # 2,142 bytes: it cannot be told
    assert notes_of(tmp_path, "--sweep", "input_len=4096") == []
    assert notes_of(tmp_path, "--sweep", "mix=none,4000@2") == []
    assert notes_of(tmp_path, "--sweep", "batch=4,64") == []
    same = {name: f"{text}--chunked-prefill-size 2048\n" for name, text in CHUNKED.items()}
    same["mine"] = CHUNKED["mine"]
    assert notes_of(tmp_path, **same) == []  # no difference of the cases
    off = {**CHUNKED, "mine": CHUNKED["mine"].replace("2048", "-1")}
    assert notes_of(tmp_path, **off) == []


def test_the_load_that_reaches_a_chunk_fits_into_the_kv_cache_and_is_kept_in_the_plan(
    tmp_path: Path,
):
    base = f"{BASE}--max-total-tokens 20000\n"  # 4,096 tokens and 256 new ones, four times
    (note,) = notes_of(tmp_path, base=base)
    assert note.endswith("--sweep input_len=4096 --batch 4 (more do not fit into the KV cache)")
    (note,) = notes_of(tmp_path, base=f"{BASE}--max-total-tokens 4351\n")  # not once
    assert note.endswith("--sweep input_len=4096")
    flags = plan_of.__kwdefaults__["flags"] | {"--chunked-prefill-size"}
    first, mine = (made := plan_of(tmp_path, flags=flags, **CHUNKED)).launches
    assert (first.caveats, made.reaching) == ([], "input_len=4096")
    assert mine.caveats[0].startswith("--chunked-prefill-size 2048 is not reached: ")
    short = plan_of(tmp_path, "--sweep", "input_len=10", flags=flags, **CHUNKED)
    assert short.launches[1].caveats and short.reaching == ""  # it has such an axis


def test_the_load_that_reaches_a_chunk_fits_into_the_models_context(tmp_path: Path):
    (note,) = notes_of(tmp_path, base=f"{BASE}--context-length 3000\n")
    assert note.endswith(f"--sweep input_len={3000 - 256 - 64}")
    (note,) = notes_of(tmp_path, base=f"{BASE}--context-length 2200\n")
    assert note.endswith(" in all, and the model's context has no room for longer ones")


def test_a_chunk_that_may_cut_the_loads_prefills_is_named_before_the_run(tmp_path: Path):
    flags = plan_of.__kwdefaults__["flags"] | {"--chunked-prefill-size"}
    (tmp_path / "prompts.txt").write_text("x" * 98, encoding="utf-8")  # 16 times, and 2 tokens each

    def cut(size: int) -> list[str]:
        mine = CHUNKED["mine"].replace("2048", str(size))
        plan = plan_of(tmp_path, flags=flags, graphs_on=CHUNKED["graphs_on"], mine=mine)
        return [note for note in overview.notes(plan) if "may cut" in note]

    (note,) = cut(1600)
    assert note.startswith("mine: --chunked-prefill-size 1600 may cut this load's prefills")
    assert "1,600 tokens at most in all" in note
    assert cut(1601) == []  # that one is not reached, which another sentence says


def test_a_case_that_leaves_the_sizes_of_graphs_to_sglang_is_told_so(tmp_path: Path):
    flags = plan_of.__kwdefaults__["flags"] | {"--chunked-prefill-size", "--cuda-graph-bs"}
    flags |= {"--cuda-graph-config"}
    own = "--chunked-prefill-size 2048\n"

    def left(mine: str, first: str = CHUNKED["graphs_on"]) -> list[str]:
        plan = plan_of(tmp_path, flags=flags, graphs_on=first, mine=mine)
        return [note for note in overview.notes(plan) if "is left to sglang" in note]

    (note,) = left(own)
    assert note.startswith("mine: ") and "graphs_on says it (--cuda-graph-max-bs 64)" in note
    assert "server_args_graphs_on.txt into server_args_mine.txt" in note
    assert left(CHUNKED["mine"]) == left(f"{own}--cuda-graph-bs 1 2 16\n") == []
    assert left(f"{own}--cuda-graph-config {{}}\n") == []
    assert left(f"{own}--disable-cuda-graph\n") == left(own, first="# label: A\n") == []


def test_a_later_round_is_not_printed_again(tmp_path: Path):
    plan = plan_of(tmp_path)
    again = [replace(one, label=f"{one.label}_r2") for one in plan.launches]
    twice = replace(plan, launches=[*plan.launches, *again])
    asked = options.parse(["--root", str(tmp_path), "--out", str(tmp_path), "--dry-run"])
    lines = dry_run.lines(twice, asked)
    assert "# B_r2: as B, with files of its own" in lines
    assert sum(line.startswith("exec ") for line in lines) == 2
    profiled = "# then the load that is profiled, ended once the traces are whole:"
    assert lines.count(profiled) == 2 * twice.profile
    unprofiled = dry_run.lines(replace(twice, profile=False), asked)
    assert twice.profile and profiled not in unprofiled


def test_a_dry_run_takes_gpus_that_are_not_there(tmp_path: Path):
    asked = options.parse(["--dry-run", "--gpus", "8"])
    seen = plan_step._gpus(asked)
    assert len(seen.gpus) == 8 and "assumed" in seen.remark
    assert len({gpu.uuid for gpu in seen.gpus}) == 8


def test_the_docs_own_case_is_beside_a_load_that_reaches_what_it_changes():
    root = Path(guide.__file__).parents[3]
    text = (root / "docs" / "cases_and_releases.md").read_text("utf-8")
    chunk = int(re.findall("--chunked-prefill-size ([0-9]+)", text)[0])
    prompts = (root / "prompts.txt").read_text("utf-8").splitlines()[: FULL_LOAD[0]]
    assert len(prompts) == FULL_LOAD[0]
    in_all = sum(len(line.encode()) for line in prompts)  # no tokenizer makes more of them
    assert f"{in_all:,} bytes in all" in text and in_all < chunk
    swept = re.findall(r"run_repro.sh --cases graphs_on,chunked (--sweep \S+)", text)
    lengths = [options.parse(["--", *words.split()]).sweep for words in swept]
    assert [*lengths[0].values()] == [["4000"]] and lengths[1] == {"mix": ["none", "4000@2"]}
    assert chunk < 4000


def test_one_load_of_a_sweep_is_one_load(tmp_path: Path):
    said = shown(tmp_path, plan_of(tmp_path, "--sweep", "input_len=4000"))
    assert "sweep: one load on every server: input 4000 " in said
    said = shown(tmp_path, plan_of(tmp_path, "--sweep", "input_len=100,4000"))
    assert "sweep: 2 loads on every server, in an order that is drawn for each round" in said


ON, OFF = "# label: A\n--cuda-graph-max-bs 64\n", "# label: B\n--disable-cuda-graph\n"


@pytest.mark.parametrize(
    ("cases", "says"),
    [
        ({"graphs_on": ON, "graphs_off": OFF}, "without CUDA graphs: both cases are the same "),
        ({"graphs_on": ON, "mine": ON.replace("A", "M")}, "graphs: both cases are the same "),
        ({"graphs_on": ON, "mine": "--chunked-prefill-size 2048\n"}, ""),
        ({"graphs_on": ON, "mine": "NAME=x\n"}, ""),
        ({"graphs_on": ON, "mine": f"{OFF}--chunked-prefill-size 2048\n"}, ""),
        ({"graphs_on": ON}, ""),
        (
            {"graphs_on": ON, "graphs_off": OFF, "mine": "--chunked-prefill-size 2048\n"},
            "graphs: A, B are the same ",
        ),
        (
            {"graphs_on": ON, "graphs_off": OFF, "mine": "--cuda-graph-max-bs 8\n"},
            "graphs: all cases are the same ",
        ),
    ],
)
def test_a_rehearsal_says_that_cases_are_the_same_where_they_are(tmp_path: Path, cases, says):
    flags = frozenset({*plan_of.__kwdefaults__["flags"], "--chunked-prefill-size"})
    text = shown(tmp_path, plan_of(tmp_path, "--cpu", flags=flags, count=0, **cases))
    assert "REHEARSAL on the CPU: the real server without CUDA graphs" in text
    assert ("the same " in text) == bool(says) and says in text


def test_a_rehearsal_with_another_way_to_send_is_not_one_case_twice(tmp_path: Path):
    plan = plan_of(tmp_path, "--cpu", count=0, graphs_on=ON, graphs_off=OFF)
    plan.launches[1].env["REPRO_SHIMS"] += ",sync_send"
    assert "the same " not in shown(tmp_path, plan)


def test_a_label_of_one_letter_hides_no_argument(tmp_path: Path):
    plan = plan_of(tmp_path, graphs_on=ON, mine="# label: E\nNAME=x\n--cuda-graph-max-bs 64\n")
    assert "adds NAME=x" in shown(tmp_path, plan)


def seen_of(*words: str) -> gpus.Seen:
    return plan_step._gpus(options.parse(["--dry-run", *words]))


def test_the_memory_of_gpus_that_are_not_there_is_theirs():
    plain, large = seen_of("--gpus", "8"), seen_of("--gpus", "8x141")
    assert {gpu.total_mib for gpu in plain.gpus} == {81559}
    assert seen_of("--gpus", "8x80").gpus == plain.gpus
    # an H200 has 143771 MiB
    assert {gpu.total_mib for gpu in large.gpus} == {143747}
    assert len(large.gpus) == 8 and "8 of 141 GB assumed" in large.remark
    assert "as sold: 143747 MiB, 150.7 GB of 10^9 bytes" in large.remark


def test_more_gpus_than_a_machine_has_are_planned_with_a_word_on_nodes():
    assert "--nodes" not in seen_of("--gpus", "8").remark
    assert "all in one machine; in several: --nodes" in seen_of("--gpus", "16").remark
    each = seen_of("--nodes", "2", "--gpus", "16")
    assert each.remark.endswith("on each of 2 nodes") and len(each.gpus) == 16
    of_slurm = seen_of("--gpus", "8", "--allocated", "2")
    assert of_slurm.remark.endswith("on each of 2 nodes") and len(of_slurm.gpus) == 8
    assert "node" not in seen_of("--nodes", "1", "--gpus", "8").remark


@pytest.mark.parametrize(
    ("word", "says"),
    [
        *((word, "8, or 8x141") for word in ("8x", "x141", "8x141GB", "8xH200", "8x80x2", "8x-1")),
        *((word, "8, or 8x141") for word in ("8x1.5", " 8x80", "8x٣")),
        *((word, "8X141: not a whole number") for word in ("8X141",)),
        ("8x0", "8x0: 0: not a whole number"),
        ("0x80", "0x80: 0: not a whole number"),
        ("8x4096", "the highest is 2048"),
        ("4096x8", "the highest is 1024"),
        ("4096", "the highest is 1024"),
        ("9" * 5000 + "x80", "999"),
    ],
)
def test_gpus_that_make_no_sense_are_refused_in_a_sentence(word, says, capsys):
    with pytest.raises(SystemExit) as refused:
        options.parse(["--dry-run", "--gpus", word])
    assert refused.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert says in said and len(said) < 240


def test_gpus_are_assumed_in_a_dry_run_only(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as refused:
        options.parse(["--", "--gpus", "8"])
    assert refused.value.code == 2
    assert re.search("--gpus is for --dry-run", capsys.readouterr().err)

"""Servers that would die of their attention backend: refused by the sources, not by a number."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
from collections import UserList
from itertools import pairwise
from pathlib import Path

import pytest
from fake_sglang.harness import free_port
from plan_harness import BASE, FLAGS, plan_of

from repro_pp_graphs.run import make_plan, plan_step
from repro_pp_graphs.run.folder import lock
from repro_pp_graphs.run.plan import options as run_options
from repro_pp_graphs.run.plan import ways_out
from repro_pp_graphs.run.plan.refusal import PlanError
from repro_pp_graphs.server.machine.gpus import Gpu
from repro_pp_graphs.server.release import pp_attention
from repro_pp_graphs.server.release.installed import Release

TRITON = f"{BASE}--attention-backend triton\n"
FAULT = "self.v_head_dim = pool.get_value_buffer({}).shape[-1]\n"
DIES = "would die as it starts"


class Buffers(UserList[str]):
    """A rank's KV buffers as sglang's pool has them: counted from its first layer."""

    first = 0

    def get_value_buffer(self, layer: int) -> str:
        return self.data[layer - self.first]


@pytest.mark.parametrize(
    "split",
    [
        *([20, 20, 20, 20], [40, 40], [20, 20, 40], [1, 1, 3], [1, 1, 1], [10, 10, 19], [80]),
        *([31, 30], [30, 31], [2, 1], [15, 15, 15, 16], [5, 6, 11]),
    ],
)
def test_a_rank_fails_where_python_finds_no_such_buffer(split: list[int]):
    failing = []
    for rank, layers in enumerate(split):
        pool = Buffers(["buffer"] * layers)
        pool.first = sum(split[:rank])
        try:
            pool.get_value_buffer(0)
        except IndexError:
            failing.append(rank)
    assert pp_attention.failing_rank(split) == next(iter(failing), None)


def installed(folder: Path, layer: str, file: str = "triton_backend.py") -> None:
    """An sglang whose backend asks for that layer's buffer."""
    path = folder / "sglang" / "srt" / "layers" / "attention" / file
    path.parent.mkdir(parents=True)
    path.write_text(FAULT.format(layer), encoding="utf-8")


def notes_of(folder: Path, *argv: str, **given) -> str:
    plan = plan_of(folder, *argv, **given)
    return " ".join(note for launch in plan.launches for note in launch.notes)


@pytest.mark.parametrize("release", ["0.5.2", "0.5.16", "0.5.17"])
def test_more_than_two_ranks_are_refused_with_what_works(tmp_path, release):
    with pytest.raises(PlanError) as refused:
        plan_of(tmp_path, base=TRITON, release=release)
    text = str(refused.value)
    assert f"sglang {release} {DIES}" in text and "PP rank 2" in text and "get_value_buffer" in text
    assert "--attention-backend flashinfer in the argument files" in text
    assert "--pp-size 2" in text
    for argv, base in ((("--pp-size", "2"), TRITON), ((), f"{BASE}--attention-backend flashinfer")):
        assert "get_value_buffer" not in notes_of(tmp_path, *argv, base=base, release=release)


@pytest.mark.parametrize("release", ["0.5.18", "0.5.21", "0.5.23"])
def test_releases_that_mend_it_are_planned_without_a_word(tmp_path, release):
    assert "get_value_buffer" not in notes_of(tmp_path, base=TRITON, release=release)


def test_a_patched_copy_of_an_old_release_is_planned(tmp_path):
    installed(tmp_path, "pool.start_layer")
    assert "get_value_buffer" not in notes_of(tmp_path, base=TRITON, release="0.5.16")


def test_a_new_release_whose_sources_have_the_fault_is_refused(tmp_path):
    installed(tmp_path, " 0 ")
    with pytest.raises(PlanError, match=DIES):
        plan_of(tmp_path, base=TRITON, release="0.5.23")


@pytest.mark.parametrize("option", ["--decode-attention-backend", "--prefill-attention-backend"])
def test_a_backend_of_one_phase_alone_counts_too(tmp_path, option):
    with pytest.raises(PlanError, match=DIES):
        plan_of(tmp_path, base=f"{BASE}{option} triton\n", release="0.5.2", flags=FLAGS | {option})


def test_an_uneven_split_over_two_ranks_dies_too(tmp_path):
    base = f"{TRITON}SGLANG_PP_LAYER_PARTITION=41,39\n"
    with pytest.raises(PlanError, match="PP rank 1 does not hold"):
        plan_of(tmp_path, "--pp-size", "2", base=base, release="0.5.16")
    even = base.replace("41,39", "39,41")
    plan_of(tmp_path, "--pp-size", "2", base=even, release="0.5.16")


def test_of_a_model_that_is_not_known_a_note_says_what_may_happen(tmp_path):
    text = notes_of(tmp_path, "--model", "some/model", base=TRITON, release="0.5.16")
    assert "sglang 0.5.16 may die as it starts" in text


def test_without_a_release_a_note_says_which_would_die(tmp_path):
    text = notes_of(tmp_path, base=TRITON, release=None)
    assert "where its sglang is older than 0.5.18 the server may die" in text


@pytest.mark.parametrize(
    ("name", "mib", "said"),
    [
        ("NVIDIA A100-SXM4-80GB", 81920, True),
        ("NVIDIA H100 80GB HBM3", 81559, False),
        ("NVIDIA H200", 143771, False),
        ("NVIDIA B200", 183359, False),
        ("141 GB (assumed)", 143747, False),  # no GPU before Hopper has as much
    ],
)
def test_what_sglang_picks_by_itself_is_a_note(tmp_path, name, mib, said):
    (tmp_path / "server_args_base.txt").write_text(BASE, encoding="utf-8")
    (tmp_path / "server_args_one.txt").write_text("", encoding="utf-8")
    argv = ["--root", str(tmp_path), "--out", str(tmp_path), "--python", "p", "--cases", "one"]
    options = run_options.parse([*argv, "--model", "deepseek-ai/DeepSeek-V3"])
    found = [Gpu(str(n), f"G{n}", name, mib, 0) for n in range(4)]
    release = Release("0.5.2", FLAGS, tmp_path / "sglang")
    plan = make_plan.make(options, found, None, lambda python, env: release)
    assert (
        any("takes triton for this model by itself" in text for text in plan.launches[0].notes)
        is said
    )


def test_a_backend_of_the_base_file_holds_on_shared_gpus_too(tmp_path):
    base = f"{BASE}--attention-backend flashinfer\n"
    (first, *_) = plan_of(tmp_path, "--one-gpu", count=1, base=base).launches
    assert first.args[first.args.index("--attention-backend") + 1] == "flashinfer"


REPO = Path(__file__).resolve().parents[1]
# what is refused for its GPUs or its release, and offers options
REFUSED = [
    ("--gpus", "1"),
    ("--gpus", "2"),
    ("--gpus", "2", "--release", "0.5.16"),
    ("--gpus", "3", "--release", "0.5.6.post2"),
    ("--gpus", "1", "--ranks-per-gpu", "4", "--dummy-weights", "--layers", "16"),
    ("--gpus", "1", "--one-gpu", "--dummy-weights"),
    ("--gpus", "2x141", "--ranks-per-gpu", "2", "--release", "0.5.16"),
    ("--gpus", "4x24", "--pp-size", "8"),
    ("--gpus", "4x141", "--model", "deepseek-ai/DeepSeek-V3", "--pp-size", "8"),
]


def followed(given: tuple[str, ...], offer: str, folder: Path) -> list[str]:
    """The command with what a refusal offers; in `folder` its argument files."""
    words = offer.partition(" (")[0].split(" and ")
    if words == ["--cpu alone"]:
        return ["--cpu"]
    for text in words:
        if text.startswith((pp_attention.OPTION, "--tensor-parallel-size", "--mem-fraction")):
            argument = re.sub(" in (the argument files|server_args_base.txt)$", "", text)
            assert argument != text
            base = folder / "server_args_base.txt"
            base.write_text(f"{base.read_text('utf-8')}\n{argument}\n", encoding="utf-8")
        else:
            given = (*given, *text.split())
    return list(given)


def planned(folder: Path, words: list[str]) -> tuple[int, str]:
    """Exit status and complaint of a dry run in a checkout whose argument files are in `folder`, as
    run_repro.sh has it planned where no environment is made yet."""
    made = "0.5.21" if "--cpu" in words else "0.5.2"
    release = dict(pairwise(words)).get("--release", made)  # the last one, as run_repro.sh has it
    own = ["--root", str(folder), "--out", str(folder), "--not-made", release, "--python"]
    own += [str(folder / f".venv-{release}/bin/python"), "--found-by=", "--dry-run"]
    own += ["--port", str(free_port())]  # somebody's server may listen at the default one
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = plan_step.main([*own, *words])
    said = " ".join(line.strip() for line in err.getvalue().splitlines())
    return status, said + out.getvalue()[-1500:] * (status != 0)


def checkout(folder: Path) -> Path:
    folder.mkdir()
    for path in REPO.iterdir():
        if path.name.startswith("server_args_"):
            (folder / path.name).write_bytes(path.read_bytes())
        elif path.name in ("requirements", "prompts.txt", "client_benchmark.py"):
            (folder / path.name).symlink_to(path)
    return folder


@pytest.mark.parametrize(
    "given",
    [
        ("--gpus", "2", "--pp-size", "2"),
        ("--gpus", "1", "--one-gpu", "--dummy-weights", "--release", "0.5.23"),
        ("--gpus", "4x24", "--dummy-weights"),
        ("--gpus", "2", "--pp-size", "2", "--model", "deepseek-ai/DeepSeek-V3"),
    ],
    ids=" ".join,
)
def test_the_layers_that_a_refusal_by_memory_names_are_planned(tmp_path, given):
    folder = checkout(tmp_path / "refused")
    status, said = planned(folder, list(given))
    # above the commands and behind them
    assert status == 2 and "stops:" in said and "# would stop the run:" in said
    found = re.search(r"or ((?:--dummy-weights )?--layers )(\d+)( or fewer| \(|$| )", said)
    assert found, said
    words, most = found[1].split(), int(found[2])
    status, again = planned(folder, [*given, *words, str(most)])
    assert status == 0 and "stops:" not in again, again
    status, again = planned(folder, [*given, *words, str(most + 1)])
    assert status == 2 and "stops:" in again, again


@pytest.mark.parametrize("given", REFUSED, ids=" ".join)
def test_every_command_that_a_refusal_offers_is_planned(tmp_path, given):
    status, said = planned(checkout(tmp_path / "refused"), list(given))
    assert status == 2, said
    offers = said.partition(": use ")[2].split(", or ")
    assert len(offers) > 1, said
    for number, offer in enumerate(offers):
        folder = checkout(tmp_path / str(number))
        status, again = planned(folder, followed(given, offer, folder))
        assert status == 0, (offer, again)
        assert "die as it starts" not in again


DEEPSEEK = ("--model", "deepseek-ai/DeepSeek-V3")
PLACED = re.compile(r"(?:split|GPUs) \((?:(\d+) of these(?: on each node)?: )?(--[^)]+)\)")


@pytest.mark.parametrize(
    ("gpus", "more", "ways"),
    [
        ("8x141", ("--pp-size", "8"), 2),  # the layers of 0.5.2's last rank do not fit
        ("8x141", (), 1),  # four of the eight are used
        ("8", ("--pp-size", "8"), 1),
        ("4", ("--nodes", "2", "--pp-size", "8"), 1),
    ],
)
def test_a_refusal_by_memory_names_splits_that_fit(tmp_path, gpus, more, ways):
    status, said = planned(checkout(tmp_path / "refused"), ["--gpus", gpus, *DEEPSEEK, *more])
    assert status == 2, said
    found = PLACED.search(said)
    assert found, said
    offers = found[2].split(", or ")
    assert len(offers) == ways, said
    for number, offer in enumerate(offers):
        folder = checkout(tmp_path / str(number))
        words = followed((*DEEPSEEK, *more, "--gpus", found[1] or gpus), offer, folder)
        status, again = planned(folder, words)
        assert status == 0 and "stops:" not in again, (offer, again)


def test_where_no_split_fits_none_is_offered(tmp_path):
    status, said = planned(checkout(tmp_path / "refused"), ["--gpus", "2", "--pp-size", "2"])
    assert status == 2 and "--mem-fraction-static in server_args_base.txt (0.89 leaves" in said, (
        said
    )
    assert "another split" not in said


def test_the_whole_model_is_offered_before_fewer_layers_of_it(tmp_path):
    _, said = planned(checkout(tmp_path / "refused"), ["--gpus", "2"])
    whole = "use --pp-size 2 and --mem-fraction-static 0.89 in server_args_base.txt, or --pp-size 2"
    assert f"{whole} --dummy-weights --layers 77, or " in said, said


def test_the_most_layers_that_pass_are_offered_also_where_some_fewer_do_not(tmp_path):
    """As on eight ranks of 0.5.2, whose last one has 9 + 7 of 79 layers, 9 of 72."""
    given = ("--root", str(tmp_path), "--out", str(tmp_path), "--python", sys.executable)
    options = run_options.parse([*given, "--pp-size", "8"])
    refused = ways_out.Unfit("too much", "meta-llama/Llama-3.1-70B-Instruct", (8, 1))
    good = {*range(8, 20), 64, 65, 72}
    said = ways_out.offers(options, refused, 8, lambda changed: changed.layers in good)
    assert "--dummy-weights --layers 72" in said, said
    said = ways_out.offers(options, refused, 8, lambda changed: changed.layers == 72)
    assert "--layers" not in said, "where not even one a rank passes, it is not for the layers"


def test_no_two_gpus_are_offered_where_the_whole_model_passes_on_more(tmp_path):
    _, said = planned(checkout(tmp_path / "refused"), ["--gpus", "16", "--pp-size", "100"])
    assert "use --pp-size 16, or " in said and "--pp-size 2" not in said, said


def test_of_an_impossible_split_no_size_is_told(tmp_path):
    status, said = planned(checkout(tmp_path / "it"), ["--gpus", "100", "--pp-size", "100"])
    assert status == 2 and "Llama-3.1-70B-Instruct has 80 layers, and every rank" in said
    assert "do not fit" not in said and said.count("stops:") == 1, said
    assert "its layers cannot be split so" in said


def test_a_plan_into_a_folder_that_holds_a_run_says_what_becomes_of_that(tmp_path):
    folder = checkout(tmp_path / "it")
    given = ["--cpu", "--rounds", "2"]
    assert "aside:" not in planned(folder, given)[1]
    (folder / "logs").mkdir()
    kept = {"began": "2026-11-24 03:15:00"}
    (folder / "logs" / "run.json").write_text(json.dumps(kept))
    own = ["--root", str(folder), "--out", str(folder), "--not-made", "0.5.2", "--found-by="]
    asked = run_options.parse([*own, "--dry-run", "--", *given, "--dry-run"])
    (text,) = plan_step._moved_aside(asked)
    assert f"{folder} holds a run begun 2026-11-24 03:15:00: a real run moves it" in text
    assert text.endswith(f"{folder / 'previous'}")  # it does not say how it was called
    command = ["bash", "run_repro.sh", "--batch", "8", "--resume", "--out", "a b"]
    (folder / "logs" / "run.json").write_text(json.dumps({**kept, "command": command}))
    (text,) = plan_step._moved_aside(asked)  # as that was called, not as this one is
    assert text.endswith("to go on with it: bash run_repro.sh --batch 8 --out 'a b' --resume")
    for complete, offered in ((False, True), (True, False)):
        (folder / "logs" / "summary.json").write_text(json.dumps({"complete": complete}))
        assert ("to go on with it" in plan_step._moved_aside(asked)[0]) == offered
    assert "aside:" in planned(folder, given)[1]
    assert plan_step._moved_aside(asked._replace(resume=True)) == []
    assert "aside:" not in planned(folder, ["--gpus", "4"])[1], "planned for another machine"
    lock.take(folder, os.getpid())  # a run that is at work there is not moved, nor gone on with
    text = " ".join(planned(folder, given)[1].split())
    assert "aside:" not in text and "is at work there: wait for it, or choose another" in text

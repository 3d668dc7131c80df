"""The options of run_repro.sh: read once, complained of in one line."""

from __future__ import annotations

import pytest
from plan_harness import plan_of

from repro_pp_graphs.client import options as client_options
from repro_pp_graphs.run.plan import hints
from repro_pp_graphs.run.plan import options as run_options


def parse(*users: str) -> run_options.Options:
    own = ["--root", "/root", "--out", "/results", "--python", "/p", "--command", "./run_repro.sh"]
    return run_options.parse([*own, "--", *users])


@pytest.mark.parametrize(
    ("users", "told"),
    [
        (["--nope"], "no option '--nope' (see --help)"),
        (["--nope=1"], "no option '--nope' (see --help)"),
        (["stray"], "no option 'stray' (see --help); options begin with --, as --cases NAME"),
        (["--profile", "x"], "no option '--profile' (see --help)"),  # no abbreviations
        (["--batch"], "--batch needs a value (see --help)"),
        (["--model"], "--model needs a value (see --help)"),
        (["--rounds"], "--rounds needs a value (see --help)"),
        (["--batch", "many"], "--batch many: not a whole number of 1 or more"),
        (["--batch", "0"], "--batch 0: not a whole number of 1 or more"),
        (["--batch", "-1"], "--batch -1: not a whole number of 1 or more"),
        (["--batch", "1.5"], "--batch 1.5: not a whole number of 1 or more"),
        (["--batch", "²"], "--batch ²: not a whole number of 1 or more"),
        (["--pp-size", ""], "--pp-size : not a whole number of 1 or more"),
        (["--rounds", "0"], "--rounds 0: not a whole number of 1 or more"),
        (["--rounds", "4+"], "--rounds 4+: not a whole number of 1 or more"),
        (["--rounds", "4+0"], "--rounds 4+0: not a whole number of 1 or more"),
        (["--port", "70000"], "--port 70000: the highest is 65535"),
        (["--port", "9" * 4000], f"--port {'9' * 40}...: the highest is 65535"),
        (["--batch", "1000000000"], "--batch 1000000000: the highest is 65536"),
        (["--pp-size", "100000"], "--pp-size 100000: the highest is 1024"),
        (["--rounds", "1001"], "--rounds 1001: the highest is 1000"),
        (["--rounds", "999+2"], "--rounds 999+2: the highest is 1000 in all"),
        (["--start-timeout", "9" * 30], f"--start-timeout {'9' * 30}: the highest is 604800"),
        (["--layers", "1_0"], "--layers 1_0: not a whole number of 1 or more"),
        (["--gpus", "٣"], "--gpus ٣: not a whole number of 1 or more"),
        (["--modle", "x"], "no option '--modle' (see --help); did you mean --model?"),
        (["--model-path", "x"], "no option '--model-path' (see --help); here it is --model NAME"),
        (
            ["--pipeline-parallel-size", "2"],
            "no option '--pipeline-parallel-size' (see --help); here it is --pp-size N",
        ),
        (
            ["--ep-size", "2"],
            "no option '--ep-size' (see --help); it is an argument of sglang: ",
        ),
        (
            ["--tensor-parallel-size=2"],
            "no option '--tensor-parallel-size' (see --help); here it is --tp-size N",
        ),
        (["--api-key=hunter2"], "no option '--api-key' (see --help)"),
        (["--model", "a\x1b[31mb"], r"'a\x1b[31mb': it holds a control character"),
        (["--model", "a\nb"], "'a b': it holds a control character"),
        (["--model", "a" * 5000], f"'{'a' * 40}': it is too long"),
        (["--model", "a\udcffb"], r"'a\udcffb': it holds bytes that are no UTF-8"),
        (["--port", "x"], "--port x: not a whole number of 1 or more"),
        (["--start-timeout", "soon"], "--start-timeout soon: not a whole number of 1 or more"),
        (["--engine", "vllm"], "--engine vllm: sglang, or probe (the PP ring without sglang)"),
    ],
)
def test_a_bad_option_is_one_line_and_exit_2(users, told, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(*users)
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    said = " ".join(printed.err.split())
    assert said.startswith(f"run_repro.sh: {told}") and "usage" not in said


def complaint(capsys: pytest.CaptureFixture[str], *users: str) -> str:
    with pytest.raises(SystemExit) as ended:
        parse(*users)
    assert ended.value.code == 2
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("users", "hint"),
    [
        (["--input-len", "4000"], "--sweep input_len=4000"),
        (["--input-len=512"], "--sweep input_len=512"),
        (["--batch", "4", "--input-len", "512", "--cpu"], "--sweep input_len=512"),
        (["--input-len", "many"], "--sweep input_len=4000"),
        (["--input-len"], "--sweep input_len=4000"),
        (["--concurrency", "64"], "--batch 64"),
        (["--num-prompts", "32"], "--batch 32"),
        (["--rate", "2.5"], "--sweep rate=2.5"),
        (["--request-rate", "inf"], "--sweep rate=4"),
        (["--output-len", "96"], "--max-new-tokens 96"),
        (["--prompts", "mine.txt"], "prompts.txt beside run_repro.sh"),
        (["--beside-rate", "2"], "--sweep mix=none,4000@2"),
        (["--seed", "7"], "client_benchmark.py has it"),
        (["--base-url", "http://a:b@c:1"], "--attach URL"),
    ],
)
def test_an_option_of_the_load_is_refused_with_what_to_give_for_it(users, hint, capsys):
    said = complaint(capsys, *users)
    assert hint in said and "server_args_base.txt" not in said and "a:b@" not in said


@pytest.mark.parametrize("name", ["--input-len", "--rate", "--prompts", "--mix"])
def test_a_running_server_is_given_no_hint_on_sweeps(name, capsys):
    said = complaint(capsys, "--attach", "http://127.0.0.1:30000", "--yes", name, "4")
    assert "client_benchmark.py has it" in said and "--sweep" not in said


def test_every_option_of_the_client_has_a_hint_and_what_it_names_is_understood(capsys):
    ours = run_options._parser()._option_string_actions
    for name in client_options.options_parser()._option_string_actions:
        if not name.startswith("--") or name in ours or name == "--help":
            continue
        assert "argument of sglang" not in complaint(capsys, name), name
    for text, usual in hints.OF_THE_LOAD.values():
        words = text.format(usual).split()
        for at, word in enumerate(words):
            if word in ("--sweep", "--batch", "--max-new-tokens"):
                parse(word, words[at + 1].rstrip(",").replace("=N", "=5"))


def test_what_the_shell_found_out_has_precedence_and_the_users_words_are_kept():
    users = ["--out", "mine", "--python", "python3", "--batch", "8", "--rounds", "4+4"]
    found = parse(*users)
    assert (str(found.out), found.python, found.command) == ("/results", "/p", "./run_repro.sh")
    assert (found.batch, found.rounds, found.given) == (8, [4, 4], users)


def test_a_case_against_itself_is_the_first_unless_it_is_named():
    assert parse().cases == ["graphs_on", "graphs_off"] and not parse().aa
    assert parse("--aa").cases == ["graphs_on"]
    assert parse("--aa", "--cases", "mine").cases == ["mine"]
    assert parse("--cases", "").cases == []


@pytest.mark.parametrize(
    "argv",
    [
        ["--rounds", "0"],
        ["--pp-size", "four"],
        ["--batch", "-1"],
        ["--batch", "1.5"],
        ["--port", "70000"],
        ["--profile", "x"],  # no abbreviations: --profile is not --profile-steps
        ["--nope"],
    ],
)
def test_a_bad_option_is_a_usage_error(argv, capsys):
    with pytest.raises(SystemExit) as ended:
        run_options.parse(["--root", ".", "--out", "o", "--python", "p", *argv])
    assert ended.value.code == 2
    assert argv[0] in capsys.readouterr().err


def test_nsys_and_torchs_profiler_exclude_one_another(tmp_path):
    assert plan_of(tmp_path).profile
    plan = plan_of(tmp_path, "--nsys")
    assert plan.nsys and not plan.profile
    assert not plan_of(tmp_path, "--no-profile").profile

"""The load client's command line."""

import pytest
from client_harness import main

from repro_pp_graphs.client.options import parse_options
from repro_pp_graphs.client.server import Server


def test_both_spellings_of_an_option_are_one():
    for argv in (["--max_new_tokens", "7"], ["--max-new-tokens=7"], ["--max_new_tokens=7"]):
        assert parse_options(argv).max_new_tokens == 7
    assert str(parse_options(["--output=a_b.json"]).output) == "a_b.json"


@pytest.mark.parametrize(
    ("argv", "batch", "concurrency"),
    [
        ([], 16, 1),
        (["--batch", "4"], 4, 1),
        (["--concurrency", "8"], 1, 8),
        (["--batch", "4", "--concurrency", "8"], 4, 8),
        (["--request-rate", "2"], 1, None),
    ],
)
def test_batch_is_one_where_streams_are_separate(argv, batch, concurrency):
    options = parse_options(argv)
    assert (options.batch, options.concurrency) == (batch, concurrency)


@pytest.mark.parametrize(
    "argv",
    [
        ["--batch", "0"],
        ["--concurrency", "x"],
        ["--duration", "0"],
        ["--request-rate", "inf"],
        ["--base-url", "127.0.0.1:30000"],
        ["--base-url", "http://user:word@127.0.0.1:30000"],
        ["--backend", "grpc"],
        ["--bat", "3"],
        ["--output", "-"],
        ["--bench-serving-json", "-"],
    ],
)
def test_a_wrong_option_is_a_usage_error(argv, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_options(argv)
    assert stopped.value.code == 2
    assert argv[0].lstrip("-") in capsys.readouterr().err


@pytest.mark.parametrize(
    ("backend", "given", "asked"),
    [
        ("openai", "http://h:1", "http://h:1/v1/completions"),
        ("openai", "http://h:1/v1", "http://h:1/v1/completions"),
        ("openai", "http://h:1/v1/", "http://h:1/v1/completions"),
        ("openai", "http://h:1/v1/completions", "http://h:1/v1/completions"),
        ("openai", "http://h:1/llm/v1", "http://h:1/llm/v1/completions"),
        ("openai", "http://h:1/llm-v1", "http://h:1/llm-v1/v1/completions"),
        ("sglang", "http://h:1/v1", "http://h:1/generate"),
        ("sglang", "http://h:1/generate/", "http://h:1/generate"),
        ("sglang", "http://h:1/pool", "http://h:1/pool/generate"),
    ],
)
def test_an_address_may_end_in_the_path_that_the_client_adds(backend, given, asked):
    options = parse_options(["--backend", backend, "--base-url", given])
    assert Server(options).url == asked


def test_help_shows_examples_and_exit_statuses(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert "exit status" in shown and "examples:" in shown
    assert [line for line in shown.splitlines() if len(line) > 80] == []

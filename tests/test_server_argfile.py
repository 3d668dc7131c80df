"""Argument files: what a line means, what is refused and where, a case laid over the base."""

from __future__ import annotations

from pathlib import Path

import pytest

from repro_pp_graphs.server.case import argfile
from repro_pp_graphs.server.case.argfile import ArgFileError, ServerArgs, parse

ROOT = Path(__file__).resolve().parents[1]


def read(text: str) -> ServerArgs:
    return parse(text, "server_args_x.txt")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--pp-size 4   # four ranks", ["--pp-size", "4"]),
        ("--mem-fraction-static=0.85", ["--mem-fraction-static", "0.85"]),
        ("--disable-cuda-graph", ["--disable-cuda-graph"]),
        ("--cuda-graph-bs 1 2 4", ["--cuda-graph-bs", "1", "2", "4"]),
        ("--model-path '/my models/70B'", ["--model-path", "/my models/70B"]),
        ("--chat-template 'a # b'", ["--chat-template", "a # b"]),
        ("--x '{\"a\": -1}'", ["--x", '{"a": -1}']),
        ("--x=a=b", ["--x", "a=b"]),
        ("--seed -1", ["--seed", "-1"]),
        ("   ", []),
        ("# --pp-size 8", []),
    ],
)
def test_a_line_becomes_the_words_of_one_argument(line, words):
    assert read(line).argv() == words


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("NCCL_DEBUG=INFO  # loud", "NCCL_DEBUG", "INFO"),
        ("A='two words'", "A", "two words"),
        ('A="x=y"', "A", "x=y"),
        ("EMPTY=", "EMPTY", ""),
    ],
)
def test_a_name_value_line_is_environment(line, name, value):
    args = read(line)
    assert args.env == {name: value}
    assert args.argv() == []


def test_python_line_picks_the_interpreter_and_stays_out_of_the_environment():
    args = read("PYTHON=/opt/sglang-0.5.6/bin/python")
    assert (args.python, args.env) == ("/opt/sglang-0.5.6/bin/python", {})


@pytest.mark.parametrize("line", ["# label: CASE_A", "#label:CASE_A", "  #  label:  CASE_A  "])
def test_a_label_comment_names_the_case(line):
    assert read(line).label == "CASE_A"


def test_a_comment_that_merely_mentions_a_label_is_no_label():
    assert read("# give each case its own label: it names the files").label is None


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("--model-path 'unclosed", "close the quote"),
        ("pp-size 4", "neither"),
        ("A=1 B=2", "neither"),
        ("--pp-size 4 --tp-size 2", "several arguments"),
        ("# label: a/b", "letters, digits"),
        ("# label: ../up", "letters, digits"),
        ("HF_TOKEN=hf_abcdef", "export it in your shell"),
        ("OPENAI_API_KEY=sk-abcdef", "export it in your shell"),
        ("DB_PASSWORD=hunter2", "export it in your shell"),
        ("--api-key hunter2", "leave it out"),
        ("--api-key=hunter2", "leave it out"),
    ],
)
def test_a_refused_line_is_named_by_file_and_number_without_its_secret(line, says):
    with pytest.raises(ArgFileError, match=r"^server_args_x\.txt:3: ") as refused:
        read(f"# one\n\n{line}\n")
    assert says in str(refused.value)
    assert not any(word in str(refused.value) for word in ("hf_abcdef", "sk-abcdef", "hunter2"))


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("--model-path a#b", ["a#b"]),
        ("--model-path 'a # b' # c", ["a # b"]),
        ('--model-path "a\\" # b" # c', ['a" # b']),
        ("--model-path \\# # c", ["#"]),
        ("--model-path a # it's", ["a"]),
        ("--model-path a\u2028b", ["a\u2028b"]),
    ],
)
def test_a_hash_begins_a_comment_only_where_a_word_would_begin(line, values):
    assert read(line).flags == {"--model-path": values}


@pytest.mark.parametrize("mark", ["\0", "\x1b[31m", "\x07", "\x85", "\x9b", "\x0b", "\r"])
def test_control_characters_are_refused_and_not_repeated(mark):
    for line in (f"--model-path a{mark}b", f"A=1{mark}2", f"# label: a{mark}b", f"# {mark} c"):
        with pytest.raises(ArgFileError, match="control character") as refused:
            read(line)
        assert mark not in str(refused.value)


def test_a_backslash_at_the_end_does_not_join_lines():
    with pytest.raises(ArgFileError, match="ends with a backslash"):
        read("--model-path \\\n/models/x\n")


def test_what_editors_of_other_systems_write_is_read(tmp_path):
    path = tmp_path / "server_args_x.txt"
    path.write_bytes(b"\xef\xbb\xbf# label: A\r\n--pp-size 2\r\n")
    args = argfile.load(path)
    assert (args.label, args.flags) == ("A", {"--pp-size": ["2"]})


@pytest.mark.parametrize("label", ["A_vs_B", "x_vs_y", "env", "ENV_AFTER", "run", "a" * 65])
def test_a_label_that_no_file_could_have_is_refused(label):
    with pytest.raises(ArgFileError, match="label") as refused:
        read(f"# label: {label}")
    assert len(str(refused.value)) < 120


@pytest.mark.parametrize(
    "line",
    [
        "AWS_ACCESS_KEY_ID={}",
        "GITHUB_PAT={}",
        "WANDB_KEY={}",
        "OLDPWD={}",
        "MY_COOKIE={}",
        "KEY_PASSPHRASE={}",
        "AZURE_SAS={}",
        "https_proxy=http://user:{}@proxy:3128",
        "EXTRA='Authorization: Bearer {}'",
        "--admin-api-key {}",
        "--ssl-keyfile-password={}",
        "--storage-url https://user:{}@host/x",
        '--extra-config \'{{"password": "{}"}}\'',
        "--pp-size 4 --api-key {}",
        "export HF_TOKEN={}",
        "{}",
        "HF_TOKEN {}",
        "HF_TOKEN={} # mine",
        "HF_TOKEN = {}",
    ],
)
def test_no_secret_is_taken_or_repeated(line):
    secret = "hf_zYxW9876vUtS5432rQpO"
    with pytest.raises(ArgFileError) as refused:
        read(line.format(secret))
    assert secret not in str(refused.value)


def test_no_argument_of_sglang_is_taken_for_a_secret_by_mistake():
    for flag in (
        "--tokenizer-path",
        "--tokenizer-mode",
        "--kv-cache-dtype",
        "--speculative-token-map",
    ):
        assert read(f"{flag} some/Path-0A1b2").flags
    snapshot = "/models/models--a--b/snapshots/1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d"
    assert read(f"--model-path {snapshot}").flags


def test_a_label_of_two_words_is_refused_not_ignored():
    with pytest.raises(ArgFileError, match=r"server_args_x\.txt:1"):
        read("# label: graphs on\n--pp-size 4")


def test_a_case_replaces_the_bases_argument_whatever_its_spelling():
    base = read("--pipeline-parallel-size 4\n--model /m/70B\n--tp 2\nA=1\nB=2\nPYTHON=/base")
    case = read("--pp-size 2\n--model-path /m/8B\n--tensor-parallel-size 1\nB=3")
    both = case.over(base)
    words = both.argv()
    assert [both.get(f) for f in ("--pp-size", "--model-path", "--tp-size")] == ["2", "/m/8B", "1"]
    assert len(words) == 6, words
    assert both.env == {"A": "1", "B": "3"}
    assert both.python == "/base"


def test_laying_a_case_over_the_base_leaves_the_base_as_it_was():
    base = read("--pp-size 4\nA=1")
    both = read("--pp-size 2").over(base)
    both.set("--port", "1")
    both.env["NEW"] = "1"
    assert base.argv() == ["--pp-size", "4"]
    assert base.env == {"A": "1"}


def test_a_later_line_wins():
    assert read("--port 1\n--port 2").argv() == ["--port", "2"]


def test_a_number_that_is_none_is_refused():
    with pytest.raises(ArgFileError, match="--pp-size four"):
        read("--pp-size four").get_int("--pp-size", 1)
    assert read("").get_int("--pp-size", 1) == 1


def test_a_file_that_cannot_be_read_is_an_argument_error(tmp_path):
    with pytest.raises(ArgFileError, match="cannot be read"):
        argfile.load(tmp_path / "absent.txt")
    latin = tmp_path / "server_args_latin.txt"
    latin.write_bytes(b"# caf\xe9\n")
    with pytest.raises(ArgFileError, match="cannot be read"):
        argfile.load(latin)


def test_the_files_of_this_repository_differ_only_in_their_graphs():
    names = ("base", "graphs_on", "graphs_off")
    base, on, off = (argfile.load(ROOT / f"server_args_{name}.txt") for name in names)
    assert base.get("--host") == "127.0.0.1"
    assert on.label and off.label and on.label != off.label
    changed = {*on.flags, *off.flags}
    assert changed and all("cuda-graph" in flag for flag in changed)
    assert not on.env and not off.env

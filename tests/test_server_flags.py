"""Arguments meet a release that may know them under another name only."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from repro_pp_graphs.run.plan import environments
from repro_pp_graphs.server.case import flags, needs
from repro_pp_graphs.server.case.argfile import load, parse
from repro_pp_graphs.server.case.flags import FlagError
from repro_pp_graphs.server.release.installed import (
    ProbeError,
    Release,
    Rule,
    probe,
    release_from_json,
    release_to_json,
)

ROOT = Path(__file__).resolve().parents[1]
OLD = Release(
    "0.5.2",
    frozenset({"--model", "--pipeline-parallel-size", "--tp-size", "--cuda-graph-max-bs"}),
    Path("/old"),
)
NEW = Release(
    "0.5.23",
    frozenset(
        {"--model-path", "--pp-size", "--tensor-parallel-size", "--cuda-graph-max-bs-decode"}
        | {"--cuda-graph-bs-decode", "--random-seed", "--disable-radix-cache"}
    ),
    Path("/new"),
)


def fit(text: str, release: Release):
    args, notes = flags.fit(parse(text, "x"), release)
    return args.argv(), notes


@pytest.mark.parametrize(
    ("release", "given", "fitted"),
    [
        (NEW, "--cuda-graph-max-bs 64", ["--cuda-graph-max-bs-decode", "64"]),
        (OLD, "--cuda-graph-max-bs-decode 64", ["--cuda-graph-max-bs", "64"]),
        (NEW, "--cuda-graph-bs 1 2 4", ["--cuda-graph-bs-decode", "1", "2", "4"]),
        (NEW, "--cuda-graph-max-bs-decode 64", ["--cuda-graph-max-bs-decode", "64"]),
        (OLD, "--pp-size 4", ["--pipeline-parallel-size", "4"]),
        (NEW, "--pipeline-parallel-size 4", ["--pp-size", "4"]),
        (NEW, "--tp-size 2", ["--tensor-parallel-size", "2"]),
        (OLD, "--model-path m", ["--model", "m"]),
        (NEW, "--disable-radix-cache", ["--disable-radix-cache"]),
    ],
)
def test_an_argument_takes_the_name_that_the_release_knows(release, given, fitted):
    assert fit(given, release)[0] == fitted


def test_only_a_renamed_graph_argument_is_worth_a_note():
    assert fit("--pp-size 4\n--model-path m\n--tp-size 1", OLD)[1] == []
    (note,) = fit("--cuda-graph-max-bs 64\n--pp-size 4", NEW)[1]
    renamed = "--cuda-graph-max-bs is passed as --cuda-graph-max-bs-decode, its name"
    assert note == f"{renamed} in sglang 0.5.23"
    assert flags.renamed(note) == ("--cuda-graph-max-bs-decode", "--cuda-graph-max-bs")
    assert flags.renamed("--pp-size 4 is passed on") is None


def test_environment_interpreter_and_label_survive_the_fitting():
    args, _ = flags.fit(parse("# label: L\nA=1\nPYTHON=/p\n--pp-size 4", "x"), NEW)
    assert (args.env, args.python, args.label) == ({"A": "1"}, "/p", "L")


def test_an_unknown_argument_is_refused_with_a_near_one_and_the_release():
    with pytest.raises(FlagError) as refused:
        fit("--disable-radix-cahce", NEW)
    assert "--disable-radix-cache" in str(refused.value) and "0.5.23" in str(refused.value)
    with pytest.raises(FlagError, match="--help"):
        fit("--zzzz", NEW)


def test_a_renamed_argument_without_any_known_name_is_refused():
    with pytest.raises(FlagError, match="--cuda-graph-bs"):
        fit("--cuda-graph-bs 1 2", OLD)


@pytest.mark.parametrize("version", environments.releases(ROOT))
def test_of_every_release_with_a_lock_the_names_of_its_arguments_are_kept(version):
    names = environments.arguments(ROOT, version)
    assert {"--pp-size", "--disable-cuda-graph"} < names
    known = Release(version, names, Path())
    cases = [load(path) for path in ROOT.glob("server_args_*.txt")]
    can = needs.looked_up(version)
    for args in (one for one in cases if can and not needs.unmet(one, can)):
        fitted, _ = flags.fit(args.over(load(ROOT / "server_args_base.txt")), known)
        assert set(fitted.flags) <= names


def fake_python(folder, body: str) -> str:
    path = folder / "python"
    path.write_text(f"#!{sys.executable}\n{body}", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def test_the_probe_finds_its_answer_among_what_sglang_prints(tmp_path):
    rules = '{"--a": null, "--b": {"values": "1", "kind": "int", "choices": []}}'
    answer = f'PROBE{{"version": "0.5.9", "rules": {rules}, "place": "/s p/sglang"}}'
    python = fake_python(tmp_path, f"print('a banner')\nprint('''{answer}''')\nprint('bye')\n")
    assert probe(python, {}) == Release(
        "0.5.9", frozenset({"--a", "--b"}), Path("/s p/sglang"), {"--b": Rule("1", "int")}
    )


@pytest.mark.parametrize("release", [NEW, NEW._replace(rules={"--pp-size": Rule("1", "int")})])
def test_a_stored_release_reads_back(release):
    assert release_from_json(release_to_json(release)) == release


def test_what_an_older_harness_stored_is_asked_for_anew():
    with pytest.raises(KeyError):
        release_from_json('{"version": "0.5.9", "flags": ["--a"], "place": "/s"}')


@pytest.mark.parametrize(
    ("rule", "given", "told"),
    [
        (Rule("0"), [], ""),
        (Rule("0"), ["1"], "takes no value"),
        (Rule("1"), ["x"], ""),
        (Rule("1"), [], "takes 1 value"),
        (Rule("1"), ["x", "y"], "2 given"),
        (Rule("1", "int"), ["-1"], ""),
        (Rule("1", "int"), ["1.5"], "'1.5' is not a whole number"),
        (Rule("1", "float"), ["0,85"], "'0,85' is not a number"),
        (Rule("1", "float"), ["1e-3"], ""),
        (Rule("+", "int"), ["1", "2", "8"], ""),
        (Rule("+", "int"), ["1", "two"], "'two' is not a whole number"),
        (Rule("+", "int"), [], "none given"),
        (Rule("*"), [], ""),
        (Rule("?"), [], ""),
        (Rule("1", "", ("triton", "fa3")), ["fa3"], ""),
        (Rule("1", "", ("triton", "fa3")), ["fa4"], "'fa4' is none of triton, fa3"),
    ],
)
def test_values_that_an_argument_does_not_take_are_refused(rule, given, told):
    release = NEW._replace(rules={"--random-seed": rule})
    text = " ".join(["--random-seed", *given])
    if not told:
        assert fit(text, release)[0] == ["--random-seed", *given]
        return
    with pytest.raises(FlagError) as refused:
        fit(text, release)
    assert told in str(refused.value) and "--random-seed" in str(refused.value)


def test_the_probe_tells_what_argparse_would_refuse(tmp_path):
    package = tmp_path / "sglang" / "srt"
    package.mkdir(parents=True)
    for folder in (package.parent, package):
        (folder / "__init__.py").touch()
    (package / "server_args.py").write_text(
        "class ServerArgs:\n    @staticmethod\n    def add_cli_args(parser):\n"
        "        parser.add_argument('--on', action='store_true')\n"
        "        parser.add_argument('--size', '--length', type=int)\n"
        "        parser.add_argument('--share', type=float)\n"
        "        parser.add_argument('--sizes', type=int, nargs='+')\n"
        "        parser.add_argument('--pick', choices=['a', 'b'])\n"
        "        parser.add_argument('--any', choices=set('edcba'))\n"
        "        parser.add_argument('--own', type=lambda text: text)\n"
        "        parser.add_argument('--add', action='append')\n"
    )
    facts = tmp_path / "sglang-0.5.9.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: sglang\nVersion: 0.5.9\n")
    rules = probe(sys.executable, {"PYTHONPATH": str(tmp_path)}).rules
    assert {name: rules.get(name) for name in ("--on", "--size", "--length", "--share")} == {
        "--on": Rule("0"),
        "--size": Rule("1", "int"),
        "--length": Rule("1", "int"),
        "--share": Rule("1", "float"),
    }
    assert rules["--sizes"] == Rule("+", "int")
    assert rules["--pick"] == Rule("1", "", ("a", "b"))
    assert rules["--any"].choices == ("a", "b", "c", "d", "e")
    assert rules["--own"] == Rule("1")
    assert "--add" not in rules


def test_the_probe_reports_the_last_line_of_a_failed_import(tmp_path):
    python = fake_python(tmp_path, "raise SystemExit(\"Traceback\\nImportError: no 'x.so'\\n\")")
    with pytest.raises(ProbeError, match=r"ImportError: no 'x\.so'"):
        probe(python, {})
    with pytest.raises(ProbeError, match="absent"):
        probe(str(tmp_path / "absent"), {})

"""What masking changes in the bundle of a real run: secrets, users and hosts where they were put,
and nothing else."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import report_runs
from report_runs import A, B, changed

from repro_pp_graphs.bundle import contents, hosts, marks
from repro_pp_graphs.bundle.__main__ import listing, masked, to_look_at
from repro_pp_graphs.bundle.contents import Item
from repro_pp_graphs.environment.masking import Masker
from repro_pp_graphs.report import report_command
from repro_pp_graphs.report.page.embedding import CLOSES, OPENS
from repro_pp_graphs.traces.commands.one_reading import explain_case

pytestmark = pytest.mark.slow

HOST, SECRET = "trainer-of-carol", "planted-secret-77"
COMMAND = (
    "python3 -m repro_pp_graphs.server.launch --max-running-requests 32 "
    "--dist-init-addr head-of-carol:5000\n"
)
NODES = {
    "schema": 1,
    **{"job": "7", "dist": "head-of-carol:5000", "srun": ["srun", "--overlap"]},
    "nodes": [{"number": 0, "name": HOST, "address": "10.0.0.5"}],
}
UUID = re.compile(r"(?<=[0-9a-f]{8}-)[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
Place = tuple[str, str]  # a file, and the fields or the line in it


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on two H100s with all that its traces left, but no host's name in it."""
    run = report_runs.traced(tmp_path_factory.mktemp("masks") / "run")
    logs = run / "logs"
    for label in (A, B):
        paths = [logs / f"{label}_{end}" for end in ("analysis.json", "analysis.txt")]
        trace = run / "trace" / f"{label}_chrome_trace.json"
        explain_case(run / "trace" / label, trace, *paths, logs / f"{label}_timeline.json")
        changed(paths[0], lambda found: found.update(hosts=[]))
        report_runs.write_clock(logs / f"{label}_pp_clock.json", 16)
        (logs / f"{label}_server_command.sh").write_text(COMMAND.replace("-of-carol", ""))
        (logs / f"{label}_server.log").write_text("Loading of the model began on the host.\n")
    assert report_command.main([str(run)]) == 0
    return run


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def leaves(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """(fields, text) of all keys and plain values."""
    if isinstance(value, dict):
        for at, (key, inner) in enumerate(value.items()):
            yield f"{place} key {at}", key
            yield from leaves(inner, f"{place}.{key}")
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from leaves(inner, f"{place}.{at}")
    else:
        yield place, repr(value)


@cache
def parts(name: str, text: str) -> list[tuple[str, str]]:
    """(place, text) of all that a file of that name holds."""
    if name.endswith(".json"):
        return list(leaves(json.loads(text)))
    head, _, rest = text.partition(OPENS)
    facts, _, tail = rest.partition(CLOSES)
    lines = [(f"line {at}", line) for at, line in enumerate(f"{head}\n{tail}".split("\n"))]
    return lines + (list(leaves(json.loads(facts))) if facts else [])


def differences(run: Path, masker: Masker) -> dict[Place, tuple[str, str]]:
    """What a file held and holds in the bundle, at each place that masking changed; UUIDs are
    shortened everywhere."""
    before = list(contents.items(run))
    after = masked(before, masker)
    out: dict[Place, tuple[str, str]] = {}
    for was, item in zip(before, after, strict=True):
        old, new = parts(was.name, was.text), parts(item.name, item.text)
        assert len(old) == len(new), item.name
        for (place, text), (_, found) in zip(old, new, strict=True):
            if UUID.sub("...", text) != found:
                out[item.name, place] = (text, found)
    return out


def test_of_a_run_that_names_nobody_nothing_is_changed(run: Path) -> None:
    names = {path.name for path in (run / "logs").iterdir()}
    assert {f"{A}_timeline.json", "report.html", "report.md", f"{A}_pp_clock.json"} <= names
    env = {"HOME": "/home/carol", "USER": "carol", "HOSTNAME": HOST, "MY_API_KEY": SECRET}
    assert differences(run, Masker(env)) == {}


@pytest.mark.parametrize("word", ["launch", "requests", "max", "send", "decode", "running"])
def test_a_host_or_user_called_like_a_word_of_the_texts_takes_no_word_out(
    run: Path, word: str
) -> None:
    masker = Masker({"USER": word, "HOSTNAME": word})
    changed(run / "logs" / "run.json", lambda found: found.update(machine={"host": word}))
    assert differences(run, masker) == {("run.json", ".machine.host"): (repr(word), "'<host>'")}
    assert masker.text(f"{word}:77:99 [0] NCCL INFO {word}").startswith("<host>:77:99 ")
    items = list(contents.items(run))
    said = " ".join(" ".join(to_look_at(items, masker.own_words())).split())
    assert f"look at: {word}: the name of a user or host, and a common word" in said


def plant(run: Path) -> None:
    """Hosts, a user and a secret in places that hold such."""
    logs = run / "logs"
    changed(logs / "run.json", lambda found: found.update(machine={"host": HOST}))
    changed(
        logs / "run.json",
        lambda found: found["launches"][0]["args"].extend(
            ["--dist-init-addr", "head-of-carol:5000", "--api-key", SECRET]
        ),
    )
    (logs / "nodes.json").write_text(json.dumps(NODES))
    (logs / f"{A}_server_command.sh").write_text(COMMAND)
    (logs / f"{A}_server.log").write_text(
        f"{HOST} is up, {HOST}s is not\nworker-3.pool:77:99 [0] NCCL INFO up\n"
        f"wrong key {SECRET} of /home/carol/x\n"
    )
    (logs / f"{B}_server.log").write_text("worker-3.pool is gone\n")
    with (logs / "report.md").open("a") as report:
        report.write(f"\nOn {HOST}, `{HOST}`.\n")


def test_only_what_was_put_there_is_masked_wherever_a_record_was_made(run: Path) -> None:
    at = len(json.loads((run / "logs/run.json").read_text())["launches"][0]["args"])
    lines = (run / "logs" / "report.md").read_text().count("\n")
    plant(run)
    found = differences(run, Masker({"USER": "carol"}))
    assert {place: after for place, (_, after) in found.items()} == {
        ("run.json", ".machine.host"): "'<host 2>'",
        ("run.json", f".launches.0.args.{at + 1}"): "'<host 3>:5000'",
        ("run.json", f".launches.0.args.{at + 3}"): "'<masked>'",
        ("nodes.json", ".nodes.0.name"): "'<host 2>'",
        ("nodes.json", ".dist"): "'<host 3>:5000'",
        (f"{A}_server_command.sh", "line 0"): COMMAND.strip().replace("head-of-carol", "<host 3>"),
        (f"{A}_server.log", "line 0"): f"<host 2> is up, {HOST.replace('carol', 'carols')} is not",
        (f"{A}_server.log", "line 1"): "<host>:77:99 [0] NCCL INFO up",
        (f"{A}_server.log", "line 2"): "wrong key <masked> of /home/<user>/x",
        (f"{B}_server.log", "line 0"): "<host> is gone",
        ("report.md", f"line {lines + 1}"): r"On \<host 2>, `<host 2>`.",
    }


@pytest.mark.parametrize(
    ("name", "record", "wanted"),
    [
        ("x_timeline.json", {"host": [["launch", 0.0]], "hosts": ["no"]}, []),
        ("summary.json", {"launches": [{"host": {"host": "no"}}]}, []),
        ("x_analysis.json", {"hosts": ["a", "b"], "steps": {"host": "no"}}, ["a", "b"]),
        ("x_analysis.json", {"cases": {"on": {"hosts": ["a"]}}}, ["a"]),
        ("run.json", {"launches": [{"args": ["--dist-init-addr=h:1", "h"]}]}, ["h"]),
        ("run.json", {"launches": [{"args": ["x", "--dist-init-addr", 5]}], "machine": "no"}, []),
        ("run.json", [["launches", {"host": "no"}]], []),
        ("x_launch.json", {"server_info": {"host": None, "dist_init_addr": "h:1"}}, ["h"]),
        ("not_run.json", {"machine": {"host": "no"}}, []),
    ],
)
def test_a_record_names_hosts_in_its_own_fields_alone(
    name: str, record: object, wanted: list[str]
) -> None:
    assert list(hosts.named(name, record)) == wanted
    assert hosts.changed(name, record, str) == record


def test_a_name_hidden_where_none_belongs_or_very_often_is_noticed() -> None:
    def said(*items: Item) -> list[str]:
        return list(marks.doubtful(list(items)))

    few = [Item("a_server.log", "<host> <masked> " * 999, ""), Item("env.txt", "<host>", "")]
    assert said(*few) == []
    (often,) = said(Item("report.md", r"\<host 3> " * (marks.OFTEN + 1), ""))
    assert often.startswith("<host 3> is hidden 101 times in files that are no logs: ")
    (lane,) = said(Item("x_timeline.json", '[["<user>", 1.5]]', ""), *few)
    assert "<user> is hidden 1 times" in lane and "also in x_timeline.json, where no" in lane
    (key,) = said(Item("run.json", '{\n "PP0 <host 2>": 1,\n "is": "<host>"\n}', ""))
    assert key.startswith("<host 2> is hidden 1 times") and "run.json" in key


def test_what_is_masked_is_counted_and_seen_in_pages_and_markdown() -> None:
    page = f'<p>{HOST}, {SECRET} ±</p>{OPENS}["{SECRET} {HOST}"]{CLOSES}'
    text = f"On {HOST}, `{HOST}`\n```text\n{SECRET} `\n```\n{SECRET} ±"
    items = [Item("report.html", page, ""), Item("report.md", text, "")]
    out = masked(items, Masker({"A_TOKEN": SECRET}, host=HOST))
    assert out[0].text.startswith("<p>&lt;host&gt;, &lt;masked&gt; ±</p>")
    assert out[1].text == ("On \\<host>, `<host>`\n```text\n<masked> `\n```\n\\<masked> ±")
    rows = [line.split() for line in listing(out)]
    assert [row[1:] for row in rows if row[-1] in ("report.html", "report.md")] == [
        ["2", "2", "report.html"],
        ["2", "2", "report.md"],
    ]
    assert "4 secrets are masked in all" in "\n".join(listing(out))
    assert "4 names and addresses are hidden in all: <host> 4 x" in "\n".join(listing(out))

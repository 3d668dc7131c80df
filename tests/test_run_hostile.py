"""Control characters and secrets from outside: what a server logs, says of itself, answers and
names; what a run prints and keeps of it."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from fake_sglang.harness import CHECKOUT, PYTHON, Done, Harness, at_once
from programs import ran

from repro_pp_graphs import terminal
from repro_pp_graphs.run.launch.live_line import LiveLine
from repro_pp_graphs.server.log.log_lines import Follower

# obeyed by a terminal: ESC, BEL, CR, backspace, C1, and what turns the direction of a line
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
HOSTILE = "\x1b]0;title\x07\x1b[2J\x1b[31m \x08\x9b1m \u202egnp.exe\u2066 \u061c"
WORD = "xyzzy-plugh"
# a secret where servers put it, each with a number of its own
PLACES = (
    "server_args=ServerArgs(api_key='{}', admin_api_key=None)",
    "Load weight begin. AWS_ACCESS_KEY_ID={}",
    "Capture graph begin. MY_PAT={}",
    "KV Cache is allocated. SIGNING_KEY={}",
    "Memory pool end. PASSPHRASE={}",
    "max_total_num_tokens=1, DB_PASSWORD={}",
    "Init torch distributed begin. Authorization: Bearer {}",
    "Init torch distributed ends. Cookie: id={}",
    "Load weight begin. HTTPS_PROXY=http://me:{}@proxy:3128",
    "Load weight begin. the value alone: {}",
    "Scheduler hit an exception: ValueError: cannot use --hf-token {}",
)
SECRETS = [f"{WORD}-{number:02}" for number in range(len(PLACES) + 3)]
OF_SHELL, OF_SERVER, OF_ANSWER = SECRETS[-3:]
CASES = ("works", "dies", "silent")


def said() -> bytes:
    lines = [f"[2026-11-23 21:16:19 PP0] {HOSTILE}"]
    for number, text in enumerate(PLACES):
        secret = OF_SHELL if "alone" in text else SECRETS[number]
        lines.append(f"[2026-11-23 21:16:19 PP0] {text.format(secret)} {HOSTILE}")
    return "\n".join([*lines, "Loading: 40% " + HOSTILE]).encode() + b"\x9b1m\xff\n"


def run(root: Path) -> Iterator[tuple[Harness, Done]]:
    with Harness(root) as harness:
        (root / "says").write_bytes(said())
        (root / "says_and_lives").write_bytes(re.sub(b".*Scheduler hit.*\n", b"", said()))
        info = {"served_model_name": HOSTILE, "hf_token": OF_SERVER, "note": f"token={OF_ANSWER}"}
        harness.env |= {"MY_SECRET_TOKEN": OF_SHELL, "FAKE_INFO": json.dumps(info)}
        harness.case("works", f"FAKE_SAYS={root}/says_and_lives")
        harness.case("dies", f"FAKE_SAYS={root}/says", "FAKE_FAULT=die:oom")
        harness.case("silent", f"FAKE_SAYS={root}/says", "FAKE_FAULT=die:silent")
        yield harness, harness.run("--cases", ",".join(CASES), "--pp-size", "2")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Harness, Done]]:
    yield from run(tmp_path_factory.mktemp("hostile") / "r")


@pytest.mark.launches
def test_nothing_that_a_server_says_moves_the_terminal(done):
    harness, ended = done
    assert harness.statuses() == {"works": "ok", "dies": "failed", "silent": "failed"}
    assert not OBEYED.search(ended.out + ended.err)


@pytest.mark.launches
def test_no_secret_is_printed(done):
    _, ended = done
    assert [one for one in SECRETS if one in ended.out + ended.err] == []


@pytest.mark.launches
def test_of_what_a_run_keeps_only_the_servers_own_log_has_its_words_as_they_came(done):
    harness, _ = done
    kept = sorted(path for path in harness.out.rglob("*") if path.is_file())
    assert {"run.json", "summary.json", "report.md", "report.html", "works_launch.json"} <= {
        path.name for path in kept
    }
    for path in kept:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
        if path.name.endswith("_server.log"):
            assert HOSTILE in text
            continue
        assert [(path.name, one) for one in SECRETS if one in text] == []
        assert path.suffix == ".gz" or not OBEYED.search(text), path.name


@pytest.mark.launches
def test_a_bundle_of_it_holds_neither(done, tmp_path):
    harness, _ = done
    script = CHECKOUT / "collect_env.sh"
    words = ["bash", str(script), "--python", PYTHON, "--bundle", str(harness.out)]
    ended = ran(words, env=harness.env, check=True)
    texts = {"stdout": ended.stdout + ended.stderr}
    with tarfile.open(harness.logs / "issue_bundle.tar.gz") as archive:
        for member in archive.getmembers():
            if file := archive.extractfile(member):
                texts[member.name] = file.read().decode("utf-8", "replace")
    assert any(name.endswith("dies_server.log") for name in texts), list(texts)
    for name, text in texts.items():
        assert [(name, one) for one in SECRETS if one in text] == []
        assert not OBEYED.search(text), name


class _Terminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


def test_the_live_line_shows_and_masks_what_a_log_says(tmp_path, monkeypatch):
    log = tmp_path / "server.log"
    log.write_bytes(said().replace(b"\n", f" {HOSTILE}\n".encode()))
    raw = _Terminal()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "utf-8"))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), "utf-8"))
    terminal.guard_streams()
    line = LiveLine("server")
    for size in range(0, len(said()), 7):  # as it grows
        follower = Follower(log)
        log.write_bytes(said()[: size + 7])
        line.show("loading weights", follower.look().latest)
    line.end(f"done {HOSTILE}")
    text = raw.getvalue().decode()
    assert text.count("\r\x1b[K") > 100
    assert not OBEYED.search(text.replace("\r\x1b[K", ""))
    assert WORD not in text


COMMANDS = [
    ("analyze", "{}"), ("merge", "{}", "-o", "{}.json"), ("report", "{}"), ("open", "{}"),
    ("compare", "{}", "{}"), ("probe", "--ranks", "{}"), ("summary", "{}"), ("{}",),
    ("finish", "{}", "{}"), ("analyze", "--{}"),
]  # fmt: skip


@pytest.mark.launches
def test_no_name_or_option_reaches_the_terminal_as_it_is():
    name = f"/no/{HOSTILE}"

    def one(words: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        given = [word.format(name) for word in words]
        return ran(given, cwd=CHECKOUT, errors="strict")

    commands = [(PYTHON, "-m", "repro_pp_graphs", *words) for words in COMMANDS]
    commands += [(PYTHON, "client_benchmark.py", option, "{}") for option in ("--prompts", "--x")]
    commands += [("bash", "collect_env.sh", option, "{}") for option in ("--python", "--{}")]
    commands += [("bash", "run_repro.sh", option, "{}") for option in ("--python", "--out", "--{}")]
    for words, ended in at_once({words: partial(one, words) for words in commands}).items():
        assert ended.returncode in (1, 2), words
        assert ended.stderr, words
        assert "Traceback" not in ended.stderr, words
        assert not OBEYED.search(ended.stdout + ended.stderr), words

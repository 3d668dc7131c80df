"""What collect_env.sh prints: its sections, the same facts as text and JSON, values as they are."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from collect_env_harness import (
    CLOSED_PORT,
    NVIDIA_SMI,
    SCRIPT,
    SECTIONS,
    answering,
    bare,
    collect,
    run,
    tool,
)

from repro_pp_graphs.environment import facts, system

pytestmark = pytest.mark.launches


def test_text_has_the_sections_in_order_each_in_a_closed_code_block() -> None:
    done = run("--port", CLOSED_PORT)
    assert done.returncode == 0
    assert done.stderr == ""
    heads = re.findall(r"^## (.+)$", done.stdout, re.M)
    assert [head.split()[0].lower() for head in heads] == SECTIONS
    assert done.stdout.count("```text\n") == done.stdout.count("\n```\n") == len(SECTIONS)


def test_json_and_text_hold_the_same_facts(tmp_path: Path) -> None:
    env = bare(tool(tmp_path / "bin", "nvidia-smi", NVIDIA_SMI), NCCL_DEBUG='a "quoted" \\ word')
    facts = collect(env=env)
    text = run("--python", sys.executable, "--port", CLOSED_PORT, env=env).stdout
    assert list(facts) == ["schema", *SECTIONS]
    assert facts["environment"]["NCCL_DEBUG"] == 'a "quoted" \\ word'
    moving = {"date", "load average", "memory", "/dev/shm", "cgroup throttled periods"}
    moving |= {key for key in facts["server"] if key.startswith("process ")}
    for section in SECTIONS:
        for key, value in facts[section].items():
            if key not in moving:
                assert "".join(f"{key}{value}".split()) in "".join(text.split()), key


def test_one_collection_gives_text_and_json(tmp_path: Path) -> None:
    path = tmp_path / "env.json"
    done = run("--json-file", str(path), "--port", CLOSED_PORT)
    facts = json.loads(path.read_text())
    assert f"date    {facts['summary']['date']}\n" in done.stdout
    assert re.search(
        rf"^load average +{re.escape(facts['system']['load average'])}$", done.stdout, re.M
    )
    assert list(tmp_path.iterdir()) == [path]
    nowhere = run("--json-file", str(tmp_path / "no" / "env.json"), "--port", CLOSED_PORT)
    said = " ".join(nowhere.stderr.split())  # wrapped where the path is long
    assert nowhere.returncode == 1 and said.endswith(": name a place that can be written")


def test_text_fits_80_columns_but_for_single_long_words(tmp_path: Path) -> None:
    env = bare(
        f"{tool(tmp_path / 'bin', 'nvidia-smi', NVIDIA_SMI)}:/a/path:{'/quite/long' * 9}",
        NCCL_DEBUG_SUBSYS="many words " * 30,
    )
    lines = run("--port", CLOSED_PORT, env=env).stdout.splitlines()
    indented = [line for line in lines if line.startswith("  ")]  # tables, and wrapped values
    assert any(line.strip().startswith("words many") for line in indented)
    wide = [line for line in lines if len(line) > 80 and max(map(len, line.split())) < 40]
    wide = [line for line in wide if "   " not in line]  # rows of tables
    assert wide == []
    assert any(line.startswith("PATH ") and len(line) > 80 for line in lines)


def test_values_with_control_bytes_still_make_valid_json() -> None:
    odd = b"x\x1b[31mred\x1b[0m\x01\xff\xc3\xa9\nnext"
    env = {os.fsencode(key): os.fsencode(value) for key, value in bare().items()}
    done = subprocess.run(
        ["bash", str(SCRIPT), "--json", "--port", CLOSED_PORT],
        env={**env, b"NCCL_ODD": odd},
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout)["environment"]["NCCL_ODD"] == "xred????\nnext"


def test_a_very_long_value_is_cut_in_the_open_and_masked() -> None:
    text = "aB3" * 30000 + " end"
    assert collect(env=bare(NCCL_BIG=text))["environment"]["NCCL_BIG"] == "<masked> (cut)"


def test_names_from_outside_are_never_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    name = f'$(touch {trap})`touch {trap}`a[$(touch {trap})]"quoted"'
    body = json.dumps({name: name, "version": "0.5.21"}).encode()
    with answering({"/server_info": (200, body)}) as port:
        # its folder's name may hold the user's, which is masked
        facts = collect("--port", port, "--no-redact", env=bare(NCCL_TRAP=name))
    assert facts["environment"]["NCCL_TRAP"] == name
    assert name in facts["server"].values()
    assert not trap.exists()


def test_it_says_that_only_variables_of_known_names_are_shown():
    text = facts.as_text({"environment": {"NCCL_DEBUG": "INFO"}, "server": {"port": "none"}})
    heading, remark, block = text.split("\n")[:3]
    assert (heading, block) == ("## Environment variables", "```text")
    assert remark.startswith("Only variables of known names are here")
    assert text.count("Only variables") == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("9223372036854771712", "none"),
        ("9223372036854775807", "none"),
        ("-1", "none"),
        ("8589934592", "8589934592"),
        ("max 100000", "max 100000"),
        ("0-3", "0-3"),
    ],
)
def test_a_limit_of_a_cgroup_that_is_none_is_called_so(text, shown):
    assert system._bound(text) == shown

"""What collect_env.sh prints holds no secret, and names people and hosts only on request."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from collect_env_harness import CLOSED_PORT, NVIDIA_SMI, bare, collect, run, tool
from planted_secrets import NAMED, SECRETS

pytestmark = pytest.mark.launches


@contextmanager
def running(*arguments: str) -> Iterator[int]:
    """A sleeping process whose command line looks like a server's; yields its pid."""
    sleeper = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"]
    with subprocess.Popen(
        [*sleeper, "sglang.launch_server", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin and process.stdout
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.stdin.close()


def printed(*options: str, env: dict[str, str]) -> str:
    done = run("--python", sys.executable, "--port", CLOSED_PORT, *options, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_more_than_140_kinds_of_secret_are_planted() -> None:
    assert len(SECRETS) + len(NAMED) > 140


@pytest.mark.parametrize("options", [[], ["--json"], ["--no-redact"]])
def test_no_secret_planted_in_variables_comes_out(options: list[str]) -> None:
    texts = {f"NCCL_PLANT_{n}": text for n, (text, _) in enumerate(SECRETS.values())}
    named = {name: f"word {n} of-passage" for n, name in enumerate(NAMED)}
    output = printed(*options, env=bare(**texts, **named))
    assert output.count("NCCL_PLANT_") == len(SECRETS)
    leaked = [kind for kind, (_, secret) in SECRETS.items() if secret in output]
    assert leaked == []
    assert "of-passage" not in output


def test_no_secret_planted_in_arguments_configuration_or_logs_comes_out(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    lines = [text for text, _ in SECRETS.values()]
    (home / ".nccl.conf").write_text("\n".join(lines))
    path = tool(tmp_path, "nvidia-smi", NVIDIA_SMI)
    log = tmp_path / "log"
    log.write_text("".join(f"NVRM: Xid: {line}\n" for line in lines))
    tool(tmp_path, "dmesg", f"#!/bin/bash\nexec cat {log}\n")
    arguments = ["--hf-token", "has 'both\" quotes xyzzy", *lines, "--api-key", "plugh and more"]
    with running(*arguments) as pid:
        output = printed("--no-redact", env=bare(path, HOME=str(home)))
    assert f"process {pid}" in output
    assert "Xid: run <masked>" not in output.split("## GPUs")[0]
    assert [kind for kind, (_, secret) in SECRETS.items() if secret in output] == []
    assert "xyzzy" not in output
    assert "plugh" not in output


# variables, none of which changes how another is shown
SECRET = {"MY_SERVICE_PASSWORD": "only-known-here", "NCCL_NOTE": "see only-known-here now"}
HARMLESS = {
    "SGLANG_MAX_TOKENS": "4096",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "NCCL_ARGS": "--tokenizer-path org/Model-7B-Instruct --max-total-tokens 1024 --skip",
    "NCCL_SOCKET_IFNAME": "eth0,ib0",
    "TORCH_COMMIT": "cf30153c4c131c8164ee7798e5022d810682e2cb",
    "SGLANG_URL": "https://host:8000/path?x=1",
}
LOGGED = {
    "NCCL_LINE": "Decode batch, #running-req: 1, #token: 2071, token usage: 0.03",
    "NCCL_SERVER_ARGS": "ServerArgs(api_key=None, num_key_value_heads=8, max_total_tokens=65536,"
    " eplb_token_threshold=0.48, worker_id='', skip_tokenizer_init=False)",
    "NCCL_TRACE": "File sglang/srt/utils/hf_transformers_utils.py, hf_chat_template_name=None,",
    "NCCL_CLASS": "DeepseekV3ForCausalLMNextN Qwen3MoeForConditionalGeneration",
}
# as it is, and as it is shown
PATHS_AND_USERS = {
    "NCCL_TOPO_FILE": ("/data/people/alice/topo.xml", "~/topo.xml"),
    "NCCL_GRAPH_FILE": ("/home/bob/graph.xml", "/home/<user>/graph.xml"),
    "NCCL_COMMENT": ("for alice, not malice", "for <user>, not malice"),
}
ADDRESSES = {
    "NCCL_MAIL": (
        "from carol@corp.example.com, git@github.com:x/y.git",
        "from <email>, git@github.com:x/y.git",
    ),
    "NCCL_NODES": (
        "10.0.0.5:20000 8.8.8.8:20000 127.0.0.1:30000 http://9.9.9.9/x",
        "10.0.0.5:20000 <address>:20000 127.0.0.1:30000 http://<address>/x",
    ),
    "NCCL_VERSIONS": ("cudnn 9.19.0.56, driver 580.159.04",) * 2,
    "NCCL_SEEN": ("on gpu-node-17 now", "on <host> now"),
    "NCCL_LOG": (
        "worker-3.pool:77:99 [0] NCCL INFO worker-3.pool is here",
        "<host 2>:77:99 [0] NCCL INFO <host 2> is here",
    ),
}


Variables = tuple[dict[str, str], dict[str, str]]


@pytest.fixture(scope="module")
def variables() -> Variables:
    """All of them in one environment: what is printed of it, and with --no-redact."""
    people = {"HOME": "/data/people/alice", "USER": "alice", "HOSTNAME": "gpu-node-17"}
    texts = {name: text for name, (text, _) in (PATHS_AND_USERS | ADDRESSES).items()}
    env = bare(EDITOR="vi", **people, **texts, **SECRET, **HARMLESS, **LOGGED)
    return collect(env=env)["environment"], collect("--no-redact", env=env)["environment"]


def test_a_secret_named_in_one_place_is_masked_where_it_has_no_name(variables: Variables) -> None:
    for found in variables:
        assert found["NCCL_NOTE"] == "see <masked> now"


def test_harmless_neighbours_of_secrets_stay_readable(variables: Variables) -> None:
    hidden, _ = variables
    assert {name: hidden[name] for name in HARMLESS} == HARMLESS


@pytest.mark.parametrize("told", [PATHS_AND_USERS, ADDRESSES], ids=["people", "addresses"])
def test_people_hosts_and_public_addresses_are_shown_only_on_request(
    variables: Variables, told: dict[str, tuple[str, str]]
) -> None:
    hidden, shown = variables
    assert {name: (shown[name], hidden[name]) for name in told} == told


def test_what_sglang_logs_of_tokens_stays_readable(variables: Variables) -> None:
    hidden, _ = variables
    assert {name: hidden[name] for name in LOGGED} == LOGGED


def test_variables_of_other_programs_are_not_printed(variables: Variables) -> None:
    assert all("EDITOR" not in found for found in variables)

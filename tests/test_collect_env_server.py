"""What is collected of a server: its resolved arguments, or what else answers on its port."""

from __future__ import annotations

import json

import pytest
from collect_env_harness import answering, collect

from repro_pp_graphs.environment import running_servers

pytestmark = pytest.mark.launches


INFO = {
    "model_path": "a-model",
    "pp_size": 4,
    "api_key": "top-secret-key",
    "cuda_graph_bs": [1, 2, 4],
    "dtype": None,
    "version": "0.5.21",
    "max_total_tokens": 4096,
    "internal_states": [{"pp_size": 4, "memory_usage": {"graph": 0.5}, "api_key": "another-key"}],
}


def test_a_server_on_the_port_tells_its_resolved_arguments() -> None:
    body = json.dumps(INFO).encode()
    for page in ("/server_info", "/get_server_info"):
        with answering({page: (200, body)}) as port:
            facts = collect("--port", port)
        told = {k: v for k, v in facts["server"].items() if not k.startswith("process ")}
        assert told == {
            f"port {port}": f"answers {page}",
            "model_path": "a-model",
            "pp_size": "4",
            "api_key": "<masked>",
            "cuda_graph_bs": "[1, 2, 4]",
            "version": "0.5.21",
            "max_total_tokens": "4096",
            "internal_states.0.memory_usage.graph": "0.5",
            "internal_states.0.api_key": "<masked>",
        }
        assert facts["summary"]["server"] == (
            f"port {port}: version 0.5.21, model_path a-model, pp_size 4"
        )


DEEP = b'{"a":' * 980 + b"1" + b"}" * 980


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, b"{}", "answers 401: it wants its API key"),
        (200, b"<html>", "answers 200 to /server_info, not as an sglang server does"),
        (200, b"[1]", "answers 200 to /server_info, not as an sglang server does"),
        (500, b"", "answers 500 to /server_info, not as an sglang server does"),
        (200, DEEP, "answers 200 to /server_info, not as an sglang server does"),
        (200, b"[" * 100_000, "answers 200 to /server_info, not as an sglang server does"),
    ],
)
def test_other_answers_on_the_port_are_named(status: int, body: bytes, said: str) -> None:
    with answering({"/server_info": (status, body)}) as port:
        assert running_servers.ask(int(port)) == (said, {})


def test_no_server_on_the_port_is_said() -> None:
    assert collect()["server"]["port 1"] == "nothing answers on 127.0.0.1:1"

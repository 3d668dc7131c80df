"""Prompts that arrive beside the measured load: sent while it decodes, in none of its figures."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from client_harness import client_runs
from standin_server import Behaviour, Received, StandIn, _Handler

from repro_pp_graphs.client.options import parse_options


def is_beside(payload: dict[str, Any]) -> bool:
    return payload["sampling_params"]["max_new_tokens"] == 1


def before(count: int) -> Callable[[Received], bool]:
    """A load goes on until so many prompts have come beside it, however slow the machine is."""

    def hold(received: Received) -> bool:
        latest = [what for to, what in received if to == "/generate"][-count:]
        return not (len(latest) == count and all(map(is_beside, latest)))

    return hold


BESIDE = ("--beside-input-len", "9", "--beside-rate", "60")


@pytest.fixture
def run_client(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with client_runs(tmp_path, capsys) as run:
        yield run


@pytest.mark.parametrize("reader", ["epoll", "threads"])
def test_prompts_arrive_until_the_load_has_ended_and_are_counted_apart(run_client, reader):
    # the answers to those beside take time: were they sent on and on, there would always be one
    # under way, until requests fail
    how = Behaviour(ttft_s=0.2, hold=before(3), fault="http", fault_from=400)
    with StandIn(how) as server:
        words = ("--batch", "2", "--max-new-tokens", "20", "--warmup", "0", "--reader", reader)
        status, document, text = run_client(server.url, *words, *BESIDE)
        bodies = [what for to, what in server.received if to == "/generate"]
    assert status == 0
    own = [each for each in document["requests"] if not each.get("beside")]
    beside = [each for each in document["requests"] if each.get("beside")]
    assert len(own) == 2 and len(beside) >= 2
    ended = max(each["events"][-1][0] for each in own)
    # a few may be on their way while the last answer is read; half a second's on a busy machine
    assert sum(each["sent_ns"] > ended for each in beside) <= 30
    assert {each["tokens"] for each in beside} == {1}
    summary = document["summary"]
    assert summary["completed"] == 2 and summary["total_output_tokens"] == 40
    assert summary["beside_completed"] == len(beside) and summary["beside_failed"] == 0
    assert summary["median_beside_ttft_ms"] is not None
    assert "beside" in text
    single = [body for body in bodies if isinstance(body["text"], str)]
    assert {len(body["text"].split()) for body in single} == {9}
    assert {body["sampling_params"]["max_new_tokens"] for body in single} == {1}


def test_every_pass_sends_other_prompts_beside(run_client):
    with StandIn(Behaviour(hold=before(3))) as server:
        words = ("--batch", "1", "--max-new-tokens", "20", "--warmup", "0", "--warmup-passes", "1")
        run_client(server.url, *words, "--input-len", "3", *BESIDE)
        texts = [what["text"] for to, what in server.received if to == "/generate"]
    assert len(set(texts)) == len(texts) > 4


def test_a_prompt_beside_that_fails_is_a_failure_of_the_run(run_client):
    class Handler(_Handler):
        def _stream(self, payload: dict[str, Any], number: int) -> None:
            super()._stream(payload, int(is_beside(payload)))

    with StandIn(Behaviour(hold=before(1), fault="http", fault_from=1)) as server:
        server._server.RequestHandlerClass = Handler
        words = ("--batch", "1", "--max-new-tokens", "20", "--warmup", "0")
        status, document, _ = run_client(server.url, *words, *BESIDE)
    assert status == 1 and document["summary"]["beside_failed"] > 0
    assert document["summary"]["failed"] == 0


def test_without_it_the_result_says_nothing_of_it(run_client):
    with StandIn(Behaviour()) as server:
        _, document, text = run_client(server.url, "--batch", "1", "--max-new-tokens", "2")
    assert "beside" not in json.dumps(document["requests"]) and "beside" not in text


@pytest.mark.parametrize(
    "words", [BESIDE[:2], BESIDE[2:], (*BESIDE, "--request-rate", "1"), (*BESIDE[:3], "0")]
)
def test_half_of_it_or_an_open_loop_is_refused(words):
    with pytest.raises(SystemExit):
        parse_options(words)

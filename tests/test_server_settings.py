"""What a running server is told between loads, and whether it has taken it, over HTTP."""

from __future__ import annotations

import json

import pytest
from standin_server import Behaviour, StandIn

from repro_pp_graphs.server.http import Server

NEWER, OLDER = "pp_max_micro_batch_size", "max_micro_batch_size"


@pytest.mark.parametrize("admits", [True, False])
@pytest.mark.parametrize("name", [NEWER, OLDER])
def test_each_release_is_told_by_the_name_that_its_own_state_has(name: str, admits: bool):
    with StandIn(Behaviour(micro_batch_name=name, admits_refusals=admits)) as stand_in:
        assert Server(stand_in.url).set_micro_batch(8) == ""
        assert stand_in.received == [("/set_internal_state", {"server_args": {name: 8}})]


@pytest.mark.parametrize("admits", [True, False])
def test_a_size_that_it_keeps_out_is_a_refusal_whatever_it_answers(admits: bool):
    with StandIn(Behaviour(most_in_micro_batch=4, admits_refusals=admits)) as stand_in:
        why = Server(stand_in.url).set_micro_batch(8)
    assert f"did not take it: its {NEWER} is 4" in why
    assert f"answered 200: [{str(not admits).lower()}]" in why
    assert "--max-running-requests / PP ranks" in why


def test_a_server_that_says_no_size_of_its_own_is_not_believed():
    with StandIn(Behaviour(micro_batch_name="chunked_prefill_size")) as stand_in:
        assert "does not say its own" in Server(stand_in.url).set_micro_batch(8)
        assert stand_in.received == []


@pytest.mark.parametrize("states", ["null", "[]", "[1]", '[{"max_micro_batch_size": "8"}]', "{}"])
def test_a_state_that_is_none_is_no_size(states: str, monkeypatch: pytest.MonkeyPatch):
    with StandIn() as stand_in:
        server = Server(stand_in.url)
        monkeypatch.setattr(server, "info", lambda: {"internal_states": json.loads(states)})
        assert "does not say its own" in server.set_micro_batch(8)

"""The numbers of messages: counted from the loop's begin, said in a profile only, or not given."""

from __future__ import annotations

import sys

import pytest
from pp_clock_fakes import SPANS, Batch, Profile, go, kinds, made
from programs import ran

from repro_pp_graphs.pp_clock import rows
from repro_pp_graphs.server.shims import pp_clock

__all__ = ["made"]  # a fixture


def test_messages_are_numbered_from_the_loops_begin_and_annotated_in_a_profile_only(made):
    kind, torch, _ = made
    scheduler = kind(torch)
    go(made, Batch(True, 1), Batch(True, 1), scheduler=scheduler)
    assert SPANS == []
    Profile.on = True
    scheduler.pp_group.send_tensor_dict({"next_token_ids": 1})
    torch.distributed.send(None, 0, group=scheduler.pp_group.device_group)
    torch.distributed.recv(None, src=0, group=scheduler.world_group.cpu_group)
    torch.distributed.send(None, dst=0, group=scheduler.pp_group.cpu_group, tag=7)
    torch.distributed.isend(None, 0)
    # two by the loop before; send and isend are one channel
    assert SPANS == [
        "pp_clock:send 1->0 pp #3",
        "pp_clock:send 1->0 pp #4",
        "pp_clock:recv 0->1 world_cpu #1",
        "pp_clock:send 1->0 pp_cpu/7 #1",
        "pp_clock:send 1->0 world #1",
    ]


def test_a_wait_for_sends_is_annotated_with_their_numbers_while_profiled(made):
    Profile.on = True  # that nothing is annotated without: above
    _, found = go(made, Batch(True, 1), Batch(True, 1), Batch(True, 1))
    assert kinds(found)["wait_sent_tokens"] == 2
    assert [span for span in SPANS if "recv" not in span] == [
        "pp_clock:send 1->0 pp #1",
        "pp_clock:wait send 1->0 pp #1",
        "pp_clock:send 1->0 pp #2",
        "pp_clock:wait send 1->0 pp #2",
        "pp_clock:send 1->0 pp #3",
    ]


A_REAL_BATCH = """
import threading
from types import SimpleNamespace
import torch
from torch import distributed
from repro_pp_graphs.server.shims.pp_clock.message_numbers import number_messages

distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
own = distributed.isend, distributed.irecv
clock = SimpleNamespace(
    thread=threading.get_ident(),
    profiled=lambda: False,
    alternates=False,
    later=[],
    take=lambda owner, name, wrapped, always: setattr(owner, name, wrapped),
)
number_messages(SimpleNamespace(), clock, torch)
assert distributed.isend is not own[0]
tensor = torch.zeros(1)
made = [
    distributed.P2POp(distributed.isend, tensor, 0),
    distributed.P2POp(op=distributed.irecv, tensor=tensor, peer=0),
    distributed.P2POp(own[0], tensor, peer=0),
]
assert [each.op for each in made] == [*own, own[0]], made
"""


@pytest.mark.slow
def test_torch_takes_what_is_numbered_into_a_batch():
    done = ran([sys.executable, "-c", A_REAL_BATCH])
    assert done.returncode == 0, done.stderr


def test_a_clock_that_alternates_numbers_no_messages_and_says_so(made, monkeypatch):
    monkeypatch.setenv(pp_clock.ALTERNATE_ENV, "2")
    Profile.on = True
    _, found = go(made, *[Batch(True, 1)] * 8)
    assert SPANS == []
    assert found.header["lacks"]["messages"] == "not numbered: the clock alternates"


def test_where_no_profile_is_to_be_taken_torchs_own_sends_stay(made, monkeypatch):
    monkeypatch.setenv(rows.NUMBERS_ENV, "0")
    _, torch, _ = made
    own = {name: getattr(torch.distributed, name) for name in ("send", "recv", "isend", "irecv")}
    _, found = go(made, *[Batch(True, 1)] * 3)
    assert {name: getattr(torch.distributed, name) for name in own} == own
    assert found.header["lacks"]["messages"] == "not numbered: no profile is to be taken"
    assert kinds(found)["send_tokens"] == 3

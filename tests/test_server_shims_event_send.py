"""The shim event_send: events are waited for where there are some, in the order of sync_send."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from fake_streams import Cuda
from pp_ring import ring, turns

from repro_pp_graphs.server.patching import device_messages
from repro_pp_graphs.server.shims import event_send, sync_send

__all__ = ["ring"]  # a fixture


@pytest.mark.parametrize(
    ("device", "kind"),
    [("cpu", device_messages.PageableCopies), ("cuda:1", device_messages.EventCopies)],
)
def test_events_are_waited_for_where_there_are_some(monkeypatch, device, kind):
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=Cuda()))
    found = event_send.copies(device)
    assert type(found) is kind and found.device == device


def test_event_send_is_sync_send_with_a_line_of_its_own(ring, caplog):
    with caplog.at_level("INFO"):
        busy = turns(3, 0, "#" * 9)
        normal = ring(3, busy, lambda scheduler: None)
        assert ring(3, busy, event_send.wait_on_events) == normal
    assert caplog.text.count(event_send.ACTIVE) == 3
    assert sync_send.ACTIVE not in caplog.text

"""Every release from 0.5.2 to 0.5.23 has what the clock takes hold of, or is known not to.

tests/data/pp_clock/hooks.json is what extract.py there reads of the releases' wheels.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from repro_pp_graphs.pp_clock import hooks
from repro_pp_graphs.server.release.installed import version_numbers

DATA = json.loads((Path(__file__).parent / "data/pp_clock/hooks.json").read_text(encoding="utf-8"))
RELEASES = {name: group for group in DATA for name in group["releases"]}
ASYNC = ("wait_sent", "wait_results")
P2P = {f"{place}.{name}" for place in ("dist", "torch.distributed") for name in ("send", "isend")}


def test_all_releases_are_there():
    numbers = sorted(version_numbers(name)[:3] for name in RELEASES)
    assert {each[2] for each in numbers} == set(range(2, 24)) and len(RELEASES) == 38


@pytest.mark.parametrize("release", RELEASES)
def test_every_hook_has_its_place_or_a_reason(release):
    found = hooks.resolve(RELEASES[release]["parameters"])
    lacks = hooks.lacking(found, version_numbers(release))
    old = version_numbers(release) < hooks.ASYNC_SENDS
    assert set(lacks) == (set(ASYNC) if old else set())
    assert not any(why.startswith("not in this release") for why in lacks.values())


@pytest.mark.parametrize("release", RELEASES)
def test_the_loop_calls_the_places_on_the_objects_that_are_wrapped(release):
    calls, found = RELEASES[release]["calls"], hooks.resolve(RELEASES[release]["parameters"])
    loop = {name for method in calls.values() for name in method}
    receiver = {"SchedulerRequestReceiver": "self.request_receiver.", "Scheduler": "self."}
    turn = found["turn"]
    assert turn is not None and receiver[turn.owner] + turn.name in calls["event_loop_pp"]
    wanted = ["self.run_batch", "self.process_batch_result", "point_to_point_pyobj"]
    wanted += ["self.pp_group.send_tensor_dict", "self.pp_group.recv_tensor_dict"]
    if found["wait_sent"]:
        wanted += [f"self.{place.name}" for name in ASYNC if (place := found[name])]
        # the event that comes last in what the exchange returns is what the loop waits for
        assert "d2h_event.synchronize" in calls["event_loop_pp"]
    assert not [name for name in wanted if name not in loop]


@pytest.mark.parametrize("release", RELEASES)
def test_every_message_goes_through_a_function_of_torch_that_is_numbered(release):
    calls = RELEASES[release]["calls"]
    assert P2P & set(calls["point_to_point_pyobj"])
    for name in ("send_object", "send_tensor_dict"):
        assert P2P & set(calls[f"GroupCoordinator.{name}"])


@pytest.mark.parametrize("release", RELEASES)
def test_requests_are_sent_and_received_by_modules_that_are_wrapped(release):
    users = RELEASES[release]["users"]
    assert [name for name in users if name.startswith("sglang.srt.managers.")]


def test_a_release_that_renames_a_function_is_named():
    known = dict(RELEASES["0.5.23"]["parameters"])
    known.pop("Scheduler._pp_commit_comm_work")
    lacks = hooks.lacking(hooks.resolve(known), (0, 5, 24))
    assert list(lacks) == ["wait_sent"] and "not in this release" in lacks["wait_sent"]


@pytest.mark.parametrize(
    ("place", "parameters"),
    [
        ("Scheduler.run_batch", ["self", "mode", "batch"]),
        ("GroupCoordinator.send_tensor_dict", ["self", "tensors"]),
        ("point_to_point_pyobj", ["data", "group", "src", "dst"]),
    ],
)
def test_a_release_with_other_parameters_is_not_wrapped(place, parameters):
    known = {**RELEASES["0.5.16"]["parameters"], place: parameters}
    lacks = hooks.lacking(hooks.resolve(known), (0, 5, 16))
    assert len(lacks) == 1 and "not in this release" in next(iter(lacks.values()))


def test_an_old_release_that_is_not_known_is_expected_to_have_all():
    assert set(ASYNC) <= set(hooks.lacking(hooks.resolve({}), ()))


def test_live_objects_are_asked_for_the_same_parameters():
    class Scheduler:
        def run_batch(self, batch, pp_proxy_tensors=None):
            pass

    functions = SimpleNamespace(point_to_point_pyobj=lambda data, rank, group, src, dst: None)
    found = hooks.parameters({"Scheduler": Scheduler(), "": functions, "ModelRunner": None})
    assert {name for name, place in hooks.resolve(found).items() if place} == {"launch", "requests"}

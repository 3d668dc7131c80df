"""Where the shim pp_clock takes hold of a release, and which releases have that place.

Looked up in the sources of every release from 0.5.2 to 0.5.23 (tests/data/pp_clock/hooks.json).
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

ASYNC_SENDS = (0, 5, 7)  # from here on sends leave works that are waited for later
REFUSED = "could not be put in place"
PARAMETERS = Mapping[str, Sequence[str]]  # "Scheduler.run_batch" -> its parameters, in order


class Place(NamedTuple):
    """A function that a release may have: its owner, its name, the parameters relied on."""

    owner: str  # a class; empty for a function of a module
    name: str
    needs: tuple[str, ...] = ()  # the first parameters, `self` left out

    def __str__(self) -> str:
        return f"{self.owner}.{self.name}" if self.owner else self.name

    def fits(self, found: PARAMETERS) -> bool:
        """Whether a release has it, with these parameters first."""
        names = [name for name in found.get(str(self), ("?",)) if name != "self"]
        return tuple(names[: len(self.needs)]) == self.needs and "?" not in names


class Hook(NamedTuple):
    """One thing that the clock times, and the places for it; the first that is there is used."""

    name: str
    times: str
    places: tuple[Place, ...]
    since: tuple[int, ...] = (0, 5, 2)
    before: str = ""  # what holds in releases before `since`
    shim: str = ""  # with which alone there is such a call, whatever the release


EXCHANGE = "exchange"  # takes the place of the sends and receives of token ids and hidden states
IN_EXCHANGE = ("send_tensors", "recv_tensors")
COMMIT_OUTPUT = "_pp_commit_send_output_work_and_preprocess_output_tensors"
HOOKS = (
    Hook(
        "turn",
        "where a turn begins: a micro-batch's requests are asked for",
        (
            Place("Scheduler", "ingest_requests"),
            Place("Scheduler", "recv_requests"),
            Place("SchedulerRequestReceiver", "recv_requests"),
        ),
    ),
    Hook("launch", "launch of the batch", (Place("Scheduler", "run_batch", ("batch",)),)),
    Hook(
        "own_batch",
        "first kernel of the batch, on CUDA",
        (Place("ModelRunner", "forward", ("forward_batch",)),),
    ),
    Hook(
        "send_tensors",
        "send of token ids, of hidden states",
        (Place("GroupCoordinator", "send_tensor_dict", ("tensor_dict",)),),
    ),
    Hook(
        "recv_tensors",
        "receive of token ids, of hidden states",
        (Place("GroupCoordinator", "recv_tensor_dict"),),
    ),
    Hook(
        EXCHANGE,
        "a turn's sends and receives in one batch",
        (Place("GroupCoordinator", "exchange_tensor_dicts", ("tensor_dicts",)),),
        shim="batched_p2p",
    ),
    Hook(
        "requests",
        "send and receive of the requests",
        (Place("", "point_to_point_pyobj", ("data", "rank", "group", "src", "dst")),),
    ),
    Hook(
        "wait_sent",
        "wait for an earlier asynchronous send",
        (Place("Scheduler", "_pp_commit_comm_work", ("work",)),),
        ASYNC_SENDS,
        "sends hold the host themselves: nothing is waited for later",
    ),
    Hook(
        "wait_results",
        "wait for the copy of the token ids to the host",
        (Place("Scheduler", COMMIT_OUTPUT),),
        ASYNC_SENDS,
        "the copy is waited for inside process_batch_result (process)",
    ),
    Hook(
        "process",
        "the host's work on a batch's results",
        (Place("Scheduler", "process_batch_result", ("batch", "result")),),
    ),
)


def resolve(found: PARAMETERS) -> dict[str, Place | None]:
    """Each hook's place in a release whose functions are `found`; None where it lacks it."""
    return {
        hook.name: next((place for place in hook.places if place.fits(found)), None)
        for hook in HOOKS
    }


def expected(hook: Hook, numbers: tuple[int, ...]) -> bool:
    """Whether a release should have the hook; one of unknown version should have all."""
    return not numbers or numbers >= hook.since


def lacking(places: Mapping[str, Place | None], numbers: tuple[int, ...]) -> dict[str, str]:
    """The hooks without a place: by name, what is not timed, or why there is nothing to time."""
    return {
        hook.name: f"not in this release: {hook.times} is not timed"
        if expected(hook, numbers)
        else hook.before
        for hook in HOOKS
        if places[hook.name] is None and not hook.shim
    }


def parameters(owners: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The parameters of the hooks' places in a live process; `owners` by name, "" for a namespace
    of plain functions, None where there is none."""
    found = {}
    for place in (place for hook in HOOKS for place in hook.places):
        with contextlib.suppress(Exception):  # a property may raise anything: it is no place
            function = getattr(owners.get(place.owner), place.name)
            if callable(function):
                found[str(place)] = _names(function)
    return found


def _names(function: Any) -> tuple[str, ...]:  # noqa: ANN401
    try:
        return tuple(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return ("?",)

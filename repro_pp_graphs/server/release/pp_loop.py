"""The PP loop of the releases with asynchronous sends (0.5.7 and newer), as far as shims change it.

Read from a release's sources without importing them: a shim that relies on a function which a
release has otherwise is refused before anything starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from repro_pp_graphs.server.release.release_source import ClassSource, text_of

LOOP_FILE = "srt/managers/scheduler_pp_mixin.py"
GROUP_FILE = "srt/distributed/parallel_state.py"
UTILS_FILE = "srt/utils/common.py"

EXCHANGE = "_pp_send_recv_and_preprocess_output_tensors"
COMM_OVERLAP = "SGLANG_PP_COMM_OVERLAP"  # a stream of its own for PP messages, from 0.5.21
ALREADY_SYNCHRONOUS = "this release's PP sends block as they are"
_UNKNOWN = "it does not know this release"

_OUTPUT_ARGUMENTS = ("next_first_rank_mb_id", "mbs", "last_rank_comm_queue", "pp_outputs")
# what is replaced or relied on: its parameters after self, the same from 0.5.7 to 0.5.23
_LOOP_SHAPES = {
    "event_loop_pp": (),
    "_pp_commit_comm_work": ("work",),
    "_pp_launch_batch": ("mb_id",),
    "_pp_process_batch_result": ("batch", "output_result"),
    "_pp_send_pyobj_to_next_stage": ("data", "async_send"),
    "_pp_send_dict_to_next_stage": ("tensor_dict", "async_send"),
    "_pp_send_output_to_next_stage": _OUTPUT_ARGUMENTS,
    EXCHANGE: (_OUTPUT_ARGUMENTS[0], "next_mb_id", "mbs", "mb_metadata", *_OUTPUT_ARGUMENTS[2:]),
}
_GROUP_SHAPES = {
    "send_object": ("obj", "dst", "async_send"),
    "recv_object": ("src",),
    "send_tensor_dict": ("tensor_dict", "dst", "all_gather_group", "async_send"),
    "recv_tensor_dict": ("src", "all_gather_group"),
}
_LATER_PARAMETERS = {"tag", "msg_type", "ready_event", "fence_next_forward"}
# shims hand on whatever this one is called with
_ANY_LATER = {"_pp_launch_batch"}
# the order of a turn that makes it safe to move sends and receives of requests and tokens
_TURN = (
    "_pp_send_pyobj_to_next_stage",
    "_pp_recv_proxy_tensors",
    "_pp_commit_send_output_work_and_preprocess_output_tensors",
    "_pp_launch_batch",
    "_pp_process_batch_result",
    "_pp_send_dict_to_next_stage",
)


class PPLoop(NamedTuple):
    """What decides whether a case's shims fit a release."""

    misfit: str  # why its loop cannot be changed by them; empty where it can
    own_stream: bool  # whether it can send PP messages on a stream of their own


def read(place: Path) -> PPLoop:
    """The loop of the sglang whose package folder is `place`, from its sources."""
    return PPLoop(misfit(place), COMM_OVERLAP in text_of(place, LOOP_FILE))


def misfit_of_remedy(loop: PPLoop) -> str:
    """Why a remedy that replaces blocking sends, as a shim makes them, does not suit a loop."""
    if loop.misfit != ALREADY_SYNCHRONOUS:
        return loop.misfit
    return (
        "it is made for the PP loop of 0.5.7 and newer, which this release has not (the probe has "
        "this remedy beside the send of 0.5.2: python -m repro_pp_graphs probe)"
    )


def misfit_of_own_stream(loop: PPLoop) -> str:
    """Why sends on a stream of their own, as a shim makes them, do not suit a loop."""
    if loop.own_stream:
        return (
            "this release has such a stream itself, which the case comm_overlap switches on "
            f"({COMM_OVERLAP})"
        )
    if loop.misfit == ALREADY_SYNCHRONOUS:
        return f"{loop.misfit}, and a stream of their own frees asynchronous sends alone"
    return loop.misfit


def module_name(file: str) -> str:
    """The module of a source file: `srt/utils/common.py` -> `sglang.srt.utils.common`."""
    return "sglang." + file.removesuffix(".py").replace("/", ".")


def misfit(place: Path) -> str:
    """Why the loop of the sglang whose package folder is `place` cannot be changed by the shims;
    empty where it can."""
    loop = ClassSource(text_of(place, LOOP_FILE), "SchedulerPPMixin")
    group = ClassSource(text_of(place, GROUP_FILE), "GroupCoordinator")
    if "async_send" not in loop.parameters("_pp_send_dict_to_next_stage"):
        if text_of(place, GROUP_FILE):
            return ALREADY_SYNCHRONOUS
        return f"no {GROUP_FILE} in {place}"
    for source, shapes in ((loop, _LOOP_SHAPES), (group, _GROUP_SHAPES)):
        for method, wanted in shapes.items():
            if not _fits(method, source.parameters(method), wanted):
                return f"{_UNKNOWN}: {method}({', '.join(source.parameters(method))})"
    if _order(loop.calls("event_loop_pp")) != _TURN:
        return f"{_UNKNOWN}: event_loop_pp sends in another order"
    for source, caller, callee in (
        (loop, EXCHANGE, "_pp_send_output_to_next_stage"),
        (group, "send_tensor_dict", "send_object"),
        (group, "recv_tensor_dict", "recv_object"),
    ):
        if callee not in source.calls(caller):
            return f"{_UNKNOWN}: {caller} does not call {callee}"
    return ""


def _fits(method: str, found: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether a method has the wanted parameters first, and no others but those known."""
    if tuple(found[: len(wanted) + 1]) != ("self", *wanted):
        return False
    return method in _ANY_LATER or set(found[len(wanted) + 1 :]) <= _LATER_PARAMETERS


def _order(calls: Sequence[str]) -> tuple[str, ...]:
    """The calls of a turn that _TURN names, each at its first place."""
    # from 0.5.21 the hidden states have a method of their own
    renamed = {"_pp_send_proxy_to_next_stage": "_pp_send_dict_to_next_stage"}
    named = [renamed.get(name, name) for name in calls]
    return tuple(dict.fromkeys(name for name in named if name in _TURN))

"""PP sends on a CUDA stream of their own, for releases before SGLANG_PP_COMM_OVERLAP (0.5.21).

As released, 0.5.7 to 0.5.20 send from the scheduler's stream: a send there waits for the rank's
own batch, and all that is queued behind it waits too, the next receive among it. With this shim a
stream that nothing else uses waits for the batch and sends, as in 0.5.21 with that variable:

    token ids       behind the event of their batch (last rank), or what has been received so far
    hidden states   behind the event of their batch, which the scheduler's stream no longer awaits
    sent            awaited on the stream of the sends; before a batch that may overwrite the buffer
                    of a CUDA graph's hidden states, by the stream of the batches

On a CPU there are no streams: the shim changes nothing there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from repro_pp_graphs.server import shim_names, shims
from repro_pp_graphs.server.patching.after_import import after_import
from repro_pp_graphs.server.release import pp_loop
from repro_pp_graphs.server.shims import sync_send

ACTIVE = shim_names.active("comm_stream")


def misfit(place: Path) -> str:
    """Why the shim does not suit the sglang whose package folder is `place`; empty if it does."""
    return pp_loop.misfit_of_own_stream(pp_loop.read(place))


class _Elsewhere:
    """The end of a batch, for which the stream of the sends waits and no other: what the PP loop
    lets its own stream wait for ends at once."""

    def __init__(self, event: Any) -> None:  # noqa: ANN401
        self.event = event

    def wait(self, stream: Any = None) -> None:  # noqa: ANN401
        """In place of torch.cuda.Event.wait, which Stream.wait_event calls."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self.event, name)


class _Sends:
    """One scheduler's sends on a stream of their own. `cuda` is torch.cuda."""

    def __init__(self, scheduler: Any, cuda: Any) -> None:  # noqa: ANN401
        self._scheduler, self._cuda = scheduler, cuda
        self._stream = cuda.Stream()
        self._of_tokens = False  # token ids are being sent
        self._graph = False  # the last batch ran as a CUDA graph
        self._sent: Any = None  # event: the hidden states of a graph have left
        self._send_dict = scheduler._pp_send_dict_to_next_stage
        self._send_output = scheduler._pp_send_output_to_next_stage
        self._commit = scheduler._pp_commit_comm_work
        self._launch = scheduler._pp_launch_batch

    def launch(self, *arguments: Any, **more: Any) -> tuple[Any, _Elsewhere]:  # noqa: ANN401
        """_pp_launch_batch, behind the sends from the buffers that it may overwrite."""
        if self._sent is not None:
            self._scheduler.forward_stream.wait_event(self._sent)
            self._sent = None
        result, event = self._launch(*arguments, **more)
        self._graph = bool(getattr(result, "can_run_cuda_graph", False))
        return result, _Elsewhere(event)

    def send_output(self, *arguments: Any, **more: Any) -> Any:  # noqa: ANN401
        """_pp_send_output_to_next_stage; on the last rank it awaits the batch on this stream."""
        if not self._scheduler.pp_group.is_last_rank:
            self._stream.wait_stream(self._cuda.current_stream())  # where they were received
        self._of_tokens = True
        try:
            with self._cuda.stream(self._stream):
                return self._send_output(*arguments, **more)
        finally:
            self._of_tokens = False

    def send_dict(self, tensor_dict: dict[str, Any], *arguments: Any, **more: Any) -> Any:  # noqa: ANN401
        """_pp_send_dict_to_next_stage, of hidden states behind the batch that made them."""
        if not self._of_tokens:
            self._stream.wait_event(self._scheduler.launch_event.event)
        with self._cuda.stream(self._stream):
            works = self._send_dict(tensor_dict, *arguments, **more)
        for value in tensor_dict.values():
            if getattr(value, "is_cuda", False):
                value.record_stream(self._stream)  # not to be reused before it has left
        return works

    def commit(self, work: list[Any], *arguments: Any, **more: Any) -> Any:  # noqa: ANN401
        """_pp_commit_comm_work: this stream waits for what was sent, not the scheduler's."""
        hidden = bool(work) and work is self._scheduler.send_proxy_work
        with self._cuda.stream(self._stream):
            result = self._commit(work, *arguments, **more)
        if hidden and self._graph:
            self._sent = self._cuda.Event()
            self._sent.record(self._stream)
        return result


def send_on_a_stream(scheduler: Any) -> None:  # noqa: ANN401
    """Replace one scheduler's sends; call it before its event_loop_pp begins."""
    import torch  # noqa: PLC0415

    group = scheduler.pp_group
    if not str(group.device).startswith("cuda"):
        return
    sends = _Sends(scheduler, torch.cuda)
    scheduler._pp_launch_batch = sends.launch
    scheduler._pp_send_output_to_next_stage = sends.send_output
    scheduler._pp_send_dict_to_next_stage = sends.send_dict
    scheduler._pp_commit_comm_work = sends.commit
    shims.announce(ACTIVE, group)


def install() -> None:
    """Patch sglang's PP loop once it is imported."""
    after_import(
        pp_loop.module_name(pp_loop.LOOP_FILE),
        lambda module: sync_send.patch(module, send_on_a_stream),
    )


def install_in_server() -> None:
    """In the process that spawns the ranks: end it where the shim does not suit the release."""
    sync_send.end_if_unfit("comm_stream", misfit)

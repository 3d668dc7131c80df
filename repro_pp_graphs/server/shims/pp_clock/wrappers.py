"""The functions that take the place of sglang's own: they call them, and time the call."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from time import monotonic_ns
from typing import Any

from repro_pp_graphs.pp_clock.rows import CODES
from repro_pp_graphs.server.shims.pp_clock.clock import Call, Clock

TOKENS = "next_token_ids"  # the entry of a message that makes it one of token ids
SENT = ("tokens", "hidden", "requests")  # what is waited for later
_WAIT_RESULTS = CODES["wait_results"]
_NOTHING = contextlib.nullcontext()


class Wrappers:
    """The functions that take the place of sglang's own, and call them."""

    def __init__(self, clock: Clock, scheduler: Any) -> None:  # noqa: ANN401
        self._clock = clock
        self._scheduler = scheduler
        self._asking = False

    def turn(self, call: Call) -> Call:
        """recv_requests or ingest_requests, once a turn."""
        clock = self._clock

        def next_turn(*args: Any, **more: Any) -> Any:  # noqa: ANN401
            if not self._asking:
                clock.next_turn()
            self._asking = True
            try:
                return call(*args, **more)
            finally:
                self._asking = False

        return next_turn

    def timed(self, kind: str, call: Call) -> Call:
        """Any call whose kind is known."""
        write, code, now = self._clock.write, CODES[kind], monotonic_ns

        def timed(*args: Any, **more: Any) -> Any:  # noqa: ANN401
            begin_ns = now()
            result = call(*args, **more)
            write(code, begin_ns, now())
            return result

        return timed

    def launch(self, call: Call) -> Call:
        """run_batch(batch, ...): also tells what the batch is, and whether a graph ran."""
        clock, now = self._clock, monotonic_ns

        def launch(batch: Any, *args: Any, **more: Any) -> Any:  # noqa: ANN401
            try:
                clock.batch(batch.forward_mode.is_decode(), len(batch.reqs))
            except Exception as error:
                clock.fail("the batch", error)
            begin_ns = now()
            result = call(batch, *args, **more)
            graph = getattr(result, "can_run_cuda_graph", False)
            clock.launched(begin_ns, now(), graph)
            return result

        return launch

    def forward(self, call: Call) -> Call:
        """ModelRunner.forward: the batch's first kernel follows."""
        before_kernels = self._clock.before_kernels

        def forward(*args: Any, **more: Any) -> Any:  # noqa: ANN401
            before_kernels()
            return call(*args, **more)

        return forward

    def send_tensors(self, call: Call) -> Call:
        """send_tensor_dict(tensor_dict, ...): of token ids, or of hidden states."""
        write, now = self._clock.write, monotonic_ns
        tokens, hidden = CODES["send_tokens"], CODES["send_hidden"]

        def send(tensor_dict: Any, *args: Any, **more: Any) -> Any:  # noqa: ANN401
            begin_ns = now()
            result = call(tensor_dict, *args, **more)
            write(tokens if _is_tokens(tensor_dict) else hidden, begin_ns, now())
            return result

        return send

    def recv_tensors(self, call: Call) -> Call:
        """recv_tensor_dict(...): what it was is known when it has come."""
        write, now = self._clock.write, monotonic_ns
        tokens, hidden = CODES["recv_tokens"], CODES["recv_hidden"]

        def receive(*args: Any, **more: Any) -> Any:  # noqa: ANN401
            begin_ns = now()
            result = call(*args, **more)
            write(tokens if _is_tokens(result) else hidden, begin_ns, now())
            return result

        return receive

    def requests(self, call: Call) -> Call:
        """point_to_point_pyobj(data, rank, group, src, dst, ...)."""
        write, now = self._clock.write, monotonic_ns
        sent, received = CODES["send_requests"], CODES["recv_requests"]

        def requests(data: Any, rank: int, *args: Any, **more: Any) -> Any:  # noqa: ANN401
            begin_ns = now()
            result = call(data, rank, *args, **more)
            end_ns = now()
            src = args[1] if len(args) > 1 else more.get("src", 0)
            write(sent if rank == src else received, begin_ns, end_ns)
            return result

        return requests

    def wait_sent(self, call: Call) -> Call:
        """_pp_commit_comm_work(work, ...): which works they are tells what was sent."""
        write, now, scheduler = self._clock.write, monotonic_ns, self._scheduler
        profiled = self._clock.profiled
        tokens, hidden, requests = (CODES[f"wait_sent_{what}"] for what in SENT)

        def wait(work: Any, *args: Any, **more: Any) -> Any:  # noqa: ANN401
            if not work:
                return call(work, *args, **more)
            if work is getattr(scheduler, "send_output_work", None):
                code = tokens
            elif work is getattr(scheduler, "send_proxy_work", None):
                code = hidden
            elif work is getattr(scheduler, "send_req_work", None):
                code = requests
            else:
                return call(work, *args, **more)
            if not profiled():
                begin_ns = now()
                result = call(work, *args, **more)
                write(code, begin_ns, now())
                return result
            begin_ns = now()
            with self._named(work):
                result = call(work, *args, **more)
            write(code, begin_ns, now())
            return result

        return wait

    def _named(self, work: Any) -> contextlib.AbstractContextManager[Any]:  # noqa: ANN401
        """For a profile, an annotation around the wait for sends: a trace shows no other sign of a
        wait in gloo that is not in the send's own call."""
        clock = self._clock
        try:
            name = clock.name_of_works(work)
        except Exception as error:
            clock.fail("the messages that are waited for", error)
            return _NOTHING
        return clock.span(name) if name else _NOTHING

    def wait_results(self, call: Call) -> Call:
        """The loop waits for the event that comes last in what this returns."""
        write = self._clock.write

        def exchange(*args: Any, **more: Any) -> Any:  # noqa: ANN401
            result = call(*args, **more)
            if isinstance(result, tuple) and hasattr(result[-1], "synchronize"):
                return (*result[:-1], _Event(result[-1], write))
            return result

        return exchange


class _Event:
    """An event whose synchronize is timed; everything else is the event's own."""

    __slots__ = ("_event", "_write")

    def __init__(self, event: Any, write: Callable[[int, int, int], None]) -> None:  # noqa: ANN401
        self._event = event
        self._write = write

    def synchronize(self) -> None:
        begin_ns = monotonic_ns()
        self._event.synchronize()
        self._write(_WAIT_RESULTS, begin_ns, monotonic_ns())

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._event, name)


def _is_tokens(message: Any) -> bool:  # noqa: ANN401
    try:
        return TOKENS in message
    except TypeError:
        return False

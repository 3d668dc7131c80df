"""Messages between neighbours: how sglang 0.5.2 sends them, and how 0.5.7 and later do.

Both orders of operations follow sglang's GroupCoordinator (send_object, send_tensor_dict) and
point_to_point_pyobj of those releases; what differs is said where it differs.
"""

from __future__ import annotations

import pickle
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ProcessGroup, Work
from torch.profiler import record_function

from repro_pp_graphs.probe.cells import Send
from repro_pp_graphs.probe.journal import CLOCK, Call, Journal, Moment
from repro_pp_graphs.probe.ring import Ring

# the named spans of newer releases, so that a trace of either reads the same
SPANS = {
    ("send", "tokens"): "send_res_dict_to_next_stage",
    ("recv", "tokens"): "recv_res_dict_from_prev_stage",
    ("send", "hidden"): "send_proxy_dict_to_next_stage",
    ("recv", "hidden"): "recv_proxy_dict_from_prev_stage",
    ("send", "requests"): "send_reqs_to_next_stage",
    ("recv", "requests"): "recv_requests",
}


class _Link:
    """What both ways share: the notes, a tensor's receive, and copies back behind an event."""

    def __init__(self, ring: Ring, journal: Journal, copies: bool) -> None:
        self.ring, self.journal = ring, journal
        self.copy_stream = torch.cuda.Stream() if copies and ring.cuda else None

    def _begin(self, op: str, what: str, turn: int) -> Call:
        peer = self.ring.next if op == "send" else self.ring.previous
        call = Call(op, what, peer, turn, CLOCK())
        self.journal.calls.append(call)
        return call

    def _recv_tensor(self, meta: dict[str, Any], call: Call) -> Tensor:
        """Receive what `meta` announces. Raises RuntimeError on a wrong number."""
        if meta["turn"] != call.turn:
            raise RuntimeError(
                f"took the {call.what} of turn {meta['turn']} for those of {call.turn}"
            )
        size, dtype = meta[call.what]
        tensor = torch.empty(size, dtype=dtype, device=self.ring.device)
        begin = self.journal.moment()
        call.began_ns = CLOCK()
        work = self.ring.post_recv(tensor, self.ring.device_group)
        call.posted_ns = CLOCK()
        work.wait()
        call.events = (begin if self.ring.cuda else call.posted_ns, self.journal.moment())
        return tensor

    def copy_back(self, tensor: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
        """Begin to read a tensor back: the host's copy and the event (None) that completes it."""
        if self.copy_stream is None:
            return tensor, None
        self.copy_stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.copy_stream):
            host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            host.copy_(tensor, non_blocking=True)
            tensor.record_stream(self.copy_stream)
            done = torch.cuda.Event()
            done.record()
        return host, done


class Blocking(_Link):
    """Sends as sglang 0.5.2: the metadata goes to the GPU from pageable memory (which waits for
    the stream, and so for the rank's own graph), its size over gloo (which waits for the peer),
    then metadata and tensor over NCCL. Receives mirror it and read back with a stream sync.
    """

    def __init__(self, ring: Ring, send: Send, journal: Journal) -> None:
        super().__init__(ring, journal, copies=send.events)
        own_stream = send.comm_stream and ring.cuda and ring.last
        self.comm_stream = torch.cuda.Stream() if own_stream else None
        self.kept: list[Tensor] = []  # tensors that a stream of our own may still read

    def send(
        self, what: str, tensor: Tensor, turn: int, ready: torch.cuda.Event | None = None
    ) -> None:
        """Send one tensor with its metadata to the next rank. `ready`: event after which the
        tensor may be read, where it is sent on a stream of its own."""
        call = self._begin("send", what, turn)
        stream = self.comm_stream if what == "tokens" else None
        with record_function(SPANS["send", what]), _on(stream):
            self._send_object({what: (tuple(tensor.shape), tensor.dtype), "turn": turn}, call)
            if stream is not None:
                stream.wait_event(ready)
                self.kept.append(tensor)
            begin = self.journal.moment()
            call.began_ns = CLOCK()
            work = self.ring.post_send(tensor, self.ring.device_group)
            call.posted_ns = CLOCK()
            work.wait()
            call.events = (begin, self.journal.moment())
        call.transfers.append("device")
        call.left_ns = CLOCK()

    def recv(self, what: str, turn: int) -> Tensor:
        """Receive one tensor from the previous rank. Raises RuntimeError on a wrong number."""
        call = self._begin("recv", what, turn)
        with record_function(SPANS["recv", what]):
            tensor = self._recv_tensor(self._recv_object(call), call)
        call.transfers.append("device")
        call.left_ns = CLOCK()
        return tensor

    def send_requests(self, turn: int) -> None:
        """Pass on that there are no new requests: a size of 0, on the device."""
        call = self._begin("send", "requests", turn)
        with record_function(SPANS["send", "requests"]):
            size = self._upload(torch.tensor([0], dtype=torch.long))
            call.uploaded_ns = CLOCK()
            self.ring.post_send(size, self.ring.device_group).wait()
        call.transfers.append("device")
        call.left_ns = CLOCK()

    def recv_requests(self, turn: int) -> None:
        """Wait for the previous rank's requests and read their size back."""
        call = self._begin("recv", "requests", turn)
        with record_function(SPANS["recv", "requests"]):
            size = torch.zeros(1, dtype=torch.long, device=self.ring.device)
            self.ring.post_recv(size, self.ring.device_group).wait()
            self.read_back(size)
        call.transfers.append("device")
        call.left_ns = CLOCK()

    def read_back(self, tensor: Tensor) -> Tensor:
        """The tensor on the host: with a sync of the stream, or of one event (`events`)."""
        host, done = self.copy_back(tensor)
        if done is None:
            return tensor.cpu()
        done.synchronize()
        return host

    def finish(self) -> None:
        """Nothing is under way once the stream is idle."""
        self.kept.clear()

    def _upload(self, tensor: Tensor) -> Tensor:
        if self.copy_stream is not None:
            return tensor.pin_memory().to(self.ring.device, non_blocking=True)
        return tensor.to(self.ring.device)

    def _send_object(self, obj: object, call: Call) -> None:
        payload = self._upload(torch.frombuffer(bytearray(pickle.dumps(obj)), dtype=torch.uint8))
        call.uploaded_ns = CLOCK()
        size = torch.tensor([payload.numel()], dtype=torch.long)
        self.ring.post_send(size, self.ring.cpu_group).wait()
        call.met_ns = CLOCK()
        self.ring.post_send(payload, self.ring.device_group).wait()
        call.transfers += ["cpu", "device"]

    def _recv_object(self, call: Call) -> dict[str, Any]:
        size = torch.empty(1, dtype=torch.long)
        self.ring.post_recv(size, self.ring.cpu_group).wait()
        call.met_ns = CLOCK()
        length = int(size.item())
        payload = torch.empty(length, dtype=torch.uint8, device=self.ring.device)
        self.ring.post_recv(payload, self.ring.device_group).wait()
        call.transfers += ["cpu", "device"]
        meta: dict[str, Any] = pickle.loads(self.read_back(payload).numpy().tobytes())
        return meta


class Async(_Link):
    """Sends as sglang 0.5.7 and later: metadata on the CPU group, everything by isend, waited for
    before the next send of its kind; results are read back behind an event on a copy stream.
    """

    def __init__(self, ring: Ring, journal: Journal) -> None:
        super().__init__(ring, journal, copies=True)
        self.under_way: dict[str, tuple[Call | None, list[tuple[Work, Tensor]]]] = {}
        # waits for sends on the device so that an event tells their end
        self.watch_stream = torch.cuda.Stream() if ring.cuda else None

    def send(self, what: str, tensor: Tensor, turn: int) -> None:
        """Post one tensor with its metadata to the next rank; `commit` it before the next."""
        call = self._begin("send", what, turn)
        with record_function(SPANS["send", what]):
            meta = {what: (tuple(tensor.shape), tensor.dtype), "turn": turn}
            works = self._post_object(meta, self.ring.cpu_group)
            begin = self.journal.moment()
            call.began_ns = CLOCK()
            work = self.ring.post_send(tensor, self.ring.device_group)
        call.posted_ns = call.left_ns = CLOCK()
        call.events = (begin, self._end(work))
        call.transfers += ["cpu", "cpu", "device"]
        self.under_way[what] = (call, [*works, (work, tensor)])

    def send_requests(self, turn: int) -> None:
        """Pass on that there are no new requests, over the CPU group."""
        call = self._begin("send", "requests", turn)
        with record_function(SPANS["send", "requests"]):
            works = self._post_object([], self.ring.request_group)
        call.transfers += ["requests", "requests"]
        call.left_ns = CLOCK()
        self.under_way["requests"] = (None, works)

    def commit(self, what: str) -> None:
        """Wait for the last send of that kind: the host for gloo, the stream for NCCL."""
        call, works = self.under_way.pop(what, (None, []))
        for work, _ in works:
            work.wait()
        if call is not None and call.events is not None:
            call.finished_ns = CLOCK()
            if self.watch_stream is None:
                call.events = (call.events[0], call.finished_ns)

    def recv(self, what: str, turn: int) -> Tensor:
        """Receive one tensor from the previous rank. Raises RuntimeError on a wrong number."""
        call = self._begin("recv", what, turn)
        with record_function(SPANS["recv", what]):
            meta = self._recv_object(self.ring.cpu_group)
            call.met_ns = CLOCK()
            tensor = self._recv_tensor(meta, call)
        call.left_ns = CLOCK()
        call.transfers += ["cpu", "cpu", "device"]
        return tensor

    def recv_requests(self, turn: int) -> None:
        """Wait for the previous rank's requests."""
        call = self._begin("recv", "requests", turn)
        with record_function(SPANS["recv", "requests"]):
            self._recv_object(self.ring.request_group)
        call.transfers += ["requests", "requests"]
        call.left_ns = CLOCK()

    def finish(self) -> None:
        """Wait for everything under way."""
        for what in list(self.under_way):
            self.commit(what)

    def _end(self, work: Work) -> Moment:
        if self.watch_stream is None:
            return None
        with torch.cuda.stream(self.watch_stream):
            work.wait()
            return self.journal.moment()

    def _post_object(self, obj: object, group: ProcessGroup) -> list[tuple[Work, Tensor]]:
        payload = torch.frombuffer(bytearray(pickle.dumps(obj)), dtype=torch.uint8)
        size = torch.tensor([payload.numel()], dtype=torch.long)
        return [(self.ring.post_send(each, group), each) for each in (size, payload)]

    def _recv_object(self, group: ProcessGroup) -> dict[str, Any]:
        size = torch.empty(1, dtype=torch.long)
        self.ring.post_recv(size, group).wait()
        payload = torch.empty(int(size.item()), dtype=torch.uint8)
        self.ring.post_recv(payload, group).wait()
        meta: dict[str, Any] = pickle.loads(payload.numpy().tobytes())
        return meta


def _on(stream: torch.cuda.Stream | None) -> AbstractContextManager[Any]:
    return nullcontext() if stream is None else torch.cuda.stream(stream)

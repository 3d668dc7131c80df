"""Time what a rank's host does in a turn of the PP loop, and number its messages while profiled.

Every row (repro_pp_graphs/pp_clock/rows.py) is one call: its begin and end on CLOCK_MONOTONIC, its
turn, its kind. What the clock takes hold of is in pp_clock/hooks.py. A fault of the clock stops the
clock, never the server; the header of the rank's file says so.

Environment: REPRO_PP_CLOCK, where the files go (`<that>_PP0_TP0.rows`); REPRO_PP_CLOCK_ROWS, rows a
rank; REPRO_PP_CLOCK_ALTERNATE=N, the clock is on for N turns, off for 2 N, on for 2 N, and so on:
what it costs. While it is off all but a turn's own row is as without the clock; messages are not
numbered in such a server.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections import defaultdict
from collections.abc import Callable
from threading import get_ident
from time import monotonic_ns
from types import ModuleType
from typing import Any

from repro_pp_graphs.pp_clock import hooks, rows
from repro_pp_graphs.pp_clock.device import DeviceClock
from repro_pp_graphs.pp_clock.rows import (
    CODES,
    LAST_OF_WORK,
    LOG_NOT_STARTED,
    NOT_STARTED,
    PREFIX_ENV,
    RowFile,
)
from repro_pp_graphs.server.after_import import after_import
from repro_pp_graphs.server.replace import replace

SCHEDULER = "sglang.srt.managers.scheduler"
ROWS_ENV = "REPRO_PP_CLOCK_ROWS"
ALTERNATE_ENV = "REPRO_PP_CLOCK_ALTERNATE"
ACTIVE = "repro shim pp_clock is active"  # a rank's line in the server's log
TOKENS = "next_token_ids"  # the entry of a message that makes it one of token ids
ANNOTATION = "pp_clock:"
SENT = ("tokens", "hidden", "requests")  # what is waited for later
P2P = ("send", "recv", "isend", "irecv")
ALWAYS = ("turn", "launch")  # hooks that stay while the clock is off: what a turn was
_LAUNCH, _TURN, _OWN_BATCH = CODES["launch"], CODES["turn"], CODES["own_batch"]
_WAIT_RESULTS = CODES["wait_results"]
_EXCHANGE = CODES["exchange"]

Call = Callable[..., Any]
_log = logging.getLogger(__name__)


class Clock:
    """One rank's clock: the turn that it is in, and the file that its rows go to.

    What runs between the results of a turn and the next launch delays the GPU, microsecond by
    microsecond: names there are looked up once, and what can be done later is done after the launch
    (DeviceClock.read).
    """

    def __init__(self, file: RowFile, alternate: int, profiled: Callable[[], bool]) -> None:
        self.file = file
        self.on = True  # rows are written; off in every second window, and after a fault
        self.turn = 0
        self.messages = 0
        self.device: DeviceClock | None = None
        self.profiled = profiled
        self.thread = get_ident()  # the scheduler's
        self._alternate = alternate
        self._taken: list[tuple[Any, str, Call, Call]] = []  # owner, name, its own, the clock's
        self._begin_ns = 0
        self._mark = 0  # rows before this turn's
        self._work = False
        self._flags = self._batch_size = self._without_work = 0
        self._missed = 0  # batches, as the header has them
        self._failed = False

    def take(self, owner: Any, name: str, wrapped: Call, always: bool) -> None:  # noqa: ANN401
        """Put a wrapped function in place; one that is not there `always` is taken away while the
        clock is off, so that its windows are without what the clock costs. Raises TypeError."""
        own = getattr(owner, name)
        replace(owner, name, wrapped)
        if not always and name in getattr(owner, "__dict__", ()):
            self._taken.append((owner, name, own, wrapped))

    @property
    def alternates(self) -> bool:
        """Whether it is off now and then."""
        return self._alternate > 0

    def _switch(self, on: bool) -> None:
        if on == self.on:
            return
        self.on = on
        for owner, name, own, wrapped in self._taken:
            before, after = (own, wrapped) if on else (wrapped, own)
            if getattr(owner, name) is before:  # not what another shim has put over it since
                replace(owner, name, after)

    def fail(self, what: str, error: Exception) -> None:
        """Stop for good, and say why."""
        try:
            self.stop(f"turn {self.turn}: {what}: {type(error).__name__}: {error}")
            _log.warning("repro shim pp_clock: stopped (%s: %r); the server goes on", what, error)
        except Exception:
            _log.exception("repro shim pp_clock: stopped; the server goes on")

    def stop(self, why: str) -> None:
        """No rows from now on; the file's header says why."""
        self._failed, self.on, self.device = True, False, None
        self.file.describe(failed=why)

    def write(self, kind: int, begin_ns: int, end_ns: int) -> None:
        """A call of this turn."""
        if not self.on or get_ident() != self.thread:
            return
        try:
            self.file.write(begin_ns, end_ns, self.turn, kind, 0, 0, self.messages)
        except Exception as error:
            self.fail("a row", error)
        if kind <= LAST_OF_WORK or kind == _EXCHANGE:
            self._work = True

    def batch(self, decode: bool, size: int) -> None:
        """The batch of this turn, before it is launched."""
        self._work = True
        self._flags |= rows.DECODE if decode else rows.PREFILL
        self._batch_size = min(size, 0xFFFF)
        if self.device and self.on:
            self.device.expect()

    def before_kernels(self) -> None:
        """The batch's first kernel is launched next."""
        if self.device and self.on and get_ident() == self.thread:
            try:
                self.device.begin()
            except Exception as error:
                self.fail("the event before a batch", error)

    def launched(self, begin_ns: int, end_ns: int, graph: bool) -> None:
        """The batch of this turn was launched: the GPU is busy, and earlier batches are read."""
        if self.device and self.on:
            try:
                self.device.end(self.turn)
                self.device.read(running=1)
            except Exception as error:
                self.fail("the events of a batch", error)
        self.write(_LAUNCH, begin_ns, end_ns)
        if graph:
            self._flags |= rows.GRAPH

    def next_turn(self) -> None:
        """A turn begins: the one before is over."""
        if self._failed or get_ident() != self.thread:
            return
        try:
            self._next_turn(monotonic_ns())
        except Exception as error:
            self.fail("a turn", error)

    def _next_turn(self, now_ns: int) -> None:
        worked = self._work
        if self._begin_ns:
            self._close(now_ns)
            self.turn += 1
        self._begin_ns, self._work, self._batch_size = now_ns, False, 0
        self._flags = rows.PROFILED if self.profiled() else 0
        if self._alternate:
            self._switch(self.turn // self._alternate % 4 in rows.ON_OF_FOUR)
            self._flags |= 0 if self.on else rows.OFF
        if self.device and self.on:
            if not worked:  # no launch may follow for long
                self.device.read()
                self._count_missed(self.device.missed)
            self.device.renew(now_ns)
        self._mark = self.file.count

    def _count_missed(self, missed: dict[str, int]) -> None:
        """In the header, which batches the GPU's clock did not time, where there are more now."""
        if sum(missed.values()) > self._missed:
            self._missed = sum(missed.values())
            self.file.describe(missed=missed)

    def _close(self, now_ns: int) -> None:
        if not self._work:  # a server without requests turns thousands of times a second
            self.file.count = self._mark
            self._without_work += 1
            return
        self.file.write(
            self._begin_ns,
            now_ns,
            self.turn,
            _TURN,
            self._flags,
            self._batch_size,
            self.messages,
            self._without_work,
        )
        self._without_work = 0

    def own_batch(self, turn: int, begin_ns: int, end_ns: int, width_ns: int) -> None:
        """What the GPU did for a batch of an earlier turn."""
        self.file.write(begin_ns, end_ns, turn, _OWN_BATCH, 0, 0, self.messages, width_ns)


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
            begin_ns = now()
            result = call(work, *args, **more)
            write(code, begin_ns, now())
            return result

        return wait

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


class Messages:
    """Numbers a rank's P2P messages by process group, sender and receiver, from 1.

    Both ends of a channel count the same messages in the same order, so equal numbers are the two
    ends of one message. While a profile runs each call is annotated with its number.
    """

    def __init__(
        self, clock: Clock, rank: int, names: dict[int, str], span: Callable[[str], Any]
    ) -> None:
        self._clock = clock
        self._rank = rank
        self._names = names  # of process groups, by id
        self._span = span
        # of sends and of receives: by group, peer and tag
        self._counts: dict[bool, defaultdict[tuple[int, Any, int], int]]
        self._counts = {side: defaultdict(int) for side in (True, False)}

    def batched(self, call: Call, sends: Call) -> Call:
        """torch.distributed's batch_isend_irecv; the op of a P2POp that sends is `sends`."""
        clock = self._clock

        def batch(p2p_op_list: Any) -> Any:  # noqa: ANN401
            if get_ident() != clock.thread:
                return call(p2p_op_list)
            try:
                names = self._names_in(p2p_op_list, sends)
            except Exception as error:
                clock.fail("the messages of a batch", error)
                return call(p2p_op_list)
            if not names:
                return call(p2p_op_list)
            with self._span(ANNOTATION + ", ".join(names)):
                return call(p2p_op_list)

        return batch

    def _names_in(self, p2p_op_list: Any, sends: Call) -> list[str]:  # noqa: ANN401
        """Count a batch's messages; what they are called, while a profile runs."""
        profiled = self._clock.profiled()
        names = []
        for each in p2p_op_list:
            side = each.op is sends
            key = (id(each.group), each.peer, each.tag)
            self._counts[side][key] = number = self._counts[side][key] + 1
            self._clock.messages += 1
            if profiled:
                names.append(self._name(side, each.group, each.peer, each.tag, number))
        return names

    def numbered(self, call: Call, sends: bool) -> Call:
        """torch.distributed's send, recv, isend or irecv."""
        clock, profiled, counts = self._clock, self._clock.profiled, self._counts[sends]
        side = "dst" if sends else "src"

        def message(  # the parameters of torch's own, whose second is dst or src
            tensor: Any,  # noqa: ANN401
            peer: Any = None,  # noqa: ANN401
            group: Any = None,  # noqa: ANN401
            tag: int = 0,
            **more: Any,  # noqa: ANN401
        ) -> Any:  # noqa: ANN401
            if more and peer is None:
                peer = more.pop(side, None)
            if get_ident() != clock.thread:
                return call(tensor, peer, group, tag, **more)
            key = (id(group), peer, tag)
            counts[key] = number = counts[key] + 1
            clock.messages += 1
            if not profiled():
                return call(tensor, peer, group, tag, **more)
            with self._span(ANNOTATION + self._name(sends, group, peer, tag, number)):
                return call(tensor, peer, group, tag, **more)

        return message

    def _name(self, sends: bool, group: Any, peer: Any, tag: int, number: int) -> str:  # noqa: ANN401
        """`send 1->0 pp_cpu #123`"""
        ends = f"{self._rank}->{peer}" if sends else f"{peer}->{self._rank}"
        where = self._names.get(id(group)) or getattr(group, "group_name", "other")
        channel = f"{where}/{tag}" if tag else where
        return f"{'send' if sends else 'recv'} {ends} {channel} #{number}"


def _owners(scheduler: Any) -> dict[str, Any]:  # noqa: ANN401
    """The live objects whose methods are wrapped, by the names that the hooks have for them."""
    worker = getattr(scheduler, "tp_worker", None)
    runner = getattr(worker, "model_runner", None)
    if runner is None:
        runner = getattr(getattr(worker, "worker", None), "model_runner", None)
    users = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("sglang.srt.managers.") and hasattr(module, "point_to_point_pyobj")
    ]
    return {
        "Scheduler": scheduler,
        "SchedulerRequestReceiver": getattr(scheduler, "request_receiver", None),
        "GroupCoordinator": getattr(scheduler, "pp_group", None),
        "ModelRunner": runner,
        "": users[0] if users else None,
        "users": users,
    }


def wrap(scheduler: Any, clock: Clock, version: tuple[int, ...]) -> dict[str, str]:  # noqa: ANN401
    """Put the clock's functions in place; the hooks that the release lacks, and why."""
    owners = _owners(scheduler)
    places = hooks.resolve(hooks.parameters(owners))
    wrappers = Wrappers(clock, scheduler)
    makers: dict[str, Callable[[Call], Call]] = {
        "turn": wrappers.turn,
        "launch": wrappers.launch,
        "own_batch": wrappers.forward,
        "send_tensors": wrappers.send_tensors,
        "recv_tensors": wrappers.recv_tensors,
        hooks.EXCHANGE: lambda call: wrappers.timed("exchange", call),
        "requests": wrappers.requests,
        "wait_sent": wrappers.wait_sent,
        "wait_results": wrappers.wait_results,
        "process": lambda call: wrappers.timed("process", call),
    }
    found, faults = {}, {}
    for name, place in places.items():
        if place is None or (places[hooks.EXCHANGE] and name in hooks.IN_EXCHANGE):
            continue
        try:
            for holder in owners["users"] if not place.owner else [owners[place.owner]]:
                wrapped = makers[name](getattr(holder, place.name))
                clock.take(holder, place.name, wrapped, name in ALWAYS)
            found[name] = str(place)
        except Exception as error:
            faults[name] = f"{hooks.REFUSED}: {error}"
    clock.file.describe(found=found)
    return hooks.lacking(places, version) | faults


def _group_names(scheduler: Any, torch: Any) -> dict[int, str]:  # noqa: ANN401
    """Short names of the process groups that PP messages go through, the same on every rank."""
    found = {id(None): "world", id(torch.distributed.group.WORLD): "world"}
    for name, group in (("world", "world_group"), ("pp", "pp_group")):
        coordinator = getattr(scheduler, group, None)
        for kind, suffix in (("device_group", ""), ("cpu_group", "_cpu")):
            found[id(getattr(coordinator, kind, found))] = name + suffix
    return found


def _no_span(_name: str) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


def number_messages(scheduler: Any, clock: Clock, torch: Any) -> None:  # noqa: ANN401
    """Count, and in a profile annotate, every P2P message of this process's scheduler thread."""
    distributed = torch.distributed
    # a clock that alternates misses messages: it counts them, but their numbers are not the same on
    # both ends, and are not shown
    span = _no_span if clock.alternates else torch.profiler.record_function
    rank = distributed.get_rank() if distributed.is_initialized() else 0
    messages = Messages(clock, rank, _group_names(scheduler, torch), span)
    numbered: dict[Call, Call] = {}  # what torch knows a call by
    for name in P2P:
        call = getattr(distributed, name)
        counting = messages.numbered(call, name.endswith("send"))
        numbered[counting] = call
        clock.take(distributed, name, counting, always=False)
    _batches_take(distributed, numbered)
    if batch := getattr(distributed, "batch_isend_irecv", None):
        sends = next(call for counting, call in numbered.items() if counting is distributed.isend)
        distributed.batch_isend_irecv = messages.batched(batch, sends)


def _batches_take(distributed: Any, numbered: dict[Call, Call]) -> None:  # noqa: ANN401
    """torch refuses a batch_isend_irecv of any isend but its own: it gets that, and the batch
    numbers what is in it (`number_messages`).

    sglang's expert balancing has such batches, batched_p2p too.
    """
    kind = getattr(distributed, "P2POp", None)
    if kind is None:
        return
    new, init = kind.__new__, kind.__init__

    def own_new(cls: Any, op: Call, *args: Any, **more: Any) -> Any:  # noqa: ANN401
        return new(cls, numbered.get(op, op), *args, **more)

    def own_init(self: Any, op: Call, *args: Any, **more: Any) -> None:  # noqa: ANN401
        init(self, numbered.get(op, op), *args, **more)

    kind.__new__, kind.__init__ = own_new, own_init


def _device_clock(clock: Clock, torch: Any) -> str:  # noqa: ANN401
    """Time the batches on the GPU too; why not, where that is not possible."""
    if not torch.cuda.is_available():
        return "no CUDA here: how long a batch runs is not known"
    try:
        raw_stream = getattr(torch._C, "_cuda_getCurrentRawStream", None)
        clock.device = DeviceClock(torch.cuda, clock.own_batch, raw_stream)
    except Exception as error:
        return f"no CUDA events: {type(error).__name__}: {error}"
    return ""


def _version(module: ModuleType | None) -> str:
    return str(getattr(module, "__version__", ""))


def start(scheduler: Any, prefix: str) -> Clock:  # noqa: ANN401
    """Begin a rank's rows and wrap what they time. Raises OSError without room for them, and what a
    release raises that is unlike those known; the clock is stopped then."""
    import torch  # noqa: PLC0415

    group = scheduler.pp_group
    pp_rank, pp_size = group.rank_in_group, group.world_size
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else pp_rank
    tp_rank = rank % max(1, torch.distributed.get_world_size() // pp_size)
    path = rows.path_of(prefix, pp_rank, tp_rank)
    wanted = int(os.environ.get(ROWS_ENV) or rows.CAPACITY)
    file = RowFile(path, rows.capacity_for(path.parent, wanted))
    alternate = int(os.environ.get(ALTERNATE_ENV) or 0)
    profiled = getattr(torch.autograd, "_profiler_enabled", None)
    clock = Clock(file, alternate, profiled or (lambda: False))
    version = _version(sys.modules.get("sglang"))
    file.describe(
        pid=os.getpid(),
        pp_rank=pp_rank,
        pp_size=pp_size,
        tp_rank=tp_rank,
        loop_size=pp_size + _depth(scheduler),
        sglang_version=version,
        alternate=alternate,
        **rows.host_clock(),
    )
    try:
        lacks = _take_hold(scheduler, clock, version, torch)
    except Exception as error:
        clock.stop(f"{NOT_STARTED}: {type(error).__name__}: {error}")
        raise
    if alternate:
        lacks["messages"] = "not numbered: the clock alternates"
    if profiled is None:
        lacks["messages"] = "not in this release: torch does not tell whether a profile runs"
    file.describe(lacks=lacks)
    _log.info(
        "%s: PP rank %d of %d, rows in %s; lacks %s",
        ACTIVE,
        pp_rank,
        pp_size,
        path,
        "; ".join(f"{name} ({why})" for name, why in lacks.items()) or "nothing",
    )
    return clock


def _take_hold(scheduler: Any, clock: Clock, version: str, torch: Any) -> dict[str, str]:  # noqa: ANN401
    """Put everything in place that can be; what cannot, and why."""
    from repro_pp_graphs.server.release import version_numbers  # noqa: PLC0415

    lacks = wrap(scheduler, clock, version_numbers(version) if version else ())
    try:
        number_messages(scheduler, clock, torch)
    except Exception as error:
        lacks["messages"] = f"{hooks.REFUSED}: {type(error).__name__}: {error}"
    if why := _device_clock(clock, torch):
        lacks["own_batch"] = why
    return lacks


def _depth(scheduler: Any) -> int:  # noqa: ANN401
    """Batches in flight beyond one a rank (0.5.7 and newer)."""
    arguments = getattr(scheduler, "server_args", None)
    return int(getattr(arguments, "pp_async_batch_depth", 0) or 0)


def patch(module: ModuleType) -> None:
    """Start the clock of every scheduler of that module as its event_loop_pp begins."""
    scheduler = module.Scheduler
    loop = scheduler.event_loop_pp

    def event_loop_pp(self: Any) -> Any:  # noqa: ANN401
        try:
            start(self, os.environ[PREFIX_ENV])
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            _log.exception("%s (%s); the server goes on without it", LOG_NOT_STARTED, why)
        return loop(self)

    scheduler.event_loop_pp = event_loop_pp


def install() -> None:
    """Patch sglang's scheduler once it is imported, where it is known where the rows go."""
    if os.environ.get(PREFIX_ENV):
        after_import(SCHEDULER, patch)

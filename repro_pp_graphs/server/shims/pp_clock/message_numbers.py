"""The numbers of a rank's P2P messages, by which a profile pairs them."""

from __future__ import annotations

import contextlib
from collections import defaultdict, deque
from collections.abc import Callable
from threading import get_ident
from typing import Any

from repro_pp_graphs.server.shims.pp_clock.clock import Call, Clock

ANNOTATION = "pp_clock:"
P2P = ("send", "recv", "isend", "irecv")
MOST_ON_THEIR_WAY = 64  # a turn has some ten
MOST_UNCOUNTED = 1 << 10  # messages


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
        self._uncounted: list[tuple[defaultdict[Any, int], Any, Any, int]] = []
        clock.later.append(self._count)
        # messages of the last sends that did not wait, by their works, which it keeps alive so that
        # no other work is taken for one of them
        self._on_their_way: deque[tuple[Any, str]] = deque(maxlen=MOST_ON_THEIR_WAY)

    def _count(self) -> None:
        """What was sent and received since, in its order."""
        for counts, group, peer, tag in self._uncounted:
            counts[id(group), peer, tag] += 1
        self._uncounted.clear()

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
        self._count()
        profiled = self._clock.profiled()
        names = []
        for each in p2p_op_list:
            side = each.op is sends
            key = (id(each.group), each.peer, each.tag)
            self._counts[side][key] = number = self._counts[side][key] + 1
            if profiled:
                names.append(self._name(side, each.group, each.peer, each.tag, number))
        return names

    def numbered(self, call: Call, sends: bool) -> Call:
        """torch.distributed's send, recv, isend or irecv."""
        clock, profiled, counts = self._clock, self._clock.profiled, self._counts[sends]
        uncounted = self._uncounted
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
            uncounted.append((counts, group, peer, tag))
            if len(uncounted) > MOST_UNCOUNTED:  # the clock has stopped, which settles no more
                self._count()
            if not profiled():
                return call(tensor, peer, group, tag, **more)
            self._count()
            name = self._name(sends, group, peer, tag, counts[id(group), peer, tag])
            with self._span(ANNOTATION + name):
                work = call(tensor, peer, group, tag, **more)
            if sends and work is not None:
                self._on_their_way.append((work, name))
            return work

        return message

    def name_of_works(self, p2p_works: Any) -> str:  # noqa: ANN401
        """What a wait for sends is called: `pp_clock:wait send 0->1 pp_cpu #7, send 0->1 pp #8`;
        empty where no message of it is known. `p2p_works`: sglang's, each with torch's `work`."""
        known = {id(work): name for work, name in self._on_their_way}
        names = [
            known[key] for each in p2p_works if (key := id(getattr(each, "work", None))) in known
        ]
        return f"{ANNOTATION}wait {', '.join(names)}" if names else ""

    def _name(self, sends: bool, group: Any, peer: Any, tag: int, number: int) -> str:  # noqa: ANN401
        """`send 1->0 pp_cpu #123`"""
        ends = f"{self._rank}->{peer}" if sends else f"{peer}->{self._rank}"
        where = self._names.get(id(group)) or getattr(group, "group_name", "other")
        channel = f"{where}/{tag}" if tag else where
        return f"{'send' if sends else 'recv'} {ends} {channel} #{number}"


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
    if not clock.alternates:
        clock.name_of_works, clock.span = messages.name_of_works, span
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

"""The analysis of a case as types: what `analyze` finds, `--json` writes and other steps read.

Times are us (the fields end in `_us`, or the struct says so), shares 0 to 1, rank labels `3`, with
tensor parallelism `3.1` (PP rank, TP rank). None is JSON's null, but for a field of type `Nothing`,
whose JSON is an empty object, and for a field whose default it is, which the JSON then lacks.
Light to import: no numpy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args, get_type_hints

import msgspec

from repro_pp_graphs.files import not_ours, read_object

Nothing = Annotated[
    None, msgspec.Meta(extra_json_schema={"type": "object", "maxProperties": 0})
]  # None here, {} in the JSON: so schema 1 has it

# a warning that says nothing of a run that is known to be on a CPU
NO_KERNELS = "no GPU kernels: a CPU run, or the profiler recorded none"

# What a host is in, as rows of a turn (docs/traces.md, Turns).
RowName = Literal[
    "token_send",
    "token_recv",
    "hidden_send",
    "hidden_recv",
    "exchange",
    "requests",
    "other_messages",
    "results",
    "launch",
    "python",
    "host",
]
# What a host waits for.
Cause = Literal["own_graph", "own_compute", "peer_late", "transfer", "otherwise"]
# What a decode step waits for (docs/ring_path.md).
PathCategory = Literal[
    "graph",
    "eager",
    "launch",
    "transfer",
    "queueing",
    "shared_gpu",
    "peer_late",
    "host",
    "sync",
    "unexplained",
]
# How the last rank's token send behaves (explain/send_behaviour.py).
Manner = Literal["on_device", "synchronous", "asynchronous", "batched", "unknown"]


class Spread(msgspec.Struct, frozen=True):
    """Mean, median, 99th percentile and maximum of one or more values (us)."""

    mean: float
    median: float
    p99: float
    max: float


class ClockBounds(msgspec.Struct, frozen=True):
    """Between what `clock of b - clock of a` lies, us; None where nothing bounds it."""

    low_us: float | None
    high_us: float | None


class RankClocks(msgspec.Struct, frozen=True):
    """ClockBounds of two global ranks."""

    a: int
    b: int
    low_us: float | None
    high_us: float | None


class HostClocks(msgspec.Struct, frozen=True):
    """Between what `clock of b - clock of a` lies as recorded, us (None where nothing bounds it),
    and what the analysis rests it on."""

    a: str  # a host's name
    b: str
    low_us: float | None
    high_us: float | None
    moved_us: float  # added to the times of b against those of a; 0: they are as recorded
    messages: int  # pairs between the two hosts
    numbered: int  # of them, those that pp_clock numbered


class ChannelFacts(msgspec.Struct, frozen=True):
    """One process group on an edge: its operations, and how they are paired."""

    group: str  # the process group's name, where the trace has it
    sends: int
    recvs: int
    offset: int | None  # index of a recv less that of its send, in most pairs
    pairs: int
    clock_ahead_us: float  # how far the receiver's clock was taken to be ahead to find them


class NumberedPairs(msgspec.Struct, frozen=True):
    """Pairs by the messages' numbers (pp_clock), and what order and times alone say of them."""

    pairs: int
    same: int  # paired the same by order and times
    other: int  # pairs by order and times that contradict the numbers


class EdgeFacts(msgspec.Struct, frozen=True):
    """The P2P of one backend from one rank to another; spreads are over the pairs, us."""

    src: int  # PP rank
    dst: int  # PP rank
    tp: int  # TP rank of the sender
    backend: Literal["nccl", "gloo"]
    sends: int
    recvs: int
    offset: int | None  # of the channel with most pairs
    pairs: int
    unmatched_sends: int
    unmatched_recvs: int
    unpairable: str | None  # why the channel with most pairs has none
    channels: list[ChannelFacts]
    buffered: int  # pairs whose send was over before the recv began
    transfer_us: Spread | Nothing  # from when both have begun until both are over
    shorter_us: Spread | Nothing  # the shorter one of send and recv
    send_wait_us: Spread | Nothing  # the send has begun, the recv has not
    recv_wait_us: Spread | Nothing  # the recv has begun, the send has not
    lag_us: Spread | Nothing  # end of the recv less end of the send
    clock_us: ClockBounds  # of the receiver's clock against the sender's
    by_number: NumberedPairs | None = None  # None: no numbers, pairs are by order and times


class DecodeStep(msgspec.Struct, frozen=True):
    """Decode steps, us: how many were followed, from one batch of a micro-batch to its next.

    `micro_batches`: batches that rank 0 sends off in one step; steps with another number of them
    are not counted, and where those are many there is no DecodeStep.
    """

    steps: int
    mean: float
    median: float
    p99: float
    micro_batches: int


class PathPart(msgspec.Struct, frozen=True):
    """A part of a decode step on the critical path, us a step: its mean, and the standard error of
    that over the steps (None: of too few)."""

    mean: float
    error: float | None


class RingPath(msgspec.Struct, frozen=True, kw_only=True):
    """What a decode step waits for on its way round the ring, us a step (docs/ring_path.md).

    The step goes from a launch on PP0 to the next launch of the same micro-batch. `categories`,
    `ranks` (by rank label, then category) and, of the host's part, `host` (by what it does) add up.
    """

    steps: int  # followed
    steps_there: int  # whose two launches lie in the time in which every rank was recorded
    batches_there: int  # that PP0 ran in that time; of many, the steps are in the middle of it
    left_out: dict[str, int]  # why the others were not followed
    micro_batches: int  # under way at a time
    step_us: Spread
    step_error: float | None  # of its mean, as in PathPart
    categories: dict[PathCategory, PathPart]  # the means add up to the step's
    ranks: dict[str, dict[PathCategory, float]]
    graph_steps: dict[str, int] | None = None  # with a rank's own decode graph on their path
    host: dict[str, float]  # longest first
    steady_us: float  # the mean step of those that `what_if` is about: after the first few
    retimed_us: float  # the same from usual latencies alone, with nothing unexplained
    what_if: dict[str, float]  # the step if ... took no time, or with a remedy; empty: cannot tell
    what_if_unknown: str  # why it cannot be estimated


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """A part of a rank's turn, us a turn: mean and p99.

    `waits`: of the mean, what the host waits for; `peer_in`: while a peer is late, the row that the
    peer's host is in, us a turn, known on a common clock; `under_own_graph` and `gpu_idle`: of the
    mean, while a decode graph of the rank runs, and while no compute kernel of it runs (None
    without GPU work); `gpu_idle_of_all`: while none of any rank on its GPU does, where it is known
    to share one; `calls`: its calls that block, with what they take, us a turn.
    """

    mean: float
    p99: float
    waits: dict[Cause, float]
    peer_in: dict[RowName, float]
    under_own_graph: float | None
    gpu_idle: float | None
    calls: dict[str, float]
    gpu_idle_of_all: float | None = None


class Turn(msgspec.Struct, frozen=True, omit_defaults=True):
    """A rank's turns, us: how many were seen, their length, and what they are made of.

    `rows` add up to `mean`; `gpu_idle`: of the mean, while no compute kernel of the rank runs,
    `gpu_idle_of_all`: while none of any rank on its GPU does, where it is known to share one;
    `spans`: of the time in no call or in operators, sglang's own annotation around it.
    """

    turns: int
    mean: float
    median: float
    p99: float
    rows: dict[RowName, Row]
    gpu_idle: float | None
    spans: dict[str, float]
    gpu_idle_of_all: float | None = None


class Portion(msgspec.Struct, frozen=True, omit_defaults=True):
    """A token send, or the time until it is delivered, by #10865's three numbers, us."""

    send: Spread  # its whole length
    overlapped_with_graph: Spread  # a kernel of a decode graph of the rank runs
    idle: Spread  # no compute kernel of the rank runs
    idle_of_all: Spread | None = None  # none of any rank on its GPU, where it is known to share one


class HostSplit(msgspec.Struct, frozen=True):
    """What the host does in a token send, us; the means add up to its length."""

    blocked_on_own_graph: Spread  # in a CUDA call, while a decode graph of the rank runs
    blocked_on_own_compute: Spread  # in one, while other compute kernels of the rank run
    peer_late: Spread  # it waits for the receiver to begin its receive
    transfer: Spread  # it waits, both have begun
    blocked_otherwise: Spread  # it waits, and nothing of this rank explains it
    other_host: Spread  # it does not wait


class DeliverySplit(msgspec.Struct, frozen=True):
    """What goes on until a token send is delivered, us; the means add up to that time."""

    peer_late: Spread  # a send is under way, its receive has not begun
    transfer: Spread  # both have begun
    own_graph: Spread  # a decode graph of the rank runs
    own_compute: Spread  # other compute kernels of the rank run
    other: Spread  # no send is under way yet


class BlockingCall(msgspec.Struct, frozen=True):
    """A CUDA call that held the host in the counted token sends: how often, how long in all."""

    name: str
    calls: int
    total_us: int


class TokenReturn(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The last rank's send of the token ids to rank 0; spreads are over the steps counted, us.

    The groups that default to None are absent where no step has them.
    """

    src: int  # PP rank
    dst: int  # PP rank
    steps: int  # token sends in the trace
    steps_there: int  # decode steps while all ranks were recorded, by whatever shows most
    prefill_steps: int  # left out
    prefill_us: Spread | Nothing  # the host's span in these
    steps_counted: int  # whose send is seen whole
    enough: bool  # so many of them that a conclusion can rest on them
    gaps: dict[str, int]  # why the others are not counted, and how many
    found_by: str  # by what token sends were recognised
    delivered_counted: int  # of those counted, when the last byte has left is known
    delivery_enough: bool  # so many of them that a conclusion can rest on them
    delivery_us: Portion | None = None  # from the send's begin until the last byte has left
    delivery_split_us: DeliverySplit | None = None  # what goes on meanwhile
    delivery_earliest_us: Spread | None = None  # at the least, of a send in a batch's kernel
    host_us: Portion | None = None  # the span of the host that sends
    split_us: HostSplit | None = None  # what the host does in it
    until_received_us: Spread | None = None  # from the send's begin until rank 0 has received it
    upload_us: Spread | None = None  # the copy of the metadata to the GPU
    blocking_calls: list[BlockingCall]  # the longest in all first
    delivery_known: bool  # in enough steps, and by clocks that agree well enough


class RankFacts(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A rank's use of the window, and its steps."""

    busy_fraction: float | None  # it computes; without a GPU: it runs a batch
    p2p_fraction: float | None  # only P2P runs; without a GPU: it receives
    idle_fraction: float | None  # the rest; the three add up to 1
    basis: Literal["gpu", "host"] | None = None  # of the fractions; absent without a window
    batches: int | None  # None: nothing in the trace shows them
    modes: dict[str, int]  # batches by forward mode, as annotated
    decode_batch_sizes: dict[str, int]  # decode steps by the number of sequences in them
    graph_launches: int
    graph_us: float | None  # median time from a graph's first kernel to its last; None: no graph
    next_batch_us: float | None = None  # median of sglang's get_next_batch_to_run; None: not shown
    kernels_a_batch: float | None = None  # compute kernels, a batch's median; None: not known


class GpuFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU of several ranks, and what all of them do on it together.

    `shared` None: they may share it (in their files it has the same number), which nothing settles;
    the fractions are then those that would be if they did.
    """

    number: str  # as in the ranks' files; empty where only the run's record tells
    ranks: list[str]  # labels
    shared: bool | None
    why: str  # how it is known that they share it
    busy_fraction: float | None  # work of any of them runs; None without a window
    p2p_fraction: float | None  # only P2P runs
    idle_fraction: float | None  # the rest; the three add up to 1


class Ring(msgspec.Struct, frozen=True):
    """The pipeline bubble, against that of equal stages."""

    micro_batches: int | None  # under way at a time; None: not known
    # 1 - mean of the GPUs' busy_fraction; None: also where ranks may share a GPU or not
    bubble_fraction: float | None
    ideal_bubble_fraction: float | None  # 1 - micro_batches / pp_size: of a GPU a stage


class Analysis(msgspec.Struct, frozen=True, kw_only=True):
    """The analysis of one case: its JSON contract is `schema` 1."""

    schema: Literal[1] = 1
    case: str
    pp_size: int
    tp_size: int
    window_us: float  # the time in which every rank was recorded; 0: there is none
    hosts: list[str]
    gpu_models: list[str] = []  # by name; empty where the files do not say
    hidden_size: int | None = None  # elements of hidden states a sequence; None: not known
    p2p: list[EdgeFacts]  # what carries tensors: NCCL, without a GPU gloo
    p2p_gloo: list[EdgeFacts]  # gloo beside NCCL
    p2p_without_metadata: dict[str, int]  # P2P kernels that name no peer, by rank label
    clocks: list[RankClocks]  # of every two ranks
    host_clocks: list[HostClocks] = []  # of every two hosts; empty for one
    gpu_only: bool  # the profiler recorded no CPU activities
    sends: Manner
    decode_step: DecodeStep | None
    decode_step_unknown: str  # why it is not known
    ring_path: RingPath | None = None
    ring_path_unknown: str = ""  # why there is none
    what_if_not_given: dict[str, str] = {}  # asked for by --what-if: why there is none
    turns: dict[str, Turn]  # by rank label
    turns_unknown: dict[str, str]  # why a rank has none
    token_return: TokenReturn | Nothing
    graph_launches: dict[str, int]  # cudaGraphLaunch calls of the host, by rank label
    ranks: dict[str, RankFacts]  # by rank label
    shared_gpus: list[GpuFacts] = []  # those of several ranks; empty: each rank has its own
    ring: Ring
    warnings: list[str]

    def label_of_last(self) -> str:
        """The label of the last PP rank, of its first TP lane."""
        return f"{self.pp_size - 1}" + (".0" if self.tp_size > 1 else "")


class Analyses(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` writes for several cases: each analysis by its case's name."""

    schema: Literal[1] = 1
    cases: dict[str, Analysis]


_EMPTY = frozenset(
    name
    for kind in (Analysis, EdgeFacts, TokenReturn)
    for name, hint in get_type_hints(kind, include_extras=True).items()
    if Nothing in get_args(hint)
)


def document(found: Analysis | Analyses) -> dict[str, Any]:
    """The JSON object of an analysis."""
    return cast(dict[str, Any], _with(msgspec.to_builtins(found), None, {}))


def from_document(value: dict[str, Any]) -> Analysis:
    """The inverse of `document` for one case; keys that no field has are passed over.

    Raises msgspec.ValidationError, whose text names the place, where something else is in it.
    """
    return msgspec.convert(_with(value, {}, None), Analysis)


def _with(value: object, old: object, new: object) -> object:
    """A copy in which the fields of type Nothing have another value for none."""
    if isinstance(value, dict):
        return {
            key: new if key in _EMPTY and each == old else _with(each, old, new)
            for key, each in value.items()
        }
    return [_with(each, old, new) for each in value] if isinstance(value, list) else value


def read_analysis(path: Path) -> Analysis:
    """The analysis in a file that `--json` wrote for one case.

    Raises OSError where it cannot be read, BadFile where it is empty, cut off, or something else.
    """
    try:
        return from_document(read_object(path))
    except msgspec.ValidationError as error:
        raise not_ours(path, str(error)) from None

"""What the clock's rows say of a launch: logs/<label>_pp_clock.json, and a launch's `pp_clock` in
summary.json. Times are ms of the ranks' hosts."""

from __future__ import annotations

from typing import Literal

import msgspec

# of a turn, by the batch that it launches; beside_prefill: one that decodes while a micro-batch of
# the same rank's that is in flight prefills
Mode = Literal["decode", "beside_prefill", "prefill"]
ENOUGH_TURNS = 20  # of a kind, before their absence, a mean or a ratio says something
# of the turns that `distortion` compares: in these steps the profiler starts and stops
EDGES = "without the profile's first two steps and its last"


class Spread(msgspec.Struct, kw_only=True):
    """Of one kind of call, or of a turn: how many, and how long (ms)."""

    count: int
    mean: float
    median: float
    p99: float


class Turns(msgspec.Struct, kw_only=True):
    """A rank's turns of one mode, one micro-batch each; a decode step is `loop_size` of them.

    `waits` are all calls of a turn that send, receive or wait, together. Their part while a batch
    of the rank's own ran on its GPU and the part outside are known for turns whose batches were
    timed on the GPU: `split` counts them, and may be fewer than the turns.
    """

    turn: Spread
    waits: Spread
    calls: dict[str, Spread]  # by kind (rows.KINDS), each call by itself, without what it calls
    split: int = 0
    waits_in_own_batch: Spread | None = None  # None: nothing is known of the GPU
    waits_outside: Spread | None = None
    outside: dict[str, Spread] = {}  # the part outside by kind, summed over a turn
    own_batch: Spread | None = None  # on the GPU, first kernel to last
    untimed: Spread | None = None  # of a turn, what lies in no timed call: the rest, Python
    # means of a turn by kind of call, each without timed calls inside it: with `untimed` they add
    # up to the turn; empty in files of earlier versions
    parts: dict[str, float] = {}
    graphs: int = 0  # of the turns, those whose batch ran as a CUDA graph
    # of decode turns: places of the loop with a batch in each of their rounds; fewer than
    # `loop_size` where the load fills fewer. 0: of another mode, or a file of an earlier version
    in_flight: int = 0


class Rank(msgspec.Struct, kw_only=True):
    """One rank's clock: what it took hold of, what it wrote, its turns."""

    pp_rank: int
    tp_rank: int
    rows: int
    lost: int  # rows overwritten by newer ones
    torn: int
    measured: dict[Mode, Turns]  # inside the client's measured window
    profiled: dict[Mode, Turns]  # while a profile ran
    # measured turns that decode, also beside a prefill, by the requests of their micro-batch
    decode_batches: dict[str, int] = {}
    found: dict[str, str] = {}  # hook -> the function it is on
    lacks: dict[str, str] = {}  # hook -> why it is not there
    failed: str = ""  # why the clock stopped early


class OnOff(msgspec.Struct, kw_only=True):
    """Decode turns with the clock on against off, in windows that alternate inside one server."""

    turns_a_window: int
    on_ms: float  # mean turn
    off_ms: float
    ratio: float  # on / off: exp of the trimmed mean over groups of log ratios
    low: float  # its 95% interval
    high: float
    groups: int = 0  # of four windows: on, off, off, on; files of earlier versions have pairs
    slow_on: int = 0  # turns longer than on_off.SLOW times the median, with the clock on
    slow_off: int = 0
    verdict: Literal["kept", "broken", "unknown"] = "unknown"  # the limit (on_off.LIMIT)


class ClockFacts(msgspec.Struct, kw_only=True):
    """A launch by its clocks."""

    pp_size: int
    loop_size: int  # micro-batches in flight: turns a step
    ranks: dict[str, Rank]  # PP0, PP1, ...; with TP ranks PP0 TP0, ...
    last: str = ""  # the last PP rank's key, "" where it left nothing
    window_s: float | None = None  # the measured window's length; None without a client's result
    distortion: float | None = None  # mean decode turn profiled / unprofiled, on the last rank
    distortion_median: float | None = None  # the same of medians
    on_off: OnOff | None = None
    warnings: list[str] = []

    def last_rank(self, mode: Mode = "decode") -> Turns | None:
        """The last PP rank's measured turns; None where there are none."""
        rank = self.ranks.get(self.last)
        return rank.measured.get(mode) if rank else None


class RankWaits(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Where a rank's host waits in a decode turn of the measured pass; means of a turn, ms."""

    pp_rank: int
    turns: int  # that the means are of
    turn_ms: float
    waits_ms: dict[str, float]  # by kind of call (rows.WAITS)
    # the part of each outside the rank's own batches; None: not known, or of too few turns
    outside_ms: dict[str, float] | None = None
    own_batch_ms: float | None = None  # on its GPU, first kernel to last; None: not known


class ClockSummary(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Of a launch, what summary.json and the table take: the last rank's measured decode turns."""

    turn_ms: Spread
    waits_ms: Spread  # of a turn, all together
    # the call that sends the tokens of a decode batch; None: they go in `exchange_ms`
    token_send_ms: Spread | None = None
    # the call in which they go in one batch with all else of the turn (the shim batched_p2p)
    exchange_ms: Spread | None = None
    prefill_exchange_ms: Spread | None = None
    waits_outside_ms: Spread | None = None  # outside the rank's own batches; None: not known
    prefill_token_send_ms: Spread | None = None  # None: no prefill batch in the window
    distortion: float | None = None  # mean decode turn profiled / unprofiled
    distortion_median: float | None = None
    # of decode batches in turns beside a prefill; None: there was none in the window
    beside_prefill_token_send_ms: Spread | None = None
    calls_ms: dict[str, Spread] = {}  # by kind (rows.KINDS)
    # means of a turn outside the rank's own batches, by kind; empty: not known
    outside_ms: dict[str, float] = {}
    pp_size: int = 0
    # places of the loop, and how many of them had a micro-batch; turns without one, and the waits
    # in them, are in no figure. 0: not known
    loop_size: int = 0
    in_flight: int = 0
    ranks: dict[str, RankWaits] = {}  # by name, PP0; of those that timed a decode turn
    decode_batches: dict[str, int] = {}  # as of a Rank

"""What a comparison of launches finds: estimates, comparisons, findings, the verdict.

The unit of replication is one server launch. In a pair of cases A is the first named, B the other;
a ratio is A / B, a difference A - B.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Word = Literal["DIFFERENT", "BORDERLINE", "NO DIFFERENCE LARGER THAN", "CANNOT TELL"]
Answer = Literal["yes", "no", "cannot tell"]
Headline = Literal["REPRODUCED", "PARTLY", "NOT REPRODUCED", "CANNOT TELL", "NOT ASKED"]
Role = Literal["primary", "mechanism", "secondary", "control"]
Better = Literal["lower", "higher"]


class Estimate(msgspec.Struct, kw_only=True):
    """A against B with its interval, from value ~ arm + launch index (+ session).

    On the scale `ratio` (of the logarithms; no unit) or `difference` (in the metric's unit). The
    interval has the confidence 1 - alpha of its pair; `p` is of the same two-sided t test.
    """

    scale: Literal["ratio", "difference"]
    value: float
    low: float
    high: float
    p: float
    df: float  # Satterthwaite's, from 1 to launches - parameters
    spread_a: float  # residual standard deviation of A's launches: of the log, or in the unit
    spread_b: float
    drift: float  # from one launch to the next: of the log, or in the unit
    pooled: bool = False  # one spread for both arms: too few launches for one each


class Comparison(msgspec.Struct, kw_only=True):
    """One metric of the two cases of a pair."""

    metric: str  # as in a launch's metrics; the name carries the unit
    role: Role
    better: Better
    word: Word
    why: str  # what the word rests on; of CANNOT TELL, what is lacking
    margin: float  # of "no difference larger than": 0.05 is 5 %
    values_a: dict[str, float]  # by launch label, in the order measured
    values_b: dict[str, float]
    mean_a: float | None = None
    mean_b: float | None = None
    estimate: Estimate | None = None  # None: one launch an arm, or an order that is refused
    favours: str = ""  # the case that is better, where the word is DIFFERENT or BORDERLINE
    exact_p: float | None = None  # of the exact Mann-Whitney U test
    ranks_separate: bool | None = None  # every launch of one case lies above all of the other's
    p_holm: float | None = None  # Holm's: of secondary metrics over these, else over pairs or loads
    detectable: float | None = None  # effect seen in 4 of 5 such series: 0.03 is 3 %
    rounds_needed: int | None = None  # to see a difference of `margin` in 4 of 5 series
    outlying: list[str] = []  # labels of launches unlike the others; none is dropped
    without_outlying: Estimate | None = None


class LeftOut(msgspec.Struct, kw_only=True):
    """A launch that no comparison counts."""

    label: str
    why: str


class Pair(msgspec.Struct, kw_only=True):
    """The comparison of two cases."""

    a: str  # case names
    b: str
    alpha: float  # two-sided level of every interval of the pair
    alpha_why: str  # planned rounds, one of several planned looks, an unplanned extension
    comparisons: list[Comparison]  # the primary metric first
    withheld: str = ""  # why no word is given yet: rounds that were asked for are lacking
    left_out: list[LeftOut] = []
    unproven: str = ""  # what graphs cannot change has moved: which, by how much
    notes: list[str] = []  # sessions as a covariate, few launches, ...

    @property
    def primary(self) -> Comparison:
        """The comparison of the metric that was fixed before the run."""
        return self.comparisons[0]


class Interaction(msgspec.Struct, kw_only=True):
    """Whether graphs change a metric otherwise with blocking sends than with those as released."""

    metric: str
    cases: list[str]  # graphs on and off as released, then with blocking sends
    word: Word
    why: str
    margin: float
    alpha: float
    by_round: list[float]  # (on / off, blocking) / (on / off, as released) of each whole round
    ratio: float | None = None  # on / off as released, of geometric means
    ratio_blocking: float | None = None
    estimate: Estimate | None = None  # of the ratio of the two; spreads: of the first two cases


class Finding(msgspec.Struct, kw_only=True):
    """One of the three questions about #10865, answered for graphs on (A) against off (B)."""

    name: Literal["longer", "idle", "cost"]
    question: str
    answer: Answer
    text: str  # why, with the figures
    source: Literal["pp_clock", "profile", "client", ""] = ""  # what measured it; "": nothing did
    unit: str = "ms"
    a: float | None = None  # mean over launches
    b: float | None = None
    ratio: Estimate | None = None
    difference: Estimate | None = None
    margin: float | None = None  # in the unit: a smaller difference counts as none


class Verdict(msgspec.Struct, kw_only=True):
    """What a run says: of #10865 where its two arms ask it, and of every pair of its cases."""

    headline: Headline  # NOT ASKED: the cases are not graphs on against off
    text: str  # one sentence
    findings: list[Finding]  # longer, idle, cost; empty where not asked
    pairs: list[Pair]
    issue_ms: dict[str, float]  # #10865's numbers: send, under_own_graph, idle, without_graphs
    ours_ms: dict[str, float]  # the same of this run, as far as it was measured
    reason: str = ""  # where the last rank's host waits, in the words of the analysis
    limits: list[str] = []  # what this run is no evidence of, and why
    floor: float | None = None  # noise floor of an A/A series: 0.02 is 2 %
    interactions: list[Interaction] = []  # of a 2 x 2, graphs by sends: the primary metric first

"""What a run says: its launches handed to stats/, and what this run is no evidence of."""

from __future__ import annotations

from collections.abc import Sequence

from repro_pp_graphs.launch_record import GraphState
from repro_pp_graphs.report.launch_row import Row, cases_of, gpu_fault, prefill_graphs
from repro_pp_graphs.report.summary import lacking, sentences
from repro_pp_graphs.report.summary.pairs import (
    GRAPHS_BY_SENDS,
    asynchronous,
    pairs_of,
    question_of,
)
from repro_pp_graphs.run.checks.expected import ISSUE_CASES
from repro_pp_graphs.run.launch.arm_check import objections
from repro_pp_graphs.run_record import Plan
from repro_pp_graphs.server.machine import network
from repro_pp_graphs.stats import findings
from repro_pp_graphs.stats.arms import Sample
from repro_pp_graphs.stats.compare import LEAST_LAUNCHES, Asked, Metric, Rules, correct, pair
from repro_pp_graphs.stats.interaction import interaction
from repro_pp_graphs.stats.metric_names import (
    CLIENT,
    CONTROL,
    IDLE,
    OUTSIDE,
    OWN_GRAPH,
    RETURN,
    TPOT,
)
from repro_pp_graphs.stats.verdict_record import Comparison, Finding, Interaction, Pair, Verdict

BESIDE = (  # the primary metric, and the control
    Metric(OUTSIDE, "mechanism"),
    *(Metric(name, "secondary", each.better) for name, each in CLIENT.items() if name != TPOT),
)
LATER_FIELDS = {"prefills_with_graph"}  # of a launch's graph state: not in records of older runs
# of #10865: the send of the last rank; the part that its decode graph overlaps; idle; the send in
# prefill or without graphs
ISSUE_MS = {"send": 100.0, "under_own_graph": 30.0, "idle": 70.0, "without_graphs": 3.0}


def verdict(
    plan: Plan, launches: Sequence[Row], reason: str = "", floor: float | None = None
) -> Verdict:
    """The verdict on a run. `reason`: where the last rank's host waits, from an analysis; `floor`:
    how far equal arms differed in an earlier A/A run, 0.02 for 2 %."""
    samples = [sample_of(row) for row in in_order(launches)]
    rules = asked_of(plan, floor)
    metrics = (Metric(plan.primary, "primary"), *BESIDE)
    question = question_of(launches)
    pairs = [
        pair(a, b, samples, (*metrics, _control(a, b, launches)), rules)
        for a, b in pairs_of(launches, question)
    ]
    correct_over_pairs([each for each in pairs if (each.a, each.b) != question])
    limits = _limits(plan)
    crossed = _interactions(plan, launches, samples, rules)
    if question is None:
        return Verdict(
            headline="NOT ASKED",
            text=sentences.not_asked(pairs),
            findings=[],
            pairs=pairs,
            issue_ms=ISSUE_MS,
            ours_ms={},
            reason="" if pairs else reason,
            limits=limits,
            floor=_own_floor(plan, pairs) or floor,
            interactions=crossed,
        )
    main = next(each for each in pairs if (each.a, each.b) == question)
    against = [*limits, *_unlike(plan, launches, question)]
    against += [f"unproven: {main.unproven}"] if main.unproven else []
    found = _findings(main, pairs, samples, launches, against, plan=plan)
    for each in found:
        if each.source == "profile":
            each.source = next((row["waits_from"] for row in launches if row["waits_from"]), "")
        each.text = sentences.finding(each)
    headline = findings.headline(found)
    return Verdict(
        headline=headline,
        text=sentences.headline(found, against, _judged(main, pairs, launches, limits)),
        findings=found,
        pairs=pairs,
        issue_ms=ISSUE_MS,
        ours_ms=_ours(main, samples),
        reason=reason,
        limits=against,
        floor=floor,
        interactions=crossed,
    )


def _control(a: str, b: str, launches: Sequence[Row]) -> Metric:
    """TTFT of a prompt alone: a control, unless prefills ran with graphs in one case only."""
    alike = len({case in prefill_graphs(launches) for case in (a, b)}) == 1
    return Metric(CONTROL, "control" if alike else "secondary")


def _judged(
    main: Pair, pairs: Sequence[Pair], launches: Sequence[Row], limits: Sequence[str]
) -> str:
    """Which cases the headline is of, where there are more than two, and at which look; "" where
    the run answers nothing anyway."""
    if limits:
        return ""
    released = ", sends as released" if set(GRAPHS_BY_SENDS) <= set(cases_of(launches)) else ""
    cases = f"{main.a} against {main.b}{released}" if len(pairs) > 1 else ""
    return "; ".join(filter(None, (cases, *sentences.looks([main]))))


def correct_over_pairs(pairs: Sequence[Pair]) -> None:
    """Over the pairs besides the question's own, each metric that has a word at the pairs' level:
    of many pairs of equal cases one differs by chance."""
    for metric in dict.fromkeys(each.metric for one in pairs for each in one.comparisons):
        same = [each for one in pairs for each in one.comparisons if each.metric == metric]
        if len(same) > 1 and same[0].role in ("primary", "mechanism"):
            correct(same, max(one.alpha for one in pairs), "pairs of cases")


def in_order(launches: Sequence[Row]) -> list[Row]:
    """In the order in which they ran: what --resume measured came after all before it."""
    begun = [row for row in launches if row["status"] != "not run"]
    return sorted(begun, key=lambda row: row.get("session") or 1)


def sample_of(row: Row) -> Sample:
    fault = "" if row["status"] == "ok" else row.get("reason") or row["status"]
    fault = fault or gpu_fault(row.get("gpu_counters"))
    return Sample(
        label=row["label"],
        case=row["case"],
        round=row["round"],
        values={**row["metrics"], **row.get("waits_ms", {})},
        session=row.get("session") or 1,
        fault=fault,
    )


def asked_of(plan: Plan, floor: float | None) -> Asked:
    planned = [look.rounds for look in plan.looks if look.planned]
    later = [look.rounds for look in plan.looks if not look.planned]
    reached = max((launch.round for launch in plan.launches), default=0)
    return Asked(planned or [reached], later, max(plan.margin, floor or 0))


def _interactions(
    plan: Plan, launches: Sequence[Row], samples: Sequence[Sample], asked: Asked
) -> list[Interaction]:
    """Of a run with graphs on and off, as released and blocking, of one release: TPOT, and what the
    last rank's host waits for while its GPU is idle."""
    ours = [row for row in launches if row["case"] in GRAPHS_BY_SENDS]
    releases = {row["sglang_version"] for row in ours}
    if {row["case"] for row in ours} != set(GRAPHS_BY_SENDS) or len(releases) > 1:
        return []
    found = [
        interaction(GRAPHS_BY_SENDS, samples, metric, asked) for metric in (plan.primary, OUTSIDE)
    ]
    return [each for each in found if each.estimate or each.metric == plan.primary]


def _limits(plan: Plan) -> list[str]:
    """What a run of this kind is no evidence of, and what it is evidence of."""
    found = []
    if plan.mode == "cpu" and plan.attached:
        found.append("on a CPU: no CUDA graphs; no evidence on #10865")
    elif plan.mode == "cpu" and ISSUE_CASES.issubset(launch.case for launch in plan.launches):
        found.append(
            "a rehearsal on a CPU: neither arm has CUDA graphs, so no difference comes from them"
        )
    elif plan.mode == "cpu":
        found.append(
            "a rehearsal on a CPU: its numbers do not tell how these cases compare on GPUs"
        )
    if plan.engine == "sglang" and any(launch.pp_size == 1 for launch in plan.launches):
        found.append(
            "one pipeline rank (PP 1) sends no token ids: no evidence on #10865, TPOT alone is "
            "compared"
        )
    if plan.mode == "one_gpu":
        found.append(
            f"ranks shared a GPU ({plan.sharing}): evidence of the order of calls and of what "
            "waits for what, not of how long"
        )
    if all(network.transport(launch.env) for launch in plan.launches):
        found.append(
            f"{network.BY_SOCKETS} between ranks of one machine: a stand-in for hosts apart, no "
            "evidence of what a real network takes"
        )
    if plan.engine == "probe":
        found.append("the probe is the ring without sglang: evidence of the mechanism alone")
    if plan.nsys:
        found.append("under nsys: evidence of what is called when, not of how long it takes")
    return found


def _unlike(plan: Plan, launches: Sequence[Row], question: tuple[str, str]) -> list[str]:
    """Launches of the two arms that are not what they claim, though they count as measured."""
    found = []
    for row in launches:
        if row["case"] not in question or row["status"] != "ok" or plan.engine == "probe":
            continue
        launch = plan.launch(row["label"])
        state = row.get("graph_state") or {}
        if launch.expects_graphs is None:
            continue
        texts = ["its graph state was not seen"]
        if set(GraphState.__struct_fields__) - LATER_FIELDS <= state.keys():
            texts = objections(GraphState(**state), launch)
        found += [f"{row['label']} is not what it claims: {text}" for text in texts]
    return found


def _findings(
    main: Pair,
    pairs: Sequence[Pair],
    samples: Sequence[Sample],
    launches: Sequence[Row],
    against: Sequence[str],
    *,
    plan: Plan,
) -> list[Finding]:
    counted = [each for each in samples if each.case in (main.a, main.b) and not each.fault]
    primary = main.primary
    arms = findings.Arms(
        a=main.a,
        b=main.b,
        samples=counted,
        step_ms=primary.mean_b,
        rules=Rules(main.alpha, primary.margin, main.withheld),
        against=against[0] if against else "",
        margin=plan.margin,
        gaps_unseen=any(row.get("waits_from") == "pp_clock" for row in launches),
        lacking=_lacking(main, counted, launches, plan),
    )
    remedy = _remedy(main, pairs, launches)
    return [findings.longer(arms), findings.idle(arms), findings.cost(arms, primary, remedy)]


def _lacking(
    main: Pair, counted: Sequence[Sample], launches: Sequence[Row], plan: Plan
) -> dict[str, str]:
    """By metric of the token return why no launch of the two arms has it, where none has it."""
    if not counted:
        return dict.fromkeys((RETURN, IDLE), main.primary.why)
    labels = {each.label for each in counted}
    rows = [row for row in launches if row["label"] in labels]
    return {metric: lacking.why(rows, metric, plan) for metric in (RETURN, IDLE)}


def _remedy(main: Pair, pairs: Sequence[Pair], launches: Sequence[Row]) -> Comparison | None:
    """TPOT of graphs on against the first case with asynchronous sends, A against B."""
    for case in asynchronous(launches, main.a):
        for each in pairs:
            if (each.a, each.b) == (main.a, case):
                return each.primary
    return None


def _ours(main: Pair, samples: Sequence[Sample]) -> dict[str, float]:
    """The figures that stand beside #10865's, means over the launches that have them."""

    def mean(case: str, name: str) -> float | None:
        values = [
            each.values[name]
            for each in samples
            if each.case == case and not each.fault and name in each.values
        ]
        return sum(values) / len(values) if values else None

    found = {
        "send": mean(main.a, RETURN),
        "under_own_graph": mean(main.a, OWN_GRAPH),
        "idle": mean(main.a, IDLE),
        "without_graphs": mean(main.b, RETURN),
        "idle_without_graphs": mean(main.b, IDLE),
    }
    return {name: value for name, value in found.items() if value is not None}


def _own_floor(plan: Plan, pairs: Sequence[Pair]) -> float | None:
    """Of a case compared with itself: the largest difference that its interval holds. None of too
    few launches for a word, or of fewer than were asked for: their interval is as wide as it is for
    want of launches."""
    if not plan.aa or not pairs or pairs[0].primary.estimate is None:
        return None
    found = pairs[0].primary
    asked = max(launch.round for launch in plan.launches)
    if min(len(found.values_a), len(found.values_b)) < max(LEAST_LAUNCHES, asked):
        return None
    estimate = pairs[0].primary.estimate
    return max(estimate.high, 1 / estimate.low) - 1

"""What a decode step's time is made of, in a sentence and as tables: one token's way round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from repro_pp_graphs.traces.analysis_record import Analysis, Manner, PathCategory, RingPath
from repro_pp_graphs.traces.explain.words import (
    ALONE,
    BLOCKING,
    RETURNING,
    ROW_PHRASES,
    SHARED,
    UNEXPLAINED,
    WORTH_SAYING,
    column,
    count,
    ms,
    share,
    the_rest,
    time,
    wrapped,
)

TITLES: dict[PathCategory, str] = {
    "graph": "its own decode graphs",
    "eager": "its own kernels",
    "queueing": "kernels of other batches",
    "launch": "launching, no own GPU work",
    "host": "other host work and calls",
    "transfer": "messages on their way",
    "sync": "returning from GPU waits",
    "shared_gpu": "GPU with another rank",
    "peer_late": "messages, one end unknown",
    "unexplained": "unexplained",
}
PHRASES: dict[PathCategory, str] = {
    "launch": "launching with none of the rank's work on its GPU",
    "host": "other work of the hosts",
    "transfer": "messages on their way",
    "sync": "returning from waits for the GPU",
    "shared_gpu": "another rank's work on a GPU that is shared, or may be,",
    "peer_late": "messages whose other end is not in the trace",
    "unexplained": "unexplained",
}
PHRASE_OF: Mapping[str, str] = cast(Mapping[str, str], ROW_PHRASES)
BUSY = "busy with another micro-batch"
# A part below this share of the step is not named in the sentence.
NAMED = 0.02
SHOWN = 5e-4  # of the step, a part: less is a row of 0.0 %
LEAST_US = 50.0  # of launching in a step: less is none
MOST_OF_IT = 0.7  # of a part: a what-if that saves so much needs no word on the rest
ABREAST = 4  # ranks beside one another in the table
IF = {
    "send=0": "messages took the host no time",
    "sync=0": "no host waited for its GPU",
    "launch=0": "launching took no time",
    "transfer=0": "messages travelled in no time",
    "token_send": "sending token ids took no time",
    "comm_stream": "the token send had its own stream",
    "event_send": "messages waited on events only",
    "batched_p2p": "messages went in one batch",
}
REMEDIES = ("comm_stream", "event_send", "batched_p2p")  # of IF: cases that can be run
FEW = ", - where these are too few for one"

# What a what-if is accurate to, of a step (docs/ring_path.md): what saves less may save nothing.
ACCURATE = 0.02

AS_ASYNCHRONOUS = (
    " As sends block here, send=0 is nearest to asynchronous ones (sglang 0.5.7 and newer)."
)

IF_NOTES = {
    "sync=0": "sync=0 cannot be had, as hosts need the results: a bound.",
    "comm_stream": "comm_stream: the last rank's send as it is here, without its wait for the GPU. "
    "The case comm_stream makes sends asynchronous too, and may save more.",
    "token_send": "token_send: send=0 of the last rank's send of token ids to PP0 alone, #10865's.",
    "batched_p2p": "batched_p2p: send=0, and no receive waits for the size of what comes, which "
    "goes ahead over gloo as sglang has it: it may save more than send=0.",
}


def sentence(facts: Analysis) -> str:
    """One token's way round the ring, or why it is not known; empty where nobody looked."""
    path = facts.ring_path
    if path is None:
        unknown = facts.ring_path_unknown
        known = not unknown or facts.pp_size == 1  # of one rank there is no ring
        return "" if known else f"One token's way round the ring is not known: {unknown}."
    whole = path.step_us.mean
    parts = _parts(path)
    said = [f"{name} {time(us)}" for name, us in parts if us >= NAMED * whole]
    rest = sum(us for _, us in parts if us < NAMED * whole)
    said += the_rest(rest, whole)
    text = (
        f"One token's way round, the critical path of {time(whole)} from launch to launch: "
        f"{', '.join(said)}"
    )
    text = _no_loss(text) if not facts.shared_gpus else text
    if hosts := _longest_hosts(path):
        text += f". The largest parts of that work of the hosts: {hosts}"
    return f"{text}.{_gains(path)}"


def _parts(path: RingPath) -> list[tuple[str, float]]:
    """The parts of the step that a sentence names: what a GPU computes by rank, the rest in all."""
    found: list[tuple[str, float]] = []
    for label, row in path.ranks.items():
        found.append((f"PP{label}'s graph", row.get("graph", 0)))
        found.append((f"PP{label}'s kernels", row.get("eager", 0)))
        queueing = row.get("queueing", 0)
        found.append((f"PP{label}'s GPU {BUSY}", queueing))
    found += [(phrase, path.categories[name].mean) for name, phrase in PHRASES.items()]
    return sorted(found, key=lambda part: -part[1])


def _no_loss(text: str) -> str:
    """Says of the first wait for another micro-batch's work that the GPU loses nothing by it."""
    before, busy, after = text.partition(BUSY)
    return text if not busy else f"{before}{busy} (it works, this one queues: no loss){after}"


def _longest_hosts(path: RingPath) -> str:
    """The two things that hosts on the path do longest, where they are much of their time."""
    host = path.categories["host"].mean
    said = [
        f"{_what(name)} ({time(us)})"
        for name, us in list(path.host.items())[:2]
        if us >= WORTH_SAYING * host
    ]
    return " and ".join(said) if host >= NAMED * path.step_us.mean else ""


def _what(name: str) -> str:
    """A key of `RingPath.host` in words: whose host, and what it does."""
    rank, _, what = name.partition(" ")
    row, _, span = what.partition(", ")
    phrase = PHRASE_OF.get(row, row)
    return f"{rank}'s {phrase.removeprefix('the ')}" + (f" in {span}" if span else "")


def _gains(path: RingPath) -> str:
    """What it would be at least with free messages, and with free launches."""
    if not path.what_if:
        return f" What would shorten it cannot be estimated: {path.what_if_unknown}."
    bounds = [name for name in ("send=0", "launch=0") if name in path.what_if]
    saves = {name: path.steady_us - path.what_if[name] for name in bounds}
    told = [name for name in bounds if not may_be_none(path, path.what_if[name])]
    said = [f"by at most {time(saves[name])} if {IF[name]}" for name in told] + _remedy(path)
    less = " (less than launching takes: another path is the longest then)"
    text = f" A step would be shorter {', '.join(said)}" if said else ""
    text += less * ("launch=0" in told and bool(_launching(path))) + "." * bool(said)
    if none := [IF[name] for name in bounds if name not in told]:
        text += f" No saving can be told if {' or '.join(none)}."
    return text


def _remedy(path: RingPath) -> list[str]:
    """The remedy that saves most, where it saves more than the two bounds that are named."""
    least = {name: us for name, us in path.what_if.items() if name in REMEDIES}
    bounds = [path.what_if[name] for name in ("send=0", "launch=0") if name in path.what_if]
    if not least or min(least.values()) >= min(bounds) - accurate_us(path):
        return []
    name = min(least, key=lambda one: least[one])
    return [f"by at most {time(path.steady_us - least[name])} if {IF[name]} ({name})"]


def distortion(path: RingPath, tpot_ms: float) -> str:
    """What the profiler adds to a step, by the mean TPOT of the same launch without it."""
    added = path.step_us.mean / 1e3 / tpot_ms - 1
    text = (
        f"Without the profiler a token took {tpot_ms:.2f} ms (mean TPOT of the same launch): a "
        f"profiled step ({ms(path.step_us.mean)} ms, by its critical path) is {share(abs(added))} "
        f"{'longer' if added >= 0 else 'shorter'}"
    )
    if added < 0:
        return (
            f"{text}. No profiler makes a step shorter: the profile met a lighter moment, other "
            f"batches or less other work on the host. Compare shares, not ms."
        )
    return (
        f"{text}. The profiler costs the hosts time in every call (other host work and "
        "launching); how much of this is its doing, and not another moment's, is not told apart."
    )


def lines(facts: Analysis) -> list[str]:
    """The tables: what a step waits for, by rank; and how long it would be without."""
    path = facts.ring_path
    missing = _not_given(facts)
    if path is None:
        return missing
    given = _what_ifs(path, facts.sends) if path.what_if else []  # why not: said above
    return [*_by_category(path), *missing, *given]


def _not_given(facts: Analysis) -> list[str]:
    """The what-ifs that were asked for and cannot be given, by name, with the reason."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in facts.what_if_not_given.items():
        by_reason.setdefault(reason, []).append(name)
    return [
        line
        for reason, names in by_reason.items()
        for line in wrapped(f"no what-if for {', '.join(names)}: {reason}", "")
    ]


def _by_category(path: RingPath) -> list[str]:
    labels = list(path.ranks)
    shown = labels if len(labels) <= ABREAST else []
    head = "".join(f"{'PP' + label:>7}" for label in shown)
    found = [f"{'a decode step waits for, ms':<28}{'mean':>8}{'+-':>6}{'share':>8}{head}"]
    whole = path.step_us.mean
    for name, title in TITLES.items():
        part = path.categories[name]
        if part.mean < SHOWN * whole and name != "unexplained":
            continue
        error = column(None if part.error is None else 1.96 * part.error, 6)
        cells = "".join(column(path.ranks[label].get(name, 0), 7) for label in shown)
        mean = column(part.mean, 8)
        found.append(f"{title:<28}{mean}{error}{share(part.mean / whole):>8}{cells}")
    found.append(f"{'the whole step':<28}{column(whole, 8)}")
    text = f"(the critical path of {path.steps} of {count(path.steps_there, 'step')}"
    if path.batches_there > path.steps_there + 2 * path.micro_batches:
        text += f" in the middle of {count(path.batches_there, 'batch')}"
    text += "".join(f"; {number}: {why}" for why, number in path.left_out.items())
    returning = RETURNING * bool(path.categories["sync"].mean)
    alone = ALONE * (path.categories["peer_late"].mean >= SHOWN * whole)
    alone += SHARED * (path.categories["shared_gpu"].mean >= SHOWN * whole)
    few = "" if all(part.error is not None for part in path.categories.values()) else FEW
    text += f"; +-: 95 % interval of the mean, over the steps{few}. {returning}{alone}{UNEXPLAINED}"
    which = which_graph(path)
    return [*found, *wrapped(f"{text}{'. ' * bool(which)}{which})", "")]


def which_graph(path: RingPath) -> str:
    """Whose own graph is on the path of how many steps, where a rank's is on that of some: why the
    mean is no graph's length. Empty where each rank's is on that of all or of none."""
    steps = {label: number for label, number in (path.graph_steps or {}).items() if number}
    if all(number == path.steps for number in steps.values()):
        return ""
    said = ", ".join(f"PP{label}'s of {number}" for label, number in steps.items())
    if (twice := sum(steps.values()) - path.steps) > 0 and len(steps) == 2:
        said += f", of at least {twice} both"
    if len(steps) > ABREAST:
        said = f"each of {len(steps)} ranks' of {min(steps.values())} to {max(steps.values())}"
    return (
        f"Own decode graphs are on the path of some of the {count(path.steps, 'step')}: {said}. A "
        "step's path goes over the ranks that it waits for, at times over another batch's "
        "kernels: the interval is of that, not of how long a graph takes"
    )


def _what_ifs(path: RingPath, sends: Manner) -> list[str]:
    found = ["", f"{'a decode step if ..., ms':<46}{'at least':>9}{'saves':>8}"]
    for name, us in path.what_if.items():
        title = f"{name}: {IF[name]}" if name in IF else name
        unsure = " ?" if may_be_none(path, us) else ""
        found.append(f"{title:<46}{column(us, 9)}{column(path.steady_us - us, 8)}{unsure}")
    notes = [
        "(saves: at most so much, as a remedy has a cost of its own; accurate to some "
        f"{100 * accurate_us(path) / path.steady_us:.0f} % of the step, {ms(accurate_us(path))} "
        "ms: what saves less (?) may save nothing. "
        "send takes away what messages cost the hosts, in calls and waits, transfer only their "
        "travel." + AS_ASYNCHRONOUS * (sends in BLOCKING),
        *(note for name, note in IF_NOTES.items() if name in path.what_if),
        _launching(path),
        f"Savings are counted from {ms(path.steady_us)} ms, the mean without the first quarter of "
        "the steps, in which a change has not yet had its whole effect. A check: with nothing "
        f"changed the same computation gives {ms(path.retimed_us)} ms)",
    ]
    return [*found, *(line for text in notes for line in wrapped(text, ""))]


def may_be_none(path: RingPath, us: float) -> bool:
    """Whether a what-if saves less than it is accurate to."""
    return abs(path.steady_us - us) < accurate_us(path)


def accurate_us(path: RingPath) -> float:
    """What a what-if is accurate to (us): ACCURATE, or as far as the step with nothing changed
    comes out wrong."""
    return max(ACCURATE * path.steady_us, abs(path.steady_us - path.retimed_us))


def _launching(path: RingPath) -> str:
    """Why `launch=0` saves less than the step spends in launching; empty where it hardly does."""
    spent = path.categories["launch"].mean
    saves = path.steady_us - path.what_if.get("launch=0", 0)
    if "launch=0" not in path.what_if or saves > MOST_OF_IT * spent or spent < LEAST_US:
        return ""
    return (
        f"launch=0 saves {ms(max(saves, 0))} of the {ms(spent)} that the step spends in launching: "
        "another path becomes the longest, the rest is then waited for elsewhere."
    )

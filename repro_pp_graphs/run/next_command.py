"""What a run's user types next: the same command, with what it goes on with."""

from __future__ import annotations

import shlex
from pathlib import Path

from repro_pp_graphs.run import estimate
from repro_pp_graphs.run.checks.expected import ISSUE_CASES
from repro_pp_graphs.run.folder import resume
from repro_pp_graphs.run.launch import bad_argument
from repro_pp_graphs.run.plan import command_words
from repro_pp_graphs.run.plan.command_words import OF_A_SESSION, OF_THIS_MACHINE
from repro_pp_graphs.run.plan.order import ENOUGH_ROUNDS, LEAST_ROUNDS, whole_rounds
from repro_pp_graphs.run_record import Plan
from repro_pp_graphs.terminal import wrapped

WIDTH = 72


def words(plan: Plan, rounds: int | None, anew: bool = False) -> list[str]:
    """The user's own command, going on with this run unless it is to begin `anew`; with more rounds
    where that is asked for."""
    found = command_words.without(
        plan.command, {**OF_A_SESSION, **({"--rounds": 1} if rounds else {})}
    )
    go_on = [] if plan.attached or anew else ["--resume"]
    return [*found, *(["--rounds", str(rounds)] if rounds else []), *go_on]


def elsewhere(plan: Plan, rounds: int) -> list[str]:
    """The user's own command as it asks the same of another machine."""
    left_out = {**OF_A_SESSION, **OF_THIS_MACHINE, "--rounds": 1}
    if not command_words.names_a_place(plan.command):
        del left_out["--out"]
    longer = ["--sweep", plan.reaching] if plan.reaching else []
    return [*command_words.without(plan.command, left_out), *longer, "--rounds", str(rounds)]


def lines(out: Path, plan: Plan, complete: bool) -> list[str]:
    """For the end of a run: how to go on with it; empty where all that was planned is done."""
    if not plan.command:
        return []
    if not complete:
        return _rest(out, plan)
    ahead = [look for look in plan.looks if look.rounds > plan.rounds]
    if ahead:
        left = ahead[0].rounds - plan.rounds
        how = f"For the second look ({left} more launches a case{_time(out, plan, left)}):"
        return [*wrapped(how), *_command(words(plan, None))]
    cases = list(dict.fromkeys(launch.case for launch in plan.launches))
    if plan.rounds >= LEAST_ROUNDS or len(cases) < 2:
        return []
    rounds = whole_rounds(ENOUGH_ROUNDS, len(cases))
    if plan.rehearsal and not plan.aa:
        return [*wrapped(_on_gpus(plan, cases)), *_command(elsewhere(plan, rounds))]
    what = "the noise floor" if plan.aa else "a verdict"
    how = f"For {what} ({rounds} launches a case{_time(out, plan, rounds - plan.rounds)}):"
    return [*wrapped(how), *_command(words(plan, rounds))]


def _on_gpus(plan: Plan, cases: list[str]) -> str:
    """What the same command gives on GPUs, which a rehearsal does not, however many rounds it has:
    a verdict on #10865 where it compares graphs on and off of several ranks, else a comparison."""
    there = "on a machine with GPUs:"
    if ISSUE_CASES.issubset(cases) and all(launch.pp_size > 1 for launch in plan.launches):
        return f"A rehearsal of any number of rounds gives no verdict on #10865. For one, {there}"
    if plan.reaching:
        there = f"under a load that reaches what they differ in, {there}"
    return (
        "A rehearsal of any number of rounds does not tell how these cases compare on GPUs. To "
        f"compare them {there}"
    )


def _rest(out: Path, plan: Plan) -> list[str]:
    """How to go on with a run that is not complete; anew where an argument file is to be mended
    first, which --resume would refuse."""
    if refused := bad_argument.refused(out / "logs", plan):
        mend = f"With {', '.join(refused)} mended in server_args_*.txt it is another run:"
        return [*wrapped(mend), *_command(words(plan, None, anew=True))]
    return [*_what_runs(out, plan), *_command(words(plan, None))]


def _what_runs(out: Path, plan: Plan) -> list[str]:
    """What of a run that is not complete --resume runs: what is not measured, and with it what was
    finished in a block of rounds that lost a launch."""
    again = [] if plan.attached else resume.repeated(out / "logs", plan)
    if not again:
        return ["To run what is not finished:"]
    finished = "the finished launches" if len(again) > 1 else "the finished launch"
    return wrapped(
        f"To run what is not finished, and again {finished} of the same block "
        f"({', '.join(again)}): a machine's steady drift cancels only over a block that runs in "
        "one go:"
    )


def _time(out: Path, plan: Plan, rounds: int) -> str:
    """`, about 12 min more` for so many more rounds, where it is known."""
    took = estimate.seconds(out / "logs", plan, [one for one in plan.launches if one.round == 1])
    return "" if took is None else f", {estimate.text(took * rounds)} more"


def _command(command: list[str]) -> list[str]:
    """Indented, to be copied as it is: what does not fit goes on below a backslash; an option and
    its value stay together."""
    pieces: list[str] = []
    for word in command:
        if word.startswith("--") or not pieces:
            pieces.append(shlex.quote(word))
        else:
            pieces[-1] += f" {shlex.quote(word)}"
    found = [""]
    for piece in pieces:
        if found[-1] and len(found[-1]) + len(piece) > WIDTH:
            found.append("")
        found[-1] += f" {piece}" if found[-1] else piece
    first, *others = found
    return " \\\n".join([f"  {first}", *(f"    {line}" for line in others)]).split("\n")

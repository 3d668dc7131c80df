"""Before a run: an earlier one goes aside, or --resume goes on with it."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from repro_pp_graphs import run_record
from repro_pp_graphs.files import BadFile
from repro_pp_graphs.pp_clock import kept
from repro_pp_graphs.run import estimate
from repro_pp_graphs.run.folder import previous, results
from repro_pp_graphs.run.plan.options import Options
from repro_pp_graphs.run.plan.refusal import PlanError
from repro_pp_graphs.run_record import Plan
from repro_pp_graphs.terminal import say, wrapped


def earlier_run(options: Options) -> Plan | None:
    """The plan that --resume goes on with; None without --resume, or where there is none.

    Raises PlanError where it cannot be read.
    """
    logs = options.out / "logs"
    if not options.resume or not run_record.plan_path(logs).exists():
        return None
    try:
        return run_record.load(logs)
    except BadFile as error:
        raise PlanError(
            f"--resume: {error}: there is nothing to go on with; without --resume what is there is "
            "moved aside and the run starts over"
        ) from None


def is_complete(plan: Plan, options: Options) -> bool:
    """Whether every launch of an earlier run need not run again."""
    from repro_pp_graphs.run.folder import resume  # noqa: PLC0415 - msgspec: 10 ms

    done, _ = resume.done(options.out / "logs", plan)
    return len(done) == len(plan.launches)


def clear_the_way(plan: Plan, options: Options, earlier: Plan | None) -> set[str]:
    """Move an earlier run's results aside; with --resume only those of launches to repeat.

    Returns the labels that are done. Raises PlanError where --resume cannot go on, OSError.
    """
    logs = options.out / "logs"
    _clear_drafts(options.out)
    if not (logs / "run.json").exists():
        names = [name for one in plan.launches for name in results.claimed(one, plan)]
        names += results.of_run(plan) + results.traces(options.out)
        if line := previous.clear(options.out, list(dict.fromkeys(names)), "run"):
            say("\n".join(wrapped(line, "  aside:  ")))
        return set()
    for fault in kept.keep_all(logs):  # of a launch that kill -9 ended
        say("\n".join(wrapped(fault, "  rows:   ")))
    if earlier is None:
        moved = previous.move_aside(options.out)
        say(f"  kept:   the earlier run, now in {moved}")
        return set()
    return _resume(plan, options, earlier)


def _kept(done: int, repeated: int, launches: int) -> str:
    """How many launches of an earlier session are kept, and how many that were finished run again,
    in words."""
    if done == launches:
        return f"all {launches} launches were finished, none runs"
    are = "launches are" if repeated > 1 else "launch is"
    again = f"{repeated} finished {are} measured again, " if repeated else ""
    if not done:
        return f"{again}no launch is kept, {'both' if launches == 2 else f'all {launches}'} run"
    others = "the other runs" if launches - done == 1 else "the others run"
    return f"{again}{done} of {launches} launches {'is' if done == 1 else 'are'} kept, {others}"


def _clear_drafts(out: Path) -> None:
    """Remove what a run that was killed had not finished writing."""
    for part in previous.PARTS:
        for path in (out / part).glob("*.part"):
            path.unlink()
    for path in (out / "trace").glob(".merge-*"):
        shutil.rmtree(path, ignore_errors=True)


def go_on(plan: Plan, options: Options, earlier: Plan) -> tuple[set[str], list[str]]:
    """Make the plan that of the earlier run, gone on with: the labels that are done, and lines on
    what is kept, what runs again and how long that takes. Changes nothing on disk."""
    from repro_pp_graphs.run.folder import resume  # noqa: PLC0415

    logs = options.out / "logs"
    plan.began, plan.run_id, plan.resumed = earlier.began, earlier.run_id, earlier.resumed
    plan.primary, plan.margin = earlier.primary, earlier.margin
    done, lines = resume.done(logs, plan)
    repeated = len(resume.repeated(logs, plan))
    found = [line for text in lines for line in wrapped(text, "  again:  ")]
    again = [launch for launch in plan.launches if launch.label not in done]
    since = f" begun {plan.began}" if plan.began else ""
    text = f"the run{since}: {_kept(len(done), repeated, len(plan.launches))}"
    found += wrapped(text, "  resume: ")
    if again and (took := estimate.seconds(logs, plan, again)) is not None:
        launches = f"{len(again)} launches" if len(again) > 1 else "1 launch"
        found.append(f"  time:   {estimate.text(took)} for {launches}, as long as those so far")
    elif not done:
        found += wrapped(estimate.of_run(plan), "  time:   ")
    return done, found


def _resume(plan: Plan, options: Options, earlier: Plan) -> set[str]:
    from repro_pp_graphs.run.folder import resume  # noqa: PLC0415

    logs = options.out / "logs"
    if reason := resume.refusal(logs, earlier, plan):
        raise PlanError(reason)
    done, lines = go_on(plan, options, earlier)
    say("\n".join(lines))
    again = [launch for launch in plan.launches if launch.label not in done]
    if again:
        plan.resumed = [*plan.resumed, time.strftime(previous.STAMP)]
        names = [name for launch in again for name in results.claimed(launch, plan)]
        names += [name for name in results.of_run(plan) if name not in results.KEPT]
        if previous.existing(options.out, names):
            moved = previous.move_aside(options.out, names)
            text = f"what these launches left before, and the tables of then: now in {moved}"
            say("\n".join(wrapped(text, "  moved:  ")))
    return done

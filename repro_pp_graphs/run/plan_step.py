"""Plan a run, check what it needs, and write what run_repro.sh follows.

run_repro.sh reads stdout, as assignments in the shell's own words: what it must know of the
options, and of each launch. All else goes to stderr.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
import time
from pathlib import Path

from repro_pp_graphs import files, run_record
from repro_pp_graphs.models import folder as model_folder
from repro_pp_graphs.run import clear, dry_run, make_plan, objections, overview
from repro_pp_graphs.run.checks import preflight
from repro_pp_graphs.run.folder import guide, inputs, lock, previous, results
from repro_pp_graphs.run.plan import client_words, command_words, environments
from repro_pp_graphs.run.plan import options as run_options
from repro_pp_graphs.run.plan.options import Options, complain
from repro_pp_graphs.run.plan.refusal import PlanError
from repro_pp_graphs.run.plan.server_script import script_of
from repro_pp_graphs.run_record import Plan
from repro_pp_graphs.server.machine import gpus
from repro_pp_graphs.server.machine.gpus import Gpu
from repro_pp_graphs.server.release.installed import CachedProbe
from repro_pp_graphs.terminal import say, wrapped

# what the harness itself imports later; an environment of sglang holds them
NEEDED = ("requests", "msgspec", "numpy")
MOST_OF_A_MACHINE = 8  # GPUs: with more a plan of one machine may not be meant


def make_models(plan: Plan, options: Options) -> None:
    """Write the folders of models without weights."""
    made = options.root / ".state" / "models"
    models = dict.fromkeys(Path(launch.model) for launch in plan.launches if not launch.attached)
    for model in models:
        if model.parent == made:
            model_folder.write(model.name, model)


def write(plan: Plan, options: Options) -> None:
    """Put plan and command scripts on disk, and room for what must be written on a full one."""
    logs = options.out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    for launch in plan.launches:
        if launch.attached:
            continue
        path = logs / f"{launch.label}_{plan.program}_command.sh"
        files.write_whole(path, script_of(launch, plan, options))
    files.write_whole(logs / "README.txt", "\n".join([*guide.lines(), ""]))
    run_record.save(logs, plan)
    files.hold_reserve(logs)


def for_the_shell(plan: Plan, options: Options, done: set[str]) -> list[str]:
    """Assignments to the variables that run_repro.sh declares."""
    program = client_words.program(options.python, options.root)
    load = program + client_words.profiled(plan)
    numbers = {name: str(number) for number, name in enumerate(plan.profile_loads, 1)}
    more = [" ".join(numbers[name] for name in plan.profiled_loads(one)) for one in plan.launches]
    ours = [launch.port for launch in plan.launches if not launch.attached or launch.attached.local]
    return [
        f"attached={int(plan.attached)} server_port={ours[0] if plan.attached and ours else ''}",
        f"engine={plan.engine} nsys={int(plan.nsys)} mps={int(plan.mps)}",
        f"traced={int(plan.profile)}",
        f"start_timeout_s={options.start_timeout_s}",
        f"nodes={plan.launches[0].started_nodes} srun={shlex.quote(options.srun)}",
        f"pair={shlex.quote(results.side_by_side(plan))}",
        f"load=({shlex.join(load)})",
        f"more_loads=({shlex.join(['', *numbers])})",
        *(
            f"load_{number}=({shlex.join(program + client_words.profiled(plan, plan.load(name)))})"
            for name, number in numbers.items()
        ),
        f"profiled_loads=({shlex.join(more)})",
        f"labels=({shlex.join(launch.label for launch in plan.launches)})",
        f"urls=({shlex.join(launch.base_url for launch in plan.launches)})",
        f"resumed=({' '.join(str(int(one.label in done)) for one in plan.launches)})",
    ]


def main(argv: list[str]) -> int:
    """plan OWN... -- OPTIONS: 0 and what the shell needs on stdout; 2 where it cannot start; 3 and
    the release whose environment is to be made first."""
    options = run_options.parse(argv)
    if options.ahead:
        options = options._replace(dry_run=True)
    if (lack := _lacking(options)) and not options.dry_run:
        complain(lack)
        return 2
    try:
        if options.owner and not options.dry_run:
            _lock(options)
        return _ahead(options) if options.ahead else _plan(options)
    except environments.NotMade as missing:
        print(missing.release)
        return 3
    except gpus.GpuError as error:
        complain(f"{error}, or --cpu for a rehearsal")
    except make_plan.REFUSALS as error:
        for line in str(error).splitlines():
            complain(line)
    except OSError as error:
        complain(_refused(error, options.out))
    return 2


def _refused(error: OSError, out: Path) -> str:
    """What a path is refused for, and what to do: where it is of --out, or none, another --out."""
    space = "free some space, or " if files.is_full(error) else ""
    place = Path(error.filename or out)
    ours = place.is_relative_to(out) or out.is_relative_to(place)
    remedy = "choose another --out" if ours else "give a path that can be used"
    return f"{place}: {error.strerror or error}; {space}{remedy}"


def _lacking(options: Options) -> str:
    """That the interpreter lacks what the harness needs of it; empty where it has all."""
    lacking = [name for name in NEEDED if not importlib.util.find_spec(name)]
    return f"{options.python} lacks {' and '.join(lacking)}: pip install them there" * bool(lacking)


def _lock(options: Options) -> None:
    """Raises LockError where another run is at work in --out, OSError."""
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        word = lock.take(options.out, options.owner)
    except OSError as error:  # of a file that is there for a moment
        raise OSError(error.errno, error.strerror, str(options.out)) from None
    if word:
        say("\n".join(wrapped(word, "  lock:   ")))


def _ask(options: Options) -> None:
    """May the load be sent to a server that others may be using? Raises PlanError where not."""
    print(f"Send this load to {options.attach}? [y/N] ", end="", file=sys.stderr, flush=True)
    with os.fdopen(options.terminal, encoding="utf-8", errors="replace") as terminal:
        answer = terminal.readline().strip().lower()
    if answer not in ("y", "yes"):
        raise PlanError("nothing was sent: answer y, or use --yes")


def _gpus(options: Options) -> gpus.Seen:
    """Those of this machine, or those that a dry run assumes. Raises GpuError."""
    if options.cpu or options.attach:
        return gpus.Seen([])
    if not options.gpus:
        return gpus.find()
    seen = gpus.assumed(options.gpus, options.gpu_gb or gpus.ASSUMED_GB)
    if (nodes := options.nodes or options.allocated) > 1:
        return seen._replace(remark=f"{seen.remark}, on each of {nodes} nodes")
    if options.gpus > MOST_OF_A_MACHINE:
        more = "all in one machine; in several: --nodes M, and --gpus N for those of each"
        return seen._replace(remark=f"{seen.remark}, {more}")
    return seen


def _stops_here(plan: Plan, found: list[Gpu], options: Options, earlier: Plan | None) -> list[str]:
    """What would stop the run on this machine; what only a dry run has to look for comes first."""
    stops = [lock.objection(options.out, options.owner)]
    if not options.not_made:  # else this is the Python that plans, and another one runs
        stops.append(_lacking(options))
    if earlier is not None:
        from repro_pp_graphs.run.folder import resume  # noqa: PLC0415 - a dry run does without msgspec

        _note_inputs(plan, found, options)
        stops.append(resume.refusal(options.out / "logs", earlier, plan))
    return [text for text in stops if text] + preflight.of_machine(plan, options)


def _note_inputs(plan: Plan, found: list[Gpu], options: Options) -> None:
    """What the run rests on beside its options."""
    plan.inputs = inputs.of(plan, options.root)
    plan.machine = inputs.machine("cpu" if plan.attached else plan.mode, found)


def _stops(
    plan: Plan, found: list[Gpu], options: Options, earlier: Plan | None
) -> tuple[list[tuple[str, str]], int]:
    """What would stop the run, each with where, and the status that the run would exit with before
    its first launch. What this machine lacks stops no run on one that is assumed."""
    stops = objections.of_plan(plan, found, options, _probe(options))
    here = _stops_here(plan, found, options, earlier)
    assumed = options.gpus is not None
    said = [("", problem) for problem in stops]
    said += [(" on this machine" * assumed, problem) for problem in here]
    return said, 2 if stops or (here and not assumed) else 0


def _moved_aside(options: Options) -> list[str]:
    """What a real run does with the run that --out holds, and how to go on with that instead;
    nothing where it is planned for another machine (--gpus)."""
    there = options.out / "logs" / "run.json"
    if (
        options.resume
        or options.gpus is not None
        or not there.is_file()
        or lock.objection(options.out, options.owner)
    ):
        return []  # of a run that is at work that is said
    text = f"{options.out} holds a run begun {previous.began(there)}: a real run moves it to "
    text += f"{options.out / 'previous'}"
    words = command_words.without(previous.command(there), command_words.OF_A_SESSION)
    if words and not previous.is_complete(there):
        text += f"; to go on with it: {shlex.join([*words, '--resume'])}"
    return [text]


def _kept_labels(plan: Plan, options: Options, earlier: Plan | None) -> set[str]:
    """The labels of launches that --resume keeps, said as by a real run; of a run that it cannot go
    on with none."""
    if earlier is None:
        return set()
    from repro_pp_graphs.run.folder import resume  # noqa: PLC0415 - a dry run does without msgspec

    if resume.refusal(options.out / "logs", earlier, plan):
        return set()
    done, lines = clear.go_on(plan, options, earlier)
    say("\n".join(lines))
    return done


def _stop_lines(stops: list[tuple[str, str]]) -> list[str]:
    """The same behind a dry run's commands, as comments."""
    wrote = [wrapped(problem, f"  would stop the run{where}: ") for where, problem in stops]
    return [f"#{line[1:]}" for lines in wrote for line in lines]


def _probe(options: Options) -> CachedProbe:
    kept, assumed = options.root / ".state" / "releases", options.gpus is not None
    return CachedProbe(kept, options.dry_run, assumed)


def _ahead(options: Options) -> int:
    """0 where nothing that is known before an environment of gigabytes is made would stop the run;
    what --resume goes on with is read later. Raises as `make_plan.make` does."""
    found = _gpus(options).gpus
    probe = _probe(options)
    plan = make_plan.make(options, found, None, probe)
    if problems := objections.of_plan(plan, found, options, probe):
        raise PlanError("\n".join(problems))
    return 0


def _plan(options: Options) -> int:
    seen = _gpus(options)
    found = seen.gpus
    if seen.remark:
        say("\n".join(wrapped(seen.remark, "  GPUs:   ")))
    earlier = None
    if options.resume:
        earlier = clear.earlier_run(options)
    plan = make_plan.make(options, found, earlier, _probe(options))
    say("\n".join(overview.lines(plan, options, found, goes_on=earlier is not None)))
    if options.dry_run:
        for text in _moved_aside(options):
            say("\n".join(wrapped(text, "  aside:  ")))
        stops, status = _stops(plan, found, options, earlier)
        kept = _kept_labels(plan, options, earlier)
        for where, problem in stops:  # here too: the commands that follow are many lines
            say("\n".join(wrapped(problem, f"  stops{where}: " if where else "  stops:  ")))
        print("\n".join([*dry_run.lines(plan, options, kept), *_stop_lines(stops)]))
        return status
    options.out.mkdir(parents=True, exist_ok=True)
    make_models(plan, options)
    if problems := objections.of_plan(plan, found, options, _probe(options)) + preflight.of_machine(
        plan, options
    ):
        raise PlanError("\n".join(problems))
    if options.attach and not options.yes:
        _ask(options)
    _note_inputs(plan, found, options)
    done = clear.clear_the_way(plan, options, earlier)
    plan.began = plan.began or time.strftime(previous.STAMP)
    plan.run_id = plan.run_id or os.urandom(16).hex()
    write(plan, options)
    print("\n".join(for_the_shell(plan, options, done)))
    return 0

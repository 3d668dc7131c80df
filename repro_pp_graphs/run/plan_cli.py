"""Plan a run, check what it needs, and write what run_repro.sh follows.

run_repro.sh reads stdout, tab-separated: first batch, tokens, warm-up passes at most, traced (1 or
0), the side-by-side trace (or -); then a launch a line: label, base URL, done by an earlier run (1
or 0). All else goes to stderr.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path

from repro_pp_graphs import files
from repro_pp_graphs.files import BadFile
from repro_pp_graphs.models import folder as model_folder
from repro_pp_graphs.run import (
    begin,
    inputs,
    lock,
    plan_probe,
    preflight,
    previous,
    record,
    results,
    resume,
)
from repro_pp_graphs.run import options as run_options
from repro_pp_graphs.run.command import command_script, shell_words
from repro_pp_graphs.run.options import Options
from repro_pp_graphs.run.plan import PlanError, Planner
from repro_pp_graphs.run.record import Launch, Plan
from repro_pp_graphs.server import flags, gpus
from repro_pp_graphs.server.argfile import ArgFileError
from repro_pp_graphs.server.flags import Release
from repro_pp_graphs.terminal import wrapped

# what the harness itself imports later; an environment of sglang holds them
NEEDED = ("requests", "msgspec", "numpy", "scipy")

# what identifies an installed sglang without importing it
IDENTITY = """
import importlib.metadata, importlib.util, os
spec = importlib.util.find_spec("sglang")
place = list(spec.submodule_search_locations)[0]
stamp = os.stat(os.path.join(place, "srt", "server_args.py")).st_mtime_ns
print(importlib.metadata.version("sglang"), place, stamp)
"""
MODE_TEXT = {
    "gpu": "one GPU a rank",
    "one_gpu": "ranks share GPUs in time slices: order and waiting are real, durations are not",
    "cpu": "REHEARSAL on the CPU: the real server, no CUDA graphs (on against off is an A/A run)",
}


def say(text: str) -> None:
    """A line for the person, apart from the lines for run_repro.sh."""
    print(text, file=sys.stderr, flush=True)


def complain(text: str) -> None:
    """Say what stops the run."""
    say("\n".join(wrapped(text, "run_repro.sh: ")))


class CachedProbe:
    """flags.probe, remembered in .state/releases: importing sglang takes 5 to 20 s."""

    def __init__(self, folder: Path, dry_run: bool) -> None:
        self.folder = folder
        self.dry_run = dry_run

    def __call__(self, python: str, env: dict[str, str]) -> Release | None:
        """The release of `python`; None for one without sglang under --dry-run."""
        done = subprocess.run([python, "-c", IDENTITY], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            if self.dry_run:
                return None
            raise flags.ProbeError(f"{python}: no sglang there; --python names another interpreter")
        name = hashlib.sha256((python + done.stdout).encode()).hexdigest()[:16]
        path = self.folder / f"{name}.json"
        with contextlib.suppress(OSError, ValueError, KeyError):
            return flags.release_from_json(path.read_text(encoding="utf-8"))
        say(f"  asking sglang {done.stdout.split()[0]} for its arguments (once an environment)")
        release = flags.probe(python, env)
        self.folder.mkdir(parents=True, exist_ok=True)
        files.write_whole(path, flags.release_to_json(release))
        return release


def overview(plan: Plan, options: Options) -> list[str]:
    """What the run is about to do, for the terminal."""
    first = plan.launches[0]
    server = (
        f"sglang {first.sglang_version}, pp {first.pp_size} x tp {first.tp_size}, "
        f"{Path(first.model).name}"
    )
    if plan.engine == "probe":
        server = f"the PP ring without sglang, {first.pp_size} ranks"
    load = f"batch {plan.batch} x {plan.max_new_tokens} new tokens"
    how = MODE_TEXT[plan.mode].replace(
        "real server", "probe" if plan.engine == "probe" else "real server"
    )
    lines = [
        *wrapped(how, "  how:    "),
        *wrapped(server, f"  {plan.program + ':':<8}"),
        f"  load:   {load}" + (f"; profile of {plan.profile_steps} steps" if plan.profile else ""),
        *wrapped(", ".join(launch.label for launch in plan.launches), "  cases:  "),
        *wrapped(f"{options.out}/logs, {options.out}/trace", "  leaves: "),
    ]
    notes = dict.fromkeys(note for launch in plan.launches for note in launch.notes)
    return lines + [line for note in notes for line in wrapped(note, "  note:   ")]


def dry_run_lines(plan: Plan, options: Options) -> list[str]:
    """Every command and every file of a run, as they would be."""
    lines = []
    for launch in plan.launches:
        label = launch.label
        lines += [f"# {label}", *_script(launch, plan, options).splitlines()[2:]]
        if plan.engine == "sglang":
            lines += ["# then, once /health answers:", client_command(plan, options, launch)]
        lines.append("")
    lines.append("# files")
    for launch in plan.launches:
        lines += [f"{options.out}/{name}" for name in results.of_launch(launch, plan)]
    return lines + [f"{options.out}/{name}" for name in results.of_run(plan)]


def client_command(plan: Plan, options: Options, launch: Launch) -> str:
    """The measuring client's command, as run_repro.sh gives it."""
    words = [options.python, f"{options.root}/client_benchmark.py"]
    words += ["--prompts", f"{options.root}/prompts.txt", "--base-url", launch.base_url]
    words += ["--batch", str(plan.batch), "--max-new-tokens", str(plan.max_new_tokens)]
    words += ["--warmup", "1", "--warmup-passes", str(plan.warmup_passes), "--control", "5"]
    words += ["--output", f"{options.out}/logs/{launch.label}_client.json"]
    return shell_words(words)


def _script(launch: Launch, plan: Plan, options: Options) -> str:
    nsys_output = options.out / "trace" / launch.label if plan.nsys else None
    return command_script(launch, plan.program, options.root, nsys_output)


def make_models(plan: Plan, options: Options) -> None:
    """Write the folders of models without weights."""
    made = options.root / ".state" / "models"
    for launch in plan.launches:
        if Path(launch.model).parent == made:
            model_folder.write(Path(launch.model).name, Path(launch.model))


def write(plan: Plan, options: Options) -> None:
    """Put plan and command scripts on disk, and room for what must be written on a full one."""
    logs = options.out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    for launch in plan.launches:
        script = logs / f"{launch.label}_{plan.program}_command.sh"
        files.write_whole(script, _script(launch, plan, options))
    files.write_whole(logs / "run.json", record.to_json(plan))
    files.hold_reserve(logs)


def clear_the_way(plan: Plan, options: Options) -> set[str]:
    """Move an earlier run's results aside; with --resume only those of launches to repeat.

    Returns the labels that are done. Raises PlanError where --resume cannot go on, OSError.
    """
    logs = options.out / "logs"
    if not (logs / "run.json").exists():
        names = [name for one in plan.launches for name in results.claimed(one, plan)]
        names += results.of_run(plan) + results.traces(options.out)
        if line := begin.clear(options.out, list(dict.fromkeys(names)), "run"):
            say("\n".join(wrapped(line, "  aside:  ")))
        return set()
    if not options.resume:
        kept = previous.move_aside(options.out)
        say(f"  kept:   the earlier run, now in {kept}")
        return set()
    return _resume(plan, options)


def _resume(plan: Plan, options: Options) -> set[str]:
    logs = options.out / "logs"
    try:
        earlier = record.load(logs)
    except BadFile as error:
        raise PlanError(
            f"--resume: {error}: there is nothing to go on with; without --resume what is there is "
            "moved aside and the run starts over"
        ) from None
    if reason := resume.refusal(logs, earlier, plan):
        raise PlanError(reason)
    plan.began, plan.run_id, plan.resumed = earlier.began, earlier.run_id, earlier.resumed
    done, lines = resume.done(logs, plan)
    for line in lines:
        say("\n".join(wrapped(line, "  again:  ")))
    again = [launch for launch in plan.launches if launch.label not in done]
    for path in logs.glob("*.part"):  # of a run that was killed
        path.unlink()
    for path in (options.out / "trace").glob(".merge-*"):
        shutil.rmtree(path, ignore_errors=True)
    if again:
        plan.resumed = [*plan.resumed, time.strftime(previous.STAMP)]
        names = [name for launch in again for name in results.claimed(launch, plan)]
        names += [name for name in results.of_run(plan) if name not in results.KEPT]
        previous.move_aside(options.out, names)
    since = f" (begun {plan.began})" if plan.began else ""
    say(f"  resume: {len(done)} of {len(plan.launches)} launches are done{since}")
    return done


def main(argv: list[str]) -> int:
    """plan OPTIONS: 0 and the launches on stdout, 2 where the run cannot start."""
    options = run_options.parse(argv)
    lacking = [name for name in NEEDED if not importlib.util.find_spec(name)]
    if lacking and not options.dry_run:
        complain(f"{options.python} lacks {' and '.join(lacking)}: pip install them there")
        return 2
    try:
        if options.owner and not options.dry_run:
            _lock(options)
        return _plan(options)
    except gpus.GpuError as error:
        complain(f"{error}, or --cpu for a rehearsal")
    except (PlanError, ArgFileError, flags.FlagError, flags.ProbeError, lock.LockError) as error:
        for line in str(error).splitlines():
            complain(line)
    except OSError as error:
        full = "; free some space, or choose another --out" if files.is_full(error) else ""
        complain(f"{error}{full}")
    return 2


def _lock(options: Options) -> None:
    """Raises LockError where another run is at work in --out, OSError."""
    options.out.mkdir(parents=True, exist_ok=True)
    if word := lock.take(options.out, options.owner):
        say("\n".join(wrapped(word, "  lock:   ")))


def _plan(options: Options) -> int:
    seen = gpus.Seen([]) if options.cpu else gpus.find()
    found = seen.gpus
    if seen.remark:
        say("\n".join(wrapped(seen.remark, "  GPUs:   ")))
    probe = CachedProbe(options.root / ".state" / "releases", options.dry_run)
    if options.engine == "probe":
        plan = plan_probe.plan(options, found)
    else:
        plan = Planner(options, found, probe).plan()
    if clashing := results.clashes(plan):
        raise PlanError(
            f"two results would be called {clashing[0]}: give a case another label ('# label:' in "
            "its server_args file)"
        )
    say("\n".join(overview(plan, options)))
    if options.dry_run:
        print("\n".join(dry_run_lines(plan, options)))
        for problem in preflight.problems(plan, found, options):
            lines = wrapped(problem, "  would stop the run: ")
            print("\n".join(f"#{line[1:]}" for line in lines))
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    make_models(plan, options)
    if problems := preflight.problems(plan, found, options):
        raise PlanError("\n".join(problems))
    plan.inputs = inputs.of(plan, options.root)
    plan.machine = inputs.machine(plan.mode, found)
    done = clear_the_way(plan, options)
    plan.began = plan.began or time.strftime(previous.STAMP)
    plan.run_id = plan.run_id or uuid.uuid4().hex
    write(plan, options)
    pair = results.side_by_side(plan) or "-"
    load = f"{plan.batch}\t{plan.max_new_tokens}\t{plan.warmup_passes}"
    print(f"{load}\t{int(plan.profile)}\t{pair}")
    for launch in plan.launches:
        print(f"{launch.label}\t{launch.base_url}\t{int(launch.label in done)}")
    return 0

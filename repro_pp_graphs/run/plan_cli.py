"""Plan a run, check what it needs, and write what run_repro.sh follows.

run_repro.sh reads stdout, tab-separated: first batch, tokens, traced (1 or 0); then a launch a
line: label, base URL, done by an earlier run (1 or 0). All else goes to stderr.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from repro_pp_graphs.models import folder as model_folder
from repro_pp_graphs.run import options as run_options
from repro_pp_graphs.run import plan_probe, preflight, previous, record
from repro_pp_graphs.run.command import command_script, shell_words
from repro_pp_graphs.run.options import Options
from repro_pp_graphs.run.plan import PlanError, Planner
from repro_pp_graphs.run.record import Launch, Plan
from repro_pp_graphs.server import flags, gpus
from repro_pp_graphs.server.argfile import ArgFileError
from repro_pp_graphs.server.flags import Release
from repro_pp_graphs.terminal import wrapped

# what the harness itself imports later; an environment of sglang holds them
NEEDED = ("requests", "msgspec", "numpy")

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
        path.write_text(flags.release_to_json(release), encoding="utf-8")
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
        lines += [f"{options.out}/{name}" for name in files_of(launch, plan)]
    envs = (f"{name}.{kind}" for name in ("env", "env_after") for kind in ("txt", "json"))
    lines += [f"{options.out}/logs/{name}" for name in ("run.json", *envs, "summary.json")]
    if plan.profile:
        lines.append(f"{options.out}/logs/merge.log")
        if len(plan.launches) > 1:
            lines.append(f"{options.out}/trace/A_vs_B_chrome_trace.json")
    return lines


def files_of(launch: Launch, plan: Plan) -> list[str]:
    """What one launch leaves, relative to --out."""
    logs = [f"{plan.program}.log", f"{plan.program}_command.sh"]
    logs += ["client.log", "client.json", "launch.json"]
    probe = plan.engine == "probe"
    logs += ["probe.json"] if probe else []
    names = [f"logs/{launch.label}_{name}" for name in logs]
    if plan.profile:
        parts = ["analysis.json", "analysis.txt"] + ([] if probe else ["profile_load.log"])
        names += [f"logs/{launch.label}_{part}" for part in parts]
        names += [f"trace/{launch.label}/", f"trace/{launch.label}_chrome_trace.json"]
    return names + ([f"trace/{launch.label}.nsys-rep"] if plan.nsys else [])


def client_command(plan: Plan, options: Options, launch: Launch) -> str:
    """The measuring client's command, as run_repro.sh gives it."""
    words = [options.python, f"{options.root}/client_benchmark.py"]
    words += ["--prompts", f"{options.root}/prompts.txt", "--base-url", launch.base_url]
    words += ["--batch", str(plan.batch), "--max-new-tokens", str(plan.max_new_tokens)]
    words += ["--warmup", "1", "--output", f"{options.out}/logs/{launch.label}_client.json"]
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
    """Put plan and command scripts on disk."""
    logs = options.out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    (logs / "run.json").write_text(record.to_json(plan), encoding="utf-8")
    for launch in plan.launches:
        script = logs / f"{launch.label}_{plan.program}_command.sh"
        script.write_text(_script(launch, plan, options), encoding="utf-8")


def clear_the_way(plan: Plan, options: Options) -> set[str]:
    """Move an earlier run's results aside; with --resume only those of launches to repeat.

    Returns the labels that are done. Raises PlanError where --resume finds other options.
    """
    logs = options.out / "logs"
    if not (logs / "run.json").exists():
        return set()
    if not options.resume:
        kept = previous.move_aside(options.out)
        say(f"  kept:   the earlier run, now in {kept}")
        return set()
    earlier = record.load(logs)
    if replace(earlier, gpu_used_mib={}, began="") != replace(plan, gpu_used_mib={}):
        raise PlanError(
            f"--resume: {logs}/run.json was made with other options or argument files; "
            "without --resume it is moved aside and the run starts over"
        )
    plan.began = earlier.began
    done = set()
    for launch in plan.launches:
        if record.load_facts(logs, launch.label).get("status") == "ok":
            done.add(launch.label)
        else:
            hang = f"logs/{launch.label}_hang.txt"
            previous.move_aside(options.out, [*files_of(launch, plan), hang])
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
    probe = CachedProbe(options.root / ".state" / "releases", options.dry_run)
    try:
        seen = gpus.Seen([]) if options.cpu else gpus.find()
        found = seen.gpus
        if seen.remark:
            say("\n".join(wrapped(seen.remark, "  GPUs:   ")))
        if options.engine == "probe":
            plan = plan_probe.plan(options, found)
        else:
            plan = Planner(options, found, probe).plan()
        say("\n".join(overview(plan, options)))
        if options.dry_run:
            print("\n".join(dry_run_lines(plan, options)))
            for problem in preflight.problems(plan, found, options.out):
                lines = wrapped(problem, "  would stop the run: ")
                print("\n".join(f"#{line[1:]}" for line in lines))
            return 0
        options.out.mkdir(parents=True, exist_ok=True)
        make_models(plan, options)
        problems = preflight.problems(plan, found, options.out)
        if problems:
            raise PlanError("\n".join(problems))
        done = clear_the_way(plan, options)
    except gpus.GpuError as error:
        complain(f"{error}, or --cpu for a rehearsal")
        return 2
    except (PlanError, ArgFileError, flags.FlagError, flags.ProbeError, OSError) as error:
        for line in str(error).splitlines():
            complain(line)
        return 2
    plan.began = plan.began or time.strftime(previous.STAMP)
    write(plan, options)
    print(f"{plan.batch}\t{plan.max_new_tokens}\t{int(plan.profile)}")
    for launch in plan.launches:
        print(f"{launch.label}\t{launch.base_url}\t{int(launch.label in done)}")
    return 0

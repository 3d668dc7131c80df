"""What collect_env.sh does: options, collect once, print."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from repro_pp_graphs.environment import facts as found
from repro_pp_graphs.environment import gpus, masking, software, system, text_secrets, variables
from repro_pp_graphs.environment.facts import Facts
from repro_pp_graphs.environment.programs import Programs

ROOT = Path(__file__).resolve().parents[2]
_GPU_TOOLS = ("nvidia-smi", "amd-smi", "rocm-smi")
_BUDGET_S, _BUDGET_WITH_GPUS_S = 4, 18
_DESCRIPTION = """\
What a bug report about sglang, NCCL or CUDA graphs needs: system, GPUs,
network, software, environment variables, the server on a port; secrets masked."""
_EPILOG = """\
examples:
  bash collect_env.sh > env.txt                    # paste this into the issue
  bash collect_env.sh --json > env.json            # to compare two machines
  bash collect_env.sh --python ~/venv/bin/python   # the server's environment
  bash collect_env.sh --port 31000                 # and its resolved arguments
  bash collect_env.sh --bundle                     # one archive for the issue

Any Python from 3.8 on will do; without, a short list, no options. Uses
nvidia-smi, dmesg and root if there. Costs a few Python processes that do not
import torch, six nvidia-smi calls; every program has a time limit, all together
4 s, or 18 s where there are GPUs (REPRO_COLLECT_PATIENCE=10: ten times as long,
on a machine that is slow to answer). --bundle takes the whole repository and
Python 3.10; it looks at RUN_DIR only and writes issue_bundle.tar.gz and
issue.md into RUN_DIR/logs.
exit status: 0, 2 for a wrong option, 1 where a file could not be written."""
# what a Python that is asked for a bundle runs: its own packages, but this checkout's code
_BUNDLE = """import sys
sys.path[0] = sys.argv.pop(1)
from repro_pp_graphs.bundle.__main__ import main; sys.exit(main(sys.argv[1:]))"""


def _complain(text: str) -> None:
    """Say on stderr what is wrong, in lines of 79 columns; paths stay whole."""
    said = f"collect_env.sh: {text_secrets.printable(text)}"
    lines = textwrap.wrap(said, 79, break_long_words=False, break_on_hyphens=False)
    print("\n".join(lines), file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    def print_help(self, _: object = None) -> None:
        """And end: argparse would lose an error of stdout."""
        sys.exit(_print(self.format_help()))

    def error(self, message: str) -> NoReturn:
        """One sentence, without a value that may be a secret, and exit status 2."""
        said = re.sub("argument (.*): expected one argument", r"\1 needs a value", message)
        unknown = message.partition("unrecognized arguments: ")[2]
        if unknown:
            said = f"no option '{unknown.split()[0].partition('=')[0][:40]}'"
        _complain(f"{said} (see --help)")
        sys.exit(2)


def _file(text: str) -> Path:
    """An argparse type: a file to write, not `-`, as standard output has the facts."""
    if text == "-":
        raise argparse.ArgumentTypeError("- is no file: name one, or give --json alone")
    return Path(text)


def _parser() -> _Parser:
    parser = _Parser(
        prog="bash collect_env.sh",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    bundle = "pack what a run of run_repro.sh left in RUN_DIR (default: this folder): logs cut to "
    bundle += "the telling parts, environment, results, a ready issue text; all masked, in one "
    bundle += ".tar.gz, nothing sent"
    python = "the interpreter to ask about (default: $PYTHON or python3, or the .venv-* beside "
    python += "this script that has sglang, if it has none)"
    redact = "show paths, names, addresses (secrets stay masked)"
    port = "ask the server on 127.0.0.1:P (default: 30000, sglang's own)"
    add = parser.add_argument
    add("--bundle", nargs="?", const=str(ROOT), metavar="RUN_DIR", help=bundle)
    add("--json", action="store_true", help="the same facts as one JSON object")
    add("--json-file", type=_file, metavar="FILE", help="write them there as JSON too")
    add("--no-redact", dest="people", action="store_false", help=redact)
    add("--port", default="30000", metavar="P", help=port)
    add("--no-server", action="store_true", help="ask no server: none is up yet")
    add("--python", metavar="PATH", help=python)
    return parser


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = _parser()
    options = parser.parse_args(argv)
    if not re.fullmatch("[1-9][0-9]{0,4}", options.port) or int(options.port) > 65535:
        parser.error(f"--port {options.port}: not a port number")
    if options.python is not None and not shutil.which(options.python):
        parser.error(f"--python {options.python}: no such program")
    if options.bundle is not None:
        _check_bundle(parser, options)
    return options


def _check_bundle(parser: _Parser, options: argparse.Namespace) -> None:
    code = ROOT / "repro_pp_graphs" / "bundle"
    given = Path(options.bundle).absolute()
    if given.name == "logs" and (given / "run.json").is_file():  # the run is the folder around it
        options.bundle = str(given.parent)
    record = Path(options.bundle, "logs", "run.json")
    if options.json or options.json_file:
        parser.error("--json and --bundle do not go together")
    if not code.is_dir():
        parser.error(f"--bundle needs the whole repository: no {code}")
    if not os.access(record, os.R_OK):
        missing = f"no run of run_repro.sh: {record} is missing"
        named = "name the folder of the run's --out, --bundle FOLDER"
        parser.error(f"--bundle {options.bundle}: {missing}; {named}")


def _bundle(options: argparse.Namespace, programs: Programs) -> NoReturn:
    """Become a Python that can pack."""
    python = options.python or software.choose_python(programs, ROOT)
    check = "import sys; sys.exit(sys.version_info < (3, 10))"
    if subprocess.run([python, "-c", check], stderr=subprocess.PIPE, check=False).returncode:
        named = "name one with --python"
        _parser().error(f"--bundle needs Python 3.10 or later, and {python} is none: {named}")
    shown = [] if options.people else ["--no-redact"]
    os.execvp(python, [python, "-c", _BUNDLE, str(ROOT), options.bundle, *shown])


def collect(options: argparse.Namespace, programs: Programs) -> dict[str, dict[str, str]]:
    """Section -> key -> text of all that can be found, masked."""
    facts = Facts(masking.of_this_process(options.people))
    port = 0 if options.no_server else int(options.port)
    python = options.python or software.choose_python(programs, ROOT)
    asked = software.Software.start(programs, ROOT, python, port)
    clocks = system.Clocks.start(programs)
    facts.add("summary", "date", system.now())
    for key in ("sglang", "torch", "NCCL"):
        facts.add("summary", key, f"unknown: {python} did not say")
    if port:
        facts.add("summary", "server", "unknown")
    else:
        facts.add("server", "asked", "none: collected without a server (--no-server)")
    steps: dict[str, Callable[[], None]] = {
        "system": lambda: system.collect(facts, clocks),
        "gpus": lambda: gpus.collect(facts, programs),
        "network": lambda: system.collect_network(facts),
        "software": lambda: software.collect(facts, asked, port),
        "environment": lambda: variables.collect(facts),
    }
    for section, step in steps.items():
        try:
            step()
        except Exception as error:  # what this machine does not let us see ends one section
            facts.add(section, "the rest", f"not collected: {type(error).__name__}: {error}")
    return facts.by_section()


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    draft = path.with_name(f"{path.name}.part")
    try:
        with draft.open("w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        if draft.exists():
            draft.unlink()
        raise


def _end(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)


def main(argv: list[str]) -> int:
    """The exit status."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)  # the programs that were asked are ended too
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    options = _parse(argv)
    has_gpu_tool = any(map(shutil.which, _GPU_TOOLS))
    programs = Programs(_BUDGET_WITH_GPUS_S if has_gpu_tool else _BUDGET_S)
    try:
        if options.bundle is not None:
            _bundle(options, programs)
        facts = collect(options, programs)
    finally:
        programs.stop()
    if options.json_file:
        try:
            _write(options.json_file, found.as_json(facts))
        except OSError as error:
            said = f"--json-file {options.json_file}: {error.strerror}"
            _complain(f"{said}: name a place that can be written")
            return 1
    return _print(found.as_json(facts) if options.json else found.as_text(facts))


def _print(text: str) -> int:
    """The exit status: 2 where stdout takes no more, or is closed."""
    if sys.stdout is None:
        _complain("stdout is closed: send it to a file, or to /dev/null")
        return 2
    try:
        print(text, end="", flush=True)
    except OSError as error:
        _complain(f"stdout: {error.strerror}: send it to a file with room")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes again
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

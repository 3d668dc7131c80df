"""What to give in place of an option that run_repro.sh does not have. Standard library only."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

SERVER = "an argument of sglang goes into server_args_base.txt, or into the file of one case"
OF_SGLANG = (
    "it is an argument of sglang: into server_args_base.txt, or into the file of one case, as "
    "server_args_mine.txt, which --cases graphs_on,mine runs"
)
OWN = {  # arguments of sglang that are an option here, called otherwise
    "--model-path": "--model NAME",
    "--pipeline-parallel-size": "--pp-size N",
    **dict.fromkeys(("--tensor-parallel-size", "--tp"), "--tp-size N"),
}
NO_OPTION = "options begin with --, as --cases NAME"
ALIKE = 0.8  # of an option and what was typed, by difflib's ratio: a slip of the hand
CLIENT_ALONE = "client_benchmark.py has it, for a load of its own (client_benchmark.py --help)"
BATCH = "prompts in flight are --batch {}"
INPUT_LEN = "the length of prompts is an axis of the load: --sweep input_len={}"
TOKENS = "new tokens a prompt are --max-new-tokens {}"
RATE = "single prompts a second are an axis of the load: --sweep rate={}"
MIX = "prompts that arrive beside the load are an axis of it: --sweep mix=none,4000@2"
# What to say of each option of client_benchmark.py, or of sglang's bench_serving, that is about the
# load, and a value for it where the user gave none that fits.
OF_THE_LOAD: dict[str, tuple[str, str]] = {
    **dict.fromkeys(("--input-len", "--random-input-len", "--random-input"), (INPUT_LEN, "4000")),
    **dict.fromkeys(("--concurrency", "--max-concurrency", "--batch-size"), (BATCH, "16")),
    **dict.fromkeys(("--tokens", "--max-tokens", "--output-len"), (TOKENS, "256")),
    **dict.fromkeys(("--random-output-len", "--random-output"), (TOKENS, "256")),
    **dict.fromkeys(("--rate", "--request-rate"), (RATE, "4")),
    **dict.fromkeys(("--mix", "--beside-input-len", "--beside-rate"), (MIX, "")),
    "--micro-batch": (
        "the most prompts in a micro-batch are an axis of the load: --sweep micro_batch={}",
        "4",
    ),
    "--num-prompts": ("a pass sends its batch once: --batch {}, more at once", "16"),
    "--prompts": (
        "prompts are the lines of prompts.txt beside run_repro.sh: write yours there, or take "
        "synthetic ones of N tokens with --sweep input_len=N",
        "",
    ),
    "--base-url": ("a server that is already running is measured with --attach URL", ""),
}
# Options of the client that a run of several servers settles itself.
ALONE = (
    *("--backend", "--duration", "--ignore-eos", "--no-ignore-eos", "--seed"),
    *("--warmup", "--warmup-passes", "--control", "--output", "--bench-serving-json"),
    *("--max-error-rate", "--stall-timeout", "--reader"),
)


def hint(unknown: Sequence[str], attached: bool, ours: Sequence[str] = ()) -> str:
    """What to give in place of `unknown`, the words that were not understood from an option on;
    `attached`: the server is running already, and one load is sent to it; `ours`: the options that
    there are."""
    name, _, value = unknown[0].partition("=")
    value = value or next(iter(unknown[1:]), "")
    if not name.startswith("-"):
        return NO_OPTION
    if name not in (*OF_THE_LOAD, *ALONE):
        if name in OWN:
            return f"here it is {OWN[name]}"
        if name in _of_sglang():
            return OF_SGLANG
        others = [one for one in ours if name.startswith("--no") or not one.startswith("--no-")]
        meant = difflib.get_close_matches(name, others, 1, ALIKE)
        return f"did you mean {meant[0]}?" if meant else SERVER
    text, usual = OF_THE_LOAD.get(name, (CLIENT_ALONE, ""))
    if attached and "--sweep" in text:
        return CLIENT_ALONE
    number = r"[1-9][0-9]{0,5}" + r"(\.[0-9]{1,3})?" * (text == RATE)
    return text.format(value if re.fullmatch(number, value) else usual)


def _of_sglang() -> set[str]:
    """The arguments of the releases of which lists are kept."""
    kept = Path(__file__).resolve().parents[3] / "requirements" / "arguments"
    return {word for path in kept.glob("*.txt") for word in path.read_text("utf-8").split()}

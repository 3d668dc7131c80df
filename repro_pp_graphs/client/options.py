"""The command line: what is asked of the client."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from .terminal import Parser

DEFAULT_INPUT_LEN = 64
AUTO_PASSES = 5
PATHS = {"sglang": "/generate", "openai": "/v1/completions"}  # of a backend
# what is beyond is a slip of the hand: it would take hours, or all memory, before the first request
MOST = 10_000_000
MOST_STREAMS = 65_536
MOST_TOKENS = 10_000_000
EXAMPLES = """examples:
  one request of 16 prompts, 128 tokens each, raw arrivals saved
    python client_benchmark.py --batch 16 --max-new-tokens 128 --output run.json
  64 separate streams
    python client_benchmark.py --concurrency 64
  Poisson arrivals, 4 requests a second, 200 requests
    python client_benchmark.py --request-rate 4 --num-prompts 200
  keep 8 streams busy for a minute (a load to profile under)
    python client_benchmark.py --concurrency 8 --duration 60
  one more line in the JSONL that a bench_serving dashboard reads
    python client_benchmark.py --concurrency 16 --bench-serving-json runs.jsonl
  an OpenAI-compatible server; its key: SGLANG_API_KEY or OPENAI_API_KEY
    python client_benchmark.py --backend openai --base-url http://127.0.0.1:8000

exit status: 0 measured; 1 more failures than --max-error-rate, or no server;
2 usage; 130 interrupted (what had arrived is still reported and written)."""


class UsageError(Exception):
    """Something the user has to change; printed as one line, exit status 2."""


class Options(argparse.Namespace):
    """The command line, parsed and completed."""

    base_url: str
    backend: str
    model: str | None
    prompts: Path | None  # None: synthetic ones
    default_prompts: (
        bool  # neither --prompts nor --input-len was given, and no prompts.txt is there
    )
    input_len: int | None
    batch: int
    concurrency: int | None  # None: no limit, at a request rate
    num_prompts: int | None
    request_rate: float | None
    beside_input_len: int | None  # None: nothing arrives beside the load
    beside_rate: float | None
    duration_s: float | None
    max_new_tokens: int
    ignore_eos: bool
    seed: int
    warmup: int
    warmup_passes: int
    control: int
    stall_timeout_s: float
    max_error_rate: float
    reader: str
    output: Path | None
    bench_serving_json: Path | None


def _number(
    kind: type[int] | type[float], low: float, above: bool = False, high: float = math.inf
) -> Callable[[str], float]:
    """An argparse type: a finite number of at least `low`, or `above` it, up to `high`."""

    def parse(text: str) -> float:
        try:
            value = kind(text) if len(text) < 30 and text.isascii() else None
        except ValueError:
            value = None
        if value is None:
            what = "whole number" if kind is int else "number"
            raise argparse.ArgumentTypeError(f"{text[:30]!r}: not a {what}")
        if value > high:
            raise argparse.ArgumentTypeError(f"{text}: must be <= {high:g}")
        if not low <= value < math.inf or (above and value == low):
            raise argparse.ArgumentTypeError(f"{text}: must be {'>' if above else '>='} {low:g}")
        return value

    return parse


def _passes(text: str) -> int:
    """An argparse type: how many warm-up passes at most."""
    return AUTO_PASSES if text == "auto" else int(_number(int, 0, high=1000)(text))


def _file(text: str) -> Path:
    """An argparse type: a file to write, not `-`, as standard output has the report."""
    if text == "-":
        raise argparse.ArgumentTypeError("- is no file, standard output has the report: name one")
    return Path(text)


def options_parser() -> argparse.ArgumentParser:
    """Every option with its help and default."""
    parser = Parser(
        usage="python client_benchmark.py [options]   (--help lists them)",
        description="Measure streaming latency and throughput of an inference server.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    count, above_zero = _number(int, 1, high=MOST), _number(float, 0, above=True)
    streams = _number(int, 1, high=MOST_STREAMS)
    tokens = _number(int, 1, high=MOST_TOKENS)
    # fmt: off
    add = parser.add_argument_group("server").add_argument
    add("--base-url", default="http://127.0.0.1:30000", metavar="URL",
        help="default: http://127.0.0.1:30000; its key, if any, in SGLANG_API_KEY, or else "
        "OPENAI_API_KEY")
    add("--backend", choices=("sglang", "openai"), default="sglang",
        help="sglang: /generate (default); openai: /v1/completions; without or with it, or /v1, "
        "in --base-url")
    add("--model", help="model name for openai (default: the first of /v1/models)")
    add = parser.add_argument_group("load").add_argument
    add("--prompts", type=Path, metavar="FILE",
        help="one prompt a line (default: prompts.txt beside client_benchmark.py, and without "
        f"it --input-len {DEFAULT_INPUT_LEN})")
    add("--input-len", type=tokens, metavar="N", help="synthetic prompts of about N tokens")
    add("--batch", type=streams, metavar="N",
        help="prompts in one request (default 16; 1 with --concurrency or --request-rate)")
    add("--concurrency", type=streams, metavar="N",
        help="separate streams kept in flight (with --request-rate: the most in flight)")
    add("--num-prompts", type=count, metavar="N",
        help="prompts in all (default: batch x concurrency; every prompt of the file at a rate)")
    add("--request-rate", type=above_zero, metavar="R",
        help="requests a second, Poisson, open loop")
    add("--duration", dest="duration_s", type=above_zero, metavar="S",
        help="start new streams until S seconds passed")
    add("--beside-input-len", type=tokens, metavar="N",
        help="while the load decodes, single prompts of about N tokens arrive, for one token each")
    add("--beside-rate", type=above_zero, metavar="R", help="of these a second, Poisson")
    add("--max-new-tokens", type=tokens, default=128, metavar="N", help="tokens a prompt (128)")
    add("--ignore-eos", action=argparse.BooleanOptionalAction, default=True,
        help="generate exactly --max-new-tokens (default)")
    add("--seed", type=_number(int, -(2**63), high=2**63), default=0,
        help="for arrivals, synthetic prompts and OpenAI's seed (0)")
    add("--warmup", type=_number(int, 0, high=MOST), default=1, metavar="N",
        help="requests sent and awaited before measuring (1)")
    add("--warmup-passes", type=_passes, default=0, metavar="N",
        help="then repeat the measured load until TTFT and TPOT of two passes in a row agree "
        f"within 5 %%, at most N times (0; auto: {AUTO_PASSES})")
    add("--control", type=_number(int, 0, high=MOST), default=0, metavar="N",
        help="after measuring, send one short prompt alone for one token, N times: its TTFT, "
        "which decode CUDA graphs cannot change, shows whether the machine changed (0)")
    add = parser.add_argument_group("result").add_argument
    add("--output", type=_file, metavar="FILE.json", help="summary and every raw arrival")
    add("--bench-serving-json", type=_file, metavar="FILE.jsonl",
        help="append the line that sglang's bench_serving --output-file writes; null: what this "
        "client cannot know (server_info, accept_length, retokenized counts)")
    add("--max-error-rate", type=_number(float, 0, high=1), default=0.0, metavar="F",
        help="share of prompts that may fail before the exit status is 1 (0)")
    add("--stall-timeout", dest="stall_timeout_s", type=above_zero, default=300, metavar="S",
        help="give a stream up after S seconds without a byte (300)")
    add("--reader", choices=("auto", "epoll", "threads"), default="auto",
        help="epoll: one thread reads all streams (default on Linux); threads: one a stream, "
        "more CPU, and decodes compressed answers")
    # fmt: on
    return parser


def _is_address(url: str) -> bool:
    """Whether it names a server by http or https; one with a password is none."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    host = parts.hostname or ""
    plain = re.fullmatch(r"[A-Za-z0-9._-]+|[0-9a-f:.]+(?:%[A-Za-z0-9._-]+)?", host)
    known = parts.scheme in ("http", "https") and plain is not None and "@" not in parts.netloc
    return known and port != 0 and url.isprintable() and " " not in url


def _root(url: str, backend: str) -> str:
    """The server's address without the path that the client adds: OpenAI's clients take one that
    ends in /v1, and a whole address may be copied from a request."""
    return url.rstrip("/").removesuffix(PATHS[backend]).rstrip("/").removesuffix("/v1").rstrip("/")


def choose_prompts(options: Options, default: Path) -> None:
    """Without --prompts and --input-len: the file `default`, or synthetic prompts."""
    chosen = options.prompts is not None or options.input_len is not None
    options.default_prompts = not chosen and not default.exists()
    if options.default_prompts:
        options.input_len = DEFAULT_INPUT_LEN
    elif not chosen:
        options.prompts = default


def parse_options(argv: Sequence[str], folder: Path = Path()) -> Options:
    """Options from the command line; `--max_new_tokens` and `--max-new-tokens` are the same.

    `folder` is client_benchmark.py's, with prompts.txt. Exits with status 2 on a wrong option.
    """
    parser = options_parser()
    words = [
        name.replace("_", "-") + equals + value if word.startswith("--") else word
        for word in argv
        for name, equals, value in [word.partition("=")]
    ]
    options = parser.parse_args(words, namespace=Options())
    if not _is_address(options.base_url):
        parser.error("--base-url: give http://HOST:PORT, with a port from 1 to 65535")
    options.base_url = _root(options.base_url, options.backend)
    choose_prompts(options, folder / "prompts.txt")
    if (options.beside_input_len is None) != (options.beside_rate is None):
        parser.error("--beside-input-len and --beside-rate: give both, or neither")
    if options.beside_rate is not None and options.request_rate is not None:
        parser.error("--beside-rate is beside a closed loop: leave --request-rate out")
    separate = options.concurrency is not None or options.request_rate is not None
    options.batch = options.batch or (1 if separate else 16)
    if options.request_rate is None:
        options.concurrency = options.concurrency or 1
    return options

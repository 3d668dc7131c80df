"""Logs of servers that died, by cause: tests/data/server_logs, in whole.

A file holds sections `=== name | cause`; where all have one cause its first line says `cause: ...`.
A line `@word` stands for lines that every healthy start has (HEALTHY), `@sched PP1` for the head of
what a rank says when it ends by an exception.

The files named by a cause were written after public reports, before any rule that reads them.
reported_*.log quote what programs said in the report that a section names; they were held out: at
first sight the rules told 34 of the 52 in reported_1 rightly, called 12 unknown and 6 wrong, and,
mended by those, 11, 2 and 2 of the 15 in reported_2. outside.log has whole logs made for other
faults of the diagnosis.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "data" / "server_logs"
START = (
    "[2026-11-20 09:00:01] server_args=ServerArgs(model_path='/models/m70', tokenizer_mode='auto', "
    "pp_size=4, watchdog_timeout=300)"
)

# what a healthy CPU server of 0.5.21 says in passing
CPU_NOISE = """\
[2026-11-23 21:26:00 PP1] The total number of ranks (2) is larger than numa node number (1), in \
this case the available memory amount of each rank cannot be determined in prior. Please set \
proper `--max-total-tokens` to avoid the out-of-memory error.
[2026-11-23 21:26:02 PP0] Ignore import error when loading sglang.srt.models.bailing_moe_linear: \
No module named 'vllm'
[2026-11-23 21:26:04] OpenAI Responses API (/v1/responses) disabled: OpenAIServingResponses init \
failed (ModuleNotFoundError: No module named 'openai_harmony')
"""


def _ranks(time: str, text: str) -> str:
    return "\n".join(f"[2026-11-20 {time} PP{rank}] {text}" for rank in range(4))


LOADING = f"{START}\n" + _ranks("09:00:20", "Load weight begin. avail mem=78.00 GB")
LOADED = f"{LOADING}\n" + _ranks(
    "09:02:20",
    "Load weight end. elapsed=119.9 s, type=LlamaForCausalLM, avail mem=44.10 GB, "
    "mem usage=34.20 GB.",
)
CAPTURING = _ranks(
    "09:02:31", "Capture cuda graph begin. This can take up to several minutes. avail mem=7.90 GB"
)
CAPTURED = f"{LOADED}\n{CAPTURING}\n" + _ranks(
    "09:02:50", "Capture cuda graph end. Time elapsed: 19.20 s. mem usage=0.50 GB."
)
READY = (
    "[2026-11-20 09:03:00] INFO:     Uvicorn running on http://127.0.0.1:30000 (Press CTRL+C to "
    "quit)\n[2026-11-20 09:03:11] The server is fired up and ready to roll!"
)
DECODE = (
    "Decode batch, #running-req: 4, #token: 900, token usage: 0.03, cuda graph: True, gen "
    "throughput (token/s): 90.10, #queue-req: 0"
)
HEALTHY = {
    "start": START,
    "loading": LOADING,
    "loaded": LOADED,
    "capturing": CAPTURING,  # after @loaded
    "captured": CAPTURED,
    "decoded": CAPTURED,
    "decoding": f"{CAPTURED}\n{READY}\n{_ranks('09:03:24', DECODE)}",
    "advice": "Possible solutions:\n"
    "1. set --mem-fraction-static to a smaller value (e.g., 0.8 or 0.7)\n"
    "2. set --cuda-graph-max-bs to a smaller value (e.g., 16)\n"
    "3. disable torch compile by not using --enable-torch-compile\n"
    "4. disable CUDA graph by --disable-cuda-graph. (Not recommended. Huge performance loss)\n"
    "Open an issue on GitHub https://github.com/sgl-project/sglang/issues/new/choose ",
    "sigquit": "\n[2026-11-20 09:02:41] Received sigquit from a child process. It usually means "
    "the child failed.",
}
SCHEDULER = (
    "[2026-11-20 09:02:40 {}] Scheduler hit an exception: Traceback (most recent call last):\n"
    '  File "/opt/x/sglang/srt/managers/scheduler.py", line 100, in run_scheduler_process\n'
    "    scheduler = Scheduler("
)


@dataclass(frozen=True)
class DeadServer:
    """A server's log and why it died: how the diagnosis of it begins."""

    name: str
    cause: str
    text: str

    def __str__(self) -> str:
        return self.name


def whole(text: str) -> str:
    """A section's text with its @words written out."""
    text = re.sub(r"^@sched (\S+)$", lambda m: SCHEDULER.format(m[1]), text, flags=re.M)
    return re.sub(r"^@(\w+)$", lambda m: HEALTHY[m[1]], text, flags=re.M)


def read(path: Path) -> list[DeadServer]:
    """All logs of a file."""
    head, *sections = re.split(r"^=== ", path.read_text(encoding="utf-8"), flags=re.M)
    of_all = head.removeprefix("cause: ").strip()
    found = []
    for section in sections:
        title, _, body = section.partition("\n")
        name, _, cause = title.partition(" | ")
        found.append(DeadServer(f"{path.stem}: {name}", cause or of_all, whole(body)))
    return found


ALL = [one for path in sorted(FOLDER.glob("*.log")) for one in read(path)]

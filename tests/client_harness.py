"""The load client in this process, and what it changes of the process put back."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CLIENT = Path(__file__).resolve().parents[1] / "client_benchmark.py"
sys.path.insert(0, str(CLIENT.parent))
import client_benchmark as client  # noqa: E402

TEN_TOKENS = ("--warmup", "0", "--max-new-tokens", "10")


@contextmanager
def client_runs(
    folder: Path, capsys: Any, *common: str
) -> Iterator[Callable[..., tuple[int, dict[str, Any], str]]]:
    """run(url, *options) -> (exit status, --output document, stdout)."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    interval = sys.getswitchinterval()

    def run(url: str, *argv: str) -> tuple[int, dict[str, Any], str]:
        output = folder / "out.json"
        status = client.main(["--base-url", url, "--output", str(output), *common, *argv])
        return status, json.loads(output.read_text(encoding="utf-8")), capsys.readouterr().out

    yield run
    sys.setswitchinterval(interval)
    for number, handler in handlers.items():
        signal.signal(number, handler)

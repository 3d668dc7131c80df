#!/usr/bin/env python3
"""Streaming load client for sglang and OpenAI-compatible servers.

Purpose   Send prompts, stamp every byte that comes back, and derive TTFT, ITL, TPOT, E2E and
          throughput from the raw (arrival, cumulative tokens) pairs; --output saves those.
Usage     python client_benchmark.py --base-url http://127.0.0.1:30000 --output run.json
Overhead  While streams run, one thread reads the sockets; on Linux the kernel has stamped what it
          reads. Parsing waits until the last stream has ended, or 64 MiB have come.

Needs     Python 3.10, requests, and its folder repro_pp_graphs/client. Works when these two are
          copied to another machine: the folder in its place below this file, or beside it.

Token counts are the server's own (`meta_info.completion_tokens`; `usage` of OpenAI servers),
never a count of chunks. All times are this machine's CLOCK_MONOTONIC in nanoseconds.
"""

import gc
import sys
from importlib import import_module
from pathlib import Path


def main() -> int:
    """Run the client that lies with this file; returns the exit status."""
    if sys.version_info < (3, 10):  # noqa: UP036 - it is copied to machines with older ones
        version = ".".join(map(str, sys.version_info[:2]))
        print(f"client_benchmark.py: needs Python 3.10 or newer, not {version}", file=sys.stderr)
        return 2
    here = Path(__file__).resolve().parent
    package = here / "repro_pp_graphs"
    if (package / "__init__.py").is_file():
        place, name = here, "repro_pp_graphs.client"
    else:  # copied alone: below repro_pp_graphs, or beside this file
        place, name = (package if (package / "client").is_dir() else here), "client"
    if not (place / name.replace(".", "/") / "command.py").is_file():
        print(f"client_benchmark.py: copy repro_pp_graphs/client to {here} too", file=sys.stderr)
        return 2
    sys.path.insert(0, str(place))
    status: int = import_module(f"{name}.command").main(sys.argv[1:], here)
    return status


if __name__ == "__main__":
    gc.set_threshold(50_000, 20, 20)  # what is imported lives to the end
    try:
        status = main()
    finally:
        gc.freeze()  # else Python looks for cycles in all of it before it ends
    sys.exit(status)

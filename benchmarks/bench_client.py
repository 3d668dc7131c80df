"""How faithful and how dear client_benchmark.py is, beside other streaming clients.

USAGE       python benchmarks/bench_client.py [--python-sglang PYTHON] [--load 64x5 256x20 1000x80]
            [--rounds 5] [--tokens 128] [--json FILE] [--before CHECKOUT] [--clients NAME ...]
SERVER      paced_server.c, compiled with cc: sends at exact times and stamps every send
CLIENTS     ours; floor: raw sockets and one epoll, the least a Python client can do; naive:
            requests, a thread a stream; and, with an interpreter that has sglang 0.5.21,
            aiohttp on uvloop, and bench_serving's own request function; with --before,
            client_benchmark.py of another checkout, run by the bench_client_peer.py that is there:
                git worktree add ../before COMMIT
                python benchmarks/bench_client.py --before ../before --clients ours before
MEASURES    CPU of the client's process a 1000 tokens, connecting to the last byte and parsing; per
            token |client's gap - server's gap|; the clients' mean gap less the server's; TTFT less
            the server's (request received to first send); tokens that were sent and not counted
            Rounds alternate through the clients; the table has medians over rounds [min-max]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
COLUMNS = {  # key: (head, digits)
    "cpu_ms": ("CPU ms/1k tok", 1),
    "read_ms": ("read", 1),
    "parse_ms": ("parse", 1),
    "itl_p50_us": ("ITL err p50 us", 1),
    "itl_p99_us": ("ITL err p99 us", 0),
    "bias_us": ("ITL bias us", 2),
    "ttft_p50_us": ("TTFT err p50 us", 0),
    "lost": ("lost", 0),
}


class Server:
    """paced_server for one run; a context manager. `stamps` is known after it ended."""

    def __init__(self, program: Path, itl_us: int, tokens: int) -> None:
        self._argv = [str(program), str(itl_us), str(tokens), "100"]
        self.stamps: dict[int, list[int]] = {}

    def __enter__(self) -> Server:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(self._argv, stdout=pipe, stderr=pipe, text=True)
        assert self._process.stderr is not None
        self.url = f"http://127.0.0.1:{self._process.stderr.readline().split()[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        text, _ = self._process.communicate(timeout=60)
        for line in text.splitlines():
            number, *stamps = map(int, line.split())
            self.stamps[number] = stamps


def percentile(values: list[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def compare(stamps: dict[int, list[int]], result: dict[str, list]) -> dict[str, float]:
    """One run's figures from the server's stamps and the client's."""
    errors_us, ours_us, theirs_us, first_us, sent, counted = [], [], [], [], 0, 0
    for number, (received_ns, *sends) in stamps.items():
        events = result["events"][number]
        sent, counted = sent + len(sends), counted + (events[-1][1] if events else 0)
        arrivals: list[int] = []
        for arrival_ns, tokens in events:
            arrivals += [arrival_ns] * (tokens - len(arrivals))
        first_us.append((arrivals[0] - result["sent_ns"][number] - sends[0] + received_ns) / 1e3)
        for i in range(1, min(len(sends), len(arrivals))):
            ours_us.append((arrivals[i] - arrivals[i - 1]) / 1e3)
            theirs_us.append((sends[i] - sends[i - 1]) / 1e3)
            errors_us.append(abs(ours_us[-1] - theirs_us[-1]))
    read_ms, parse_ms = (result[key] * 1e6 / counted for key in ("read_cpu_s", "parse_cpu_s"))
    return {
        "cpu_ms": read_ms + parse_ms,
        "read_ms": read_ms,
        "parse_ms": parse_ms,
        "itl_p50_us": percentile(errors_us, 50),
        "itl_p99_us": percentile(errors_us, 99),
        "bias_us": statistics.fmean(ours_us) - statistics.fmean(theirs_us),
        "ttft_p50_us": percentile(first_us, 50),
        "lost": sent - counted,
    }


def one_run(
    client: str, peer: list[str], program: Path, load: str, tokens: int
) -> dict[str, float]:
    """`peer` is the command that takes a server's address, the number of streams and a file."""
    count, itl_ms = load.split("x")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        with Server(program, round(float(itl_ms) * 1000), tokens) as server:
            argv = [*peer, server.url, count, str(out)]
            done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
        if done.returncode != 0:
            raise SystemExit(f"{client} failed:\n{done.stderr[-2000:]}")
        return compare(server.stamps, json.loads(out.read_text()))


def table(load: str, tokens: int, runs: dict[str, list[dict[str, float]]]) -> list[str]:
    count, itl_ms = load.split("x")
    lines = [f"{count} streams x {itl_ms} ms, {tokens} tokens each; medians [min-max] of rounds"]
    lines.append("| client | " + " | ".join(head for head, _ in COLUMNS.values()) + " |")
    lines.append("|---" * (len(COLUMNS) + 1) + "|")
    for client, results in runs.items():
        cells = []
        for key, (_, digits) in COLUMNS.items():
            values = [result[key] for result in results]
            low, middle, high = min(values), statistics.median(values), max(values)
            spread = f" [{low:.{digits}f}-{high:.{digits}f}]" if low != high else ""
            cells.append(f"{middle:.{digits}f}{spread}")
        lines.append(f"| {client} | " + " | ".join(cells) + " |")
    return lines


def peer_commands(python_sglang: str | None, before: Path | None) -> dict[str, list[str]]:
    """Client -> how to run it. Raises SystemExit where `before` has no client to measure."""
    peer = str(HERE / "bench_client_peer.py")
    peers = {name: [sys.executable, peer, name] for name in ("ours", "floor", "naive")}
    if python_sglang:
        peers |= {name: [python_sglang, peer, name] for name in ("aiohttp", "bench_serving")}
    if before:
        theirs = before / "benchmarks" / "bench_client_peer.py"
        if not theirs.is_file():
            raise SystemExit(f"--before {before}: no {theirs}: name a checkout that has it")
        peers["before"] = [sys.executable, str(theirs), "ours"]
    return peers


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python-sglang", metavar="PYTHON")
    parser.add_argument("--load", nargs="+", default=["64x5", "256x20", "1000x80"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--before", type=Path, metavar="CHECKOUT")
    parser.add_argument("--clients", nargs="+", metavar="NAME")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    peers = peer_commands(args.python_sglang, args.before)
    clients = args.clients or list(peers)
    if unknown := set(clients) - set(peers):
        parser.error(f"--clients {min(unknown)}: there are {', '.join(peers)}")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "paced_server"
        compiler = [os.environ.get("CC", "cc"), "-O2", "-o", str(program)]
        subprocess.run([*compiler, str(HERE / "paced_server.c")], check=True)
        for load in args.load:
            runs: dict[str, list[dict[str, float]]] = {client: [] for client in clients}
            for number in range(args.rounds):
                turn = number % len(clients)
                for client in clients[turn:] + clients[:turn]:
                    runs[client].append(one_run(client, peers[client], program, load, args.tokens))
            print("\n".join(table(load, args.tokens, runs)) + "\n", flush=True)
            if args.json:
                with args.json.open("a") as file:
                    file.write(json.dumps({"load": load, "runs": runs}) + "\n")


if __name__ == "__main__":
    main()

"""`python -m sglang.launch_server`: ranks as processes, a log and HTTP as the real one has.

Faults, by environment variables (a case file's NAME=value lines):
  FAKE_FAULT   die:<cause>, linger:<cause>   at start, with that cause's log lines (faults.py)
               never_ready                   loads weights for ever
               die_batch:N, refuse_batch:N   a request of N prompts ends it; is answered 503
               hold_second_batch             is not answered: of another size than the first
               die_measure, die_profile, die_after_traces; die_profile:N at the N-th profile
               stall                         falls silent after two tokens
               truncated, missing_rank, steps_never    the last rank's trace; all ranks' traces
               slow_stop                     does not end on SIGINT
               die_node1:<cause>             the process of node 1, at start
               stubborn                      nothing but SIGKILL ends server or ranks
               usurped                       does not listen; a process of nobody's does instead
               foreign_traces                another server's ranks write into the folder too
               fill:<start, measure, profile, traces>   the disk of --out is full from then on
  FAKE_MENDED  a file: once it exists there is no fault
  FAKE_MICRO_BATCH  what /set_internal_state takes (default pp_max_micro_batch_size), and up to how
               many: NAME:MOST; every answer is [true] then
  FAKE_GRAPHS  True, False                   what log and traces say, whatever was asked for
  FAKE_QUIET   nothing goes to the log, as with --log-level warning
  FAKE_ITL_MS  milliseconds a token (default 2)
  FAKE_SAYS    a file whose bytes go to the log at the start
  FAKE_INFO    JSON: what /server_info says besides
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from sglang.faults import DEATHS, SCHEDULER, SIGQUIT
from sglang.rank import CAUSE, CHOOSES_ID, FAULT, VERSION, graphs_run, log, run_rank
from sglang.srt.entrypoints import engine
from sglang.srt.server_args import ServerArgs


class Ranks:
    """The rank processes and a pipe to each."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.nodes: list[socket.socket] = []  # connections to further nodes
        # sglang spawns them (test_server_shims does, too); a fork takes a fifth of the CPU
        fork = multiprocessing.get_context("fork")
        self.pipes: list[Connection] = []
        self.processes = []
        here = args.pp_size * args.tp_size // args.nnodes
        for rank in range(here * args.node_rank, here * (args.node_rank + 1)):
            ours, theirs = fork.Pipe()
            with engine.maybe_reindex_device_id(rank):
                process = fork.Process(target=run_rank, args=(rank, args, theirs), daemon=True)
                process.start()
            self.pipes.append(ours)
            self.processes.append(process)

    def wait(self) -> None:
        for pipe in self.pipes:
            pipe.recv()

    def send(self, request: dict[str, Any]) -> None:
        for pipe in self.pipes:
            pipe.send(request)
        for node in self.nodes:
            node.sendall(json.dumps(request).encode() + b"\n")

    def vanish(self) -> None:
        """End every process of this server at once."""
        for process in self.processes:
            process.kill()
        os.kill(os.getpid(), signal.SIGKILL)


def fill_disk(moment: str) -> None:
    """Leave no room on the disk of the log, if FAKE_FAULT says so of this moment."""
    if FAULT != "fill" or moment != CAUSE:
        return
    log_path = Path("/proc/self/fd/1").resolve()
    with contextlib.suppress(OSError), (log_path.parents[1] / "ballast").open("wb", 0) as ballast:
        while True:
            ballast.write(b"x" * 4096)


def usurp(port: int) -> None:
    """Let a process that is no descendant of ours listen at the port."""
    server = Path(__file__).resolve().parents[3] / "standin_server.py"
    line = 'setsid "$@" >/dev/null 2>&1 </dev/null &'
    words = [sys.executable, str(server), "--port", str(port)]
    subprocess.run(["bash", "-c", line, "usurp", *words], check=True)


def serve(args: argparse.Namespace, ranks: Ranks) -> None:
    sys.path.append(str(Path(__file__).resolve().parents[3]))
    sys.modules["ssl"] = None  # http.client does without, in half the time
    import standin_server  # noqa: PLC0415 - beside the tests

    pending: dict[str, Any] = {}
    sizes: set[int] = set()  # of the batches that came

    class Handler(standin_server._Handler):
        def do_GET(self) -> None:
            if self.path in ("/server_info", "/get_server_info"):
                # a server that was given a key repeats it here
                more = json.loads(os.environ.get("FAKE_INFO", "{}"))
                found = {**vars(args), "version": VERSION, "api_key": "FAKE-SECRET"}
                found |= {**self._states(), **more}
                self._whole(200, found)
            else:
                super().do_GET()

        def _stream(self, payload: dict[str, Any], number: int) -> None:
            if number > 0:
                fill_disk("measure")
            is_batch = str(len(payload["text"])) == CAUSE and isinstance(payload["text"], list)
            if FAULT == "hold_second_batch" and isinstance(payload["text"], list):
                sizes.add(len(payload["text"]))
                if len(sizes) > 1:
                    threading.Event().wait()
            if FAULT == "refuse_batch" and is_batch:
                self._whole(503, {"error": {"message": "too large a batch"}})
                return
            if (FAULT == "die_measure" and number > 0) or (FAULT == "die_batch" and is_batch):
                text = (
                    "torch.AcceleratorError: CUDA error: an illegal memory access was encountered"
                )
                os.write(1, f"{SCHEDULER}{text}\n{SIGQUIT}".encode())
                ranks.vanish()
            for rank in range(args.pp_size):
                log(
                    "Decode batch, #running-req: 2, #token: 64, token usage: 0.00, cuda graph: "
                    f"{graphs_run(args)}, gen throughput (token/s): 55.60, #queue-req: 0",
                    rank,
                )
            super()._stream(payload, number)

        def _whole(self, status: int, content: object) -> None:
            super()._whole(status, content)
            if self.path == "/start_profile":
                # the load's next prompt may have come in since
                asked = next(what for to, what in reversed(self.server.received) if to == self.path)
                given = None if CHOOSES_ID else asked.get("profile_id")
                own = os.environ.get("SGLANG_TORCH_PROFILER_DIR", "/tmp")
                asked = {"output_dir": own, **asked}
                self._profile({**asked, "id": given or f"{time.time():.4f}"})
            elif self.path == "/stop_profile" and pending:
                ranks.send(pending)
            elif self.path == "/set_internal_state":
                asked = next(what for to, what in reversed(self.server.received) if to == self.path)
                log(f"told {json.dumps(asked['server_args'])}")

        def _profile(self, request: dict[str, Any]) -> None:
            for rank in range(args.pp_size):
                log(f"Profiling starts. Traces will be saved to: {request['output_dir']}", rank)
            fill_disk("profile")
            profiles = sum(to == "/start_profile" for to, _ in self.server.received)
            if FAULT == "die_profile" and profiles >= int(CAUSE or 1):
                ranks.vanish()
            if FAULT == "steps_never":
                pending.update(request)
                return
            if FAULT == "foreign_traces":
                ranks.send({**request, "id": "1790000000.5"})
                ranks.wait()
            ranks.send(request)
            if FAULT == "fill" and CAUSE == "traces":
                ranks.wait()
                fill_disk("traces")
            if FAULT == "die_after_traces":
                ranks.wait()
                ranks.vanish()

    itl_s = float(os.environ.get("FAKE_ITL_MS", "2")) / 1e3
    if FAULT == "usurped":
        usurp(args.port)
        log(f"INFO:     Uvicorn running on http://127.0.0.1:{args.port} (Press CTRL+C to quit)")
        threading.Event().wait()
    fault = FAULT if FAULT == "stall" else None
    behaviour = standin_server.Behaviour(itl_s=itl_s, fault=fault, fault_after=2)
    if "FAKE_MICRO_BATCH" in os.environ:
        name, _, most = os.environ["FAKE_MICRO_BATCH"].partition(":")
        taken = {"micro_batch_name": name, "most_in_micro_batch": int(most)}
        behaviour = dataclasses.replace(behaviour, **taken, admits_refusals=False)
    stand_in = standin_server.StandIn(behaviour, args.port)
    stand_in._server.RequestHandlerClass = Handler
    with stand_in:
        log(f"INFO:     Uvicorn running on http://127.0.0.1:{args.port} (Press CTRL+C to quit)")
        log("The server is fired up and ready to roll!")
        threading.Event().wait()


def join_nodes(args: argparse.Namespace, ranks: Ranks) -> None:
    """Meet the other nodes at --dist-init-addr; those but the first never return from it."""
    host, _, port = args.dist_init_addr.rpartition(":")
    if args.node_rank == 0:
        with socket.create_server((host, int(port))) as made:
            ranks.nodes += [made.accept()[0] for _ in range(args.nnodes - 1)]
        return
    signal.signal(signal.SIGINT, lambda *_: stop(ranks))
    log(f"interface {os.environ.get('GLOO_SOCKET_IFNAME')} of node {args.node_rank}")
    if f"die_node{args.node_rank}" == FAULT:
        os.write(1, DEATHS[CAUSE].encode())
        ranks.vanish()
    while True:
        try:
            made = socket.create_connection((host, int(port)))
            break
        except ConnectionRefusedError:
            time.sleep(0.05)
    for line in made.makefile("r"):
        ranks.send(json.loads(line))
    os.write(1, b"RuntimeError: gloo/transport/tcp/pair.cc: Connection closed by peer\n")
    ranks.vanish()


def stop(ranks: Ranks) -> None:
    log("FAKE stopping")
    if FAULT not in ("slow_stop", "stubborn"):
        for process in ranks.processes:
            process.kill()
        os._exit(0)


def main() -> None:
    if FAULT == "die" and CAUSE == "argument":
        os.write(2, DEATHS[CAUSE].encode())
        sys.exit(2)
    parser = argparse.ArgumentParser(prog="launch_server.py")
    ServerArgs.add_cli_args(parser)
    args = parser.parse_args()
    args.pp_size, args.tp_size = args.pipeline_parallel_size, args.tensor_parallel_size
    log(f"server_args=ServerArgs(model_path='{args.model_path}', pp_size={args.pp_size})")
    if says := os.environ.get("FAKE_SAYS"):
        os.write(1, Path(says).read_bytes())
    fill_disk("start")
    ranks = Ranks(args)
    if FAULT == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ranks.wait()
    if args.nnodes > 1:
        join_nodes(args, ranks)
    if FAULT in ("die", "linger"):
        os.write(1, DEATHS[CAUSE].encode())
        if FAULT == "linger":
            ranks.processes[-1].kill()
            threading.Event().wait()
        ranks.vanish()
    # as uvicorn does, only once it listens
    signal.signal(signal.SIGINT, lambda *_: stop(ranks))
    serve(args, ranks)


if __name__ == "__main__":
    main()

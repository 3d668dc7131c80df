"""The nodes of a Slurm allocation, each asked by srun: what differs between them, and do they reach
the head? Leaves logs/nodes.json, and the environment of each node beside this one's."""

from __future__ import annotations

import argparse
import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from repro_pp_graphs import files, run_record
from repro_pp_graphs.environment.facts import as_text
from repro_pp_graphs.run.plan.options import complain
from repro_pp_graphs.run_record import Plan
from repro_pp_graphs.server.nodes import allocation
from repro_pp_graphs.server.nodes.allocation import Node, Nodes, SlurmError
from repro_pp_graphs.terminal import wrapped

ANSWER_LIMIT_S = 600.0  # for all nodes: a container may have to be fetched first
DIST_PORTS = 1000  # above the server's port: where sglang's own rendezvous is looked for
TRIES = 50
# rows of the table: name -> (section, key) of what collect_env.sh finds
ROWS = {
    "sglang": ("summary", "sglang"),
    "torch": ("summary", "torch"),
    "NCCL": ("summary", "NCCL"),
    "driver": ("summary", "driver"),
    "GPUs": ("summary", "GPUs"),
    "Python": ("software", "Python"),
    "checkout": ("software", "this checkout"),
    "kernel": ("system", "kernel"),
}
MUST_AGREE = ("sglang", "checkout", "model")  # else the ranks do not speak one language
UNKNOWN = "unknown"


@contextmanager
def listening(first: int) -> Iterator[int]:
    """Listen on every address of this machine, at the first free port from `first` on; gives it.

    Whoever connects is let go at once. Raises OSError where no port is free.
    """
    for port in range(first, first + TRIES):
        try:
            made = socket.create_server(("", port), backlog=128)
            break
        except OSError:
            continue
    else:
        raise OSError(f"no free port from {first} to {first + TRIES - 1}")
    with made:
        threading.Thread(target=_let_go, args=(made,), daemon=True).start()
        yield port


def _let_go(made: socket.socket) -> None:
    while True:
        try:
            made.accept()[0].close()
        except OSError:  # closed
            return


class Asked:
    """One node's answer, while srun runs."""

    def __init__(self, found: list[str], name: str, words: list[str]) -> None:
        self.name = name
        self._process = subprocess.Popen(
            allocation.command(found, name, words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )

    def answer(self, end_s: float) -> dict[str, Any]:
        """What the node said. Raises SlurmError."""
        try:
            out, error = self._process.communicate(timeout=max(1.0, end_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.terminate()
            raise SlurmError(
                f"{self.name} has not answered in {ANSWER_LIMIT_S:.0f} s: see `scontrol show node "
                f"{self.name}`, or leave it out (sbatch --exclude={self.name})"
            ) from None
        if (found := allocation.facts_in(out)) is not None:
            return found
        said = [line for line in error.splitlines() if line.strip()]
        # srun's own last line only names the exit code
        telling = [line for line in said if "Exited with" not in line] or said
        why = telling[-1].strip() if telling else f"exit {self._process.returncode}"
        raise SlurmError(
            f"{self.name}: {sys.executable} does not run the harness there ({why}): the checkout "
            "and its environment have to be on every node, at the same path"
        )


def ask(found: list[str], names: list[str], words: list[str]) -> list[dict[str, Any]]:
    """Every node's facts, in order. Raises SlurmError with a line for each that did not answer."""
    end_s = time.monotonic() + ANSWER_LIMIT_S
    asked = [Asked(found, name, words) for name in names]
    answers, faults = [], []
    for each in asked:
        try:
            answers.append(each.answer(end_s))
        except SlurmError as error:
            faults.append(str(error))
    if faults:
        raise SlurmError("\n".join(faults))
    return answers


def table_of(answer: dict[str, Any]) -> dict[str, str]:
    """A node's cells: what may differ, by the rows' names."""
    environment = answer["environment"]
    cells = {
        name: environment.get(section, {}).get(key, UNKNOWN)
        for name, (section, key) in ROWS.items()
    }
    return {**cells, "model": ", ".join(answer["models"].values())}


def nodes_of(names: list[str], answers: list[dict[str, Any]], head: str) -> list[Node]:
    """The nodes, each with the interface that its way to the head takes."""
    found = []
    for number, (name, answer) in enumerate(zip(names, answers, strict=True)):
        address = head if number == 0 else answer["address"]
        interface = answer["addresses"].get(address, "")
        cells = table_of(answer)
        found.append(Node(number, name, address, interface, answer["sees_out"], cells))
    return found


def head_of(plan: Plan, answers: list[dict[str, Any]]) -> str:
    """The head's address: of --dist-init-addr where the argument files have one, else where srun
    runs, as the other nodes see it. Raises SlurmError where they do not agree."""
    if given := plan.launches[0].value("--dist-init-addr"):
        return given.rpartition(":")[0].strip("[]")
    seen = sorted({str(answer["head"]) for answer in answers[1:]})
    if len(seen) != 1 or not seen[0]:
        raise SlurmError(
            f"the nodes know the head as {', '.join(seen) or 'nothing'}: name one address that all "
            "reach, --dist-init-addr HOST:PORT in server_args_base.txt"
        )
    return seen[0]


def problems(found: list[Node], answers: list[dict[str, Any]]) -> list[str]:
    """What would make every launch fail, a sentence each."""
    lines = []
    for node, answer in zip(found, answers, strict=True):
        if node.number and answer["unreachable"]:
            lines.append(
                f"{node.name} does not reach the head at {answer['head']} "
                f"({answer['unreachable']}): name an address that it reaches, --dist-init-addr "
                "HOST:PORT in server_args_base.txt, or open the firewall"
            )
        lines += [f"{node.name}: no {path}: install it there too" for path in answer["lacks"]]
        lines += [
            f"{node.name}: {path} has no config.json: the model has to be on every node"
            for path, digest in answer["models"].items()
            if digest == "missing"
        ]
    for name in MUST_AGREE:
        values = groups(found, name)
        if len(values) > 1 and "missing" not in values:
            lines.append(f"the nodes' {name} differs ({grouped(values)}): make it the same")
    return lines


def groups(found: list[Node], name: str) -> dict[str, list[str]]:
    """A row's values, each with the nodes that have it."""
    values: dict[str, list[str]] = {}
    for node in found:
        values.setdefault(node.facts[name], []).append(node.name)
    return values


def grouped(values: dict[str, list[str]]) -> str:
    """A row's values in words: `0.5.2 on node0; 0.5.6 on node1 and 2 more`."""
    said = []
    for value, names in values.items():
        more = f" and {len(names) - 2} more" if len(names) > 3 else ""
        said.append(f"{value} on {', '.join(names[: 2 if more else 3])}{more}")
    return "; ".join(said)


def lines(found: Nodes) -> list[str]:
    """The table for the terminal: what all nodes share in a line each, what differs by node."""
    every = found.nodes
    head = f"{len(every)} of job {found.job}; head {every[0].name}, {found.dist}"
    rows = wrapped(head, "  nodes:  ")
    dark = [name for name in every[0].facts if list(groups(every, name)) == [UNKNOWN]]
    rows += wrapped(", ".join(dark), "    unknown:  ") if dark else []
    for name in every[0].facts:
        if name in dark:
            continue
        values = groups(every, name)
        alike = len(values) == 1
        text = f"{next(iter(values))}" if alike else f"DIFFERS: {grouped(values)}"
        rows += wrapped(text, f"    {name:<10}")
    for node in every:
        how = f"{node.address} on {node.interface or 'an interface that is not known'}"
        how += "" if node.shares_out else "; does not see --out: its files are fetched"
        rows += wrapped(how, f"    {node.name:<10}")
    return rows


def store_environments(logs: Path, answers: list[dict[str, Any]]) -> None:
    """logs/env_nodeN.txt and .json of each further node. Raises OSError."""
    for number, answer in enumerate(answers):
        if not number or not answer["environment"]:
            continue
        facts = {k: v for k, v in answer["environment"].items() if isinstance(v, dict)}
        files.write_whole(logs / f"env_node{number}.txt", as_text(facts))
        files.write_json(logs / f"env_node{number}.json", answer["environment"])


def look(out: Path, plan: Plan, extra: list[str]) -> Nodes:
    """Ask every node, print the table, and record it. Raises SlurmError, OSError."""
    logs, first = out / "logs", plan.launches[0]
    names = allocation.names(first.started_nodes)
    found = [*allocation.SRUN, *extra]
    token = logs / f".seen-{os.getpid()}"
    given = plan.launches[0].value("--dist-init-addr")
    try:
        token.touch()
        with listening(int(given.rpartition(":")[2]) if given else first.port + DIST_PORTS) as port:
            words = [sys.executable, "-m", "repro_pp_graphs", "node-facts", "--port", str(port)]
            words += ["--token", str(token), "--server-port", str(first.port)]
            words += ["--head", head_of(plan, [])] if given else []
            for name, values in (("--model", "model"), ("--python", "python")):
                for value in dict.fromkeys(getattr(one, values) for one in plan.launches):
                    words += [name, value]
            answers = ask(found, names, words)
    finally:
        token.unlink(missing_ok=True)
    head = head_of(plan, answers)
    host = f"[{head}]" if ":" in head else head
    every = nodes_of(names, answers, head)
    job = os.environ.get("SLURM_JOB_ID", "")
    result = Nodes(job, given or f"{host}:{port}", found, every)
    allocation.save(logs, result)
    store_environments(logs, answers)
    print("\n".join(lines(result)))
    if faults := problems(every, answers):
        raise SlurmError("\n".join(faults))
    return result


def main(argv: list[str]) -> int:
    """nodes OUT: 0 where the launches may start on them, 2 where not."""
    parser = argparse.ArgumentParser(prog="repro_pp_graphs nodes", description=__doc__)
    parser.add_argument("out", type=Path, help="where logs and trace are")
    parser.add_argument("--srun", default="", help="more options for srun, as one text")
    options = parser.parse_args(argv)
    try:
        look(options.out, run_record.load(options.out / "logs"), shlex.split(options.srun))
    except SlurmError as error:
        for line in str(error).splitlines():
            complain(line)
        return 2
    return 0

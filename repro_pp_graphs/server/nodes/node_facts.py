"""node-facts: what one node of an allocation is and sees, as a line of JSON. It runs there."""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
_GET_ADDRESS = 0x8915  # SIOCGIFADDR
CONNECT_S = 10.0
ENVIRONMENT_S = 120.0


def addresses() -> dict[str, str]:
    """The addresses of this machine, each with its interface: one IPv4 address an interface, and
    the IPv6 ones that are not of the link alone."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(asking.fileno(), _GET_ADDRESS, request)
            except OSError:
                continue
            found[socket.inet_ntoa(answer[20:24])] = name
    path = Path("/proc/net/if_inet6")
    for line in path.read_text(encoding="ascii").splitlines() if path.exists() else []:
        digits, _, _, scope, _, name = line.split()
        if scope != "20":
            found[socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits))] = name
    return found


def reach(host: str, port: int) -> tuple[str, str]:
    """(this machine's address, "") of a connection to the head, or ("", why there is none)."""
    try:
        with socket.create_connection((host, port), CONNECT_S) as made:
            return str(made.getsockname()[0]), ""
    except OSError as error:
        return "", str(error.strerror or error)


def model(path: str) -> str:
    """A model folder by its config.json: the start of its SHA-256, `missing`, or for a name of the
    hub that it is not looked at."""
    if not path.startswith(("/", ".", "~")):
        return "hub name, not looked at"
    try:
        return hashlib.sha256(Path(path, "config.json").read_bytes()).hexdigest()[:12]
    except OSError:
        return "missing"


def environment(python: str, port: str) -> dict[str, dict[str, str]]:
    """What collect_env.sh finds on this machine; empty where it finds nothing."""
    words = ["bash", str(ROOT / "collect_env.sh"), "--json", "--python", python, "--port", port]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=ENVIRONMENT_S, check=True
        )
        found = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def main(argv: list[str]) -> int:
    """node-facts: prints one line; always 0."""
    parser = argparse.ArgumentParser(prog="repro_pp_graphs node-facts", description=__doc__)
    parser.add_argument("--head", default="", help="its address (default: where srun runs)")
    parser.add_argument("--port", type=int, required=True, help="that the head listens at")
    parser.add_argument("--token", type=Path, required=True, help="a file in the head's --out")
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--python", action="append", required=True, help="the first: ask it")
    parser.add_argument("--server-port", required=True)
    options = parser.parse_args(argv)
    head = options.head or os.environ.get("SLURM_LAUNCH_NODE_IPADDR", "")
    address, why = reach(head, options.port)
    found = {
        "host": socket.gethostname(),
        "head": head,
        "address": address,
        "unreachable": why,
        "addresses": addresses(),
        "sees_out": options.token.exists(),
        "models": {path: model(path) for path in options.model},
        "lacks": [path for path in options.python if not os.access(path, os.X_OK)],
        "environment": environment(options.python[0], options.server_port),
    }
    sys.stdout.write(json.dumps(found) + "\n")
    return 0

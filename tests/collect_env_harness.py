"""collect_env.sh in a bare environment, run to its end; tools and servers made up for it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from programs import ran

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "collect_env.sh"
SECTIONS = ["summary", "system", "gpus", "network", "software", "environment", "server"]
CLOSED_PORT = "1"

NVIDIA_SMI = r"""#!/bin/bash
case "$*" in
  --query-gpu=*)
    fields=${1#*=}
    if [[ ,$fields, == *,fabric.state,* ]]; then
      echo 'Field "fabric.state" is not a valid field to query.'; exit 2
    fi
    for gpu in 0 1 2 3 4 5 6 7; do
      row=""
      for field in ${fields//,/ }; do
        case $field in
          name) value="NVIDIA H100 80GB HBM3" ;;
          driver_version) value=570.86.15 ;;
          memory.total) value="81559 MiB" ;;
          clocks.sm) value="1980 MHz"; [[ $gpu == 7 ]] && value="345 MHz" ;;
          persistence_mode) value=Disabled ;;
          pci.bus_id) value="00000000:0$gpu:00.0" ;;
          clocks_*_reasons.active) value=0x0000000000000000; [[ $gpu == 7 ]] && value=0x48 ;;
          ecc.errors.uncorrected.volatile.total) value=0; [[ $gpu == 3 ]] && value=2 ;;
          *) value="[N/A]" ;;
        esac
        row+=", $value"
      done
      echo "${row#, }"
    done ;;
  --query-compute-apps=*) echo "00000000:01:00.0, 4242, /home/alice/bin/python, 70000 MiB" ;;
  "topo -m" | "topo -p2p r")
    printf '\t\e[4mGPU0\tGPU1\tGPU2\tGPU3\tGPU4\tGPU5\tGPU6\tGPU7\t'
    printf 'CPU Affinity\tNUMA Affinity\e[0m\n'
    for i in 0 1 2 3 4 5 6 7; do
      printf 'GPU%s' "$i"
      for j in 0 1 2 3 4 5 6 7; do
        cell=NV18; [[ $i == "$j" ]] && cell=' X '
        printf '\t%s' "$cell"
      done
      printf '\t0-47,96-143\t0\n'
    done
    printf '\nLegend:\n\n  X    = Self\n' ;;
  "-q -d PERFORMANCE,ROW_REMAPPER")
    for gpu in 0 1 2 3 4 5 6 7; do
      pending=No; [[ $gpu == 6 ]] && pending=Yes
      echo "GPU 00000000:0$gpu:00.0"
      echo "    Performance State                 : P0"
      echo "    Clocks Event Reasons Counters"
      echo "        SW Power Capping              : ${gpu}00 us"
      echo "    Remapped Rows"
      echo "        Correctable Error             : 0"
      echo "        Pending                       : $pending"
      echo "        Bank Remap Availability Histogram"
      echo "            Max                       : 640 bank(s)"
    done ;;
  "nvlink --status")
    for gpu in 0 1 2 3 4 5 6 7; do
      echo "GPU $gpu: NVIDIA H100 80GB HBM3 (UUID: GPU-12345678-1234-1234-1234-123456789abc)"
      for link in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17; do
        speed="26.562 GB/s"; [[ $gpu$link == 517 ]] && speed="<inactive>"
        echo "	 Link $link: $speed"
      done
    done ;;
esac
"""


def run(
    *options: str, env: dict[str, str] | None = None, script: Path = SCRIPT
) -> subprocess.CompletedProcess[str]:
    return ran(
        [shutil.which("bash") or "bash", str(script), *options],
        env=env if env is not None else bare(),
    )


def bare(path: str = "/usr/bin:/bin", **variables: str) -> dict[str, str]:
    """An environment with nothing else, and with time for what a busy machine is slow to answer."""
    return {"PATH": path, "REPRO_COLLECT_PATIENCE": "1000", **variables}


def collect(*options: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    if "--port" not in options:
        options = (*options, "--port", CLOSED_PORT)
    done = run("--json", "--python", sys.executable, *options, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def tool(folder: Path, name: str, text: str) -> str:
    """Put an executable in front of the usual PATH; returns that PATH."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


@contextmanager
def answering(pages: dict[str, tuple[int, bytes]]) -> Iterator[str]:
    """A server on 127.0.0.1 that knows these pages; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = pages.get(self.path, (404, b'{"detail":"Not Found"}'))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield str(httpd.server_port)
        finally:
            httpd.shutdown()
            thread.join()

"""Plans of made-up case files, releases and GPUs."""

from __future__ import annotations

from pathlib import Path

from repro_pp_graphs.run import make_plan
from repro_pp_graphs.run.plan import options as run_options
from repro_pp_graphs.run_record import Launch, Plan
from repro_pp_graphs.server.machine.gpus import Gpu
from repro_pp_graphs.server.release.installed import Release

BASE = """\
--model-path meta-llama/Llama-3.1-70B-Instruct
--pipeline-parallel-size 4
--tensor-parallel-size 1
--port 30000
"""
KNOWN = """
--model-path --pp-size --tp-size --host --port --nnodes --device --load-format
--json-model-override-args
--cuda-graph-max-bs --cuda-graph-bs --disable-cuda-graph --disable-decode-cuda-graph
--cuda-graph-backend-decode --cuda-graph-config --attention-backend --sampling-backend
--grammar-backend --disable-overlap-schedule --max-total-tokens --max-running-requests
--sleep-on-idle --mem-fraction-static --disable-custom-all-reduce --pp-async-batch-depth
--pp-max-micro-batch-size
"""
FLAGS = frozenset(KNOWN.split())
ON = "# label: A\n--cuda-graph-max-bs 64\n"
OFF = "# label: B\n--disable-cuda-graph\n"


def gpus(count: int) -> list[Gpu]:
    return [Gpu(str(n), f"GPU-{n}", "NVIDIA H200", 143771, 10 * n) for n in range(count)]


def plan_of(
    folder: Path, *argv: str, count=4, release="0.5.21", base=BASE, flags=FLAGS, **cases: str
) -> Plan:
    """The plan of run_repro.sh with these options; each of `cases` is an argument file's text."""
    files = {"base": base, **(cases or {"graphs_on": ON, "graphs_off": OFF})}
    for name, text in files.items():
        (folder / f"server_args_{name}.txt").write_text(text, encoding="utf-8")
    if cases and not {"--cases", "--sends"} & set(argv):
        argv = (*argv, "--cases", ",".join(cases))
    required = ("--root", str(folder), "--out", str(folder / "out"), "--python", "/usr/bin/python3")
    options = run_options.parse([*required, *argv])
    found = Release(release, flags, folder / "sglang") if release else None
    return make_plan.make(options, gpus(count), None, lambda python, env: found)


def value(launch: Launch, flag: str) -> str:
    return launch.args[launch.args.index(flag) + 1]

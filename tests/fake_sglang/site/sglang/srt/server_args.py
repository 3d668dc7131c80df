"""The arguments that the harness and its argument files use, under the names of 0.5.16."""

from __future__ import annotations

import argparse

FLAGS = (
    (("--model-path", "--model"), {"required": True}),
    (("--pipeline-parallel-size", "--pp-size"), {"type": int, "default": 1}),
    (("--tensor-parallel-size", "--tp-size"), {"type": int, "default": 1}),
    (("--nnodes",), {"type": int, "default": 1}),
    (("--node-rank",), {"type": int, "default": 0}),
    (("--dist-init-addr",), {"default": ""}),
    (("--pp-max-micro-batch-size",), {"type": int}),
    (("--host",), {"default": "127.0.0.1"}),
    (("--port",), {"type": int, "default": 30000}),
    (("--mem-fraction-static",), {"type": float}),
    (("--decode-log-interval",), {"type": int, "default": 40}),
    (("--random-seed",), {"type": int}),
    (("--load-format",), {"default": "auto"}),
    (("--json-model-override-args",), {"default": "{}"}),
    (("--device",), {"default": "cuda"}),
    (("--attention-backend",), {}),
    (("--sampling-backend",), {}),
    (("--grammar-backend",), {}),
    (("--max-total-tokens",), {"type": int}),
    (("--max-running-requests",), {"type": int}),
    (("--cuda-graph-max-bs",), {"type": int}),
    (("--cuda-graph-bs",), {"type": int, "nargs": "+"}),
)
SWITCHES = (
    "--disable-radix-cache",
    "--disable-cuda-graph",
    "--disable-overlap-schedule",
    "--disable-custom-all-reduce",
    "--sleep-on-idle",
)


class ServerArgs:
    @staticmethod
    def add_cli_args(parser: argparse.ArgumentParser) -> None:
        for names, how in FLAGS:
            parser.add_argument(*names, **how)
        for name in SWITCHES:
            parser.add_argument(name, action="store_true")

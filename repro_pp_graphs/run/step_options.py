"""What the steps of a launch are told by run_repro.sh: where, which launch, and its server."""

from __future__ import annotations

import argparse
from pathlib import Path


def of_launch(step: str, description: str | None) -> argparse.ArgumentParser:
    """A parser of OUT and LABEL."""
    parser = argparse.ArgumentParser(prog=f"repro_pp_graphs {step}", description=description)
    parser.add_argument("out", type=Path, help="where logs and trace are")
    parser.add_argument("label", help="of the launch")
    return parser


def of_server(step: str, description: str | None) -> argparse.ArgumentParser:
    """A parser of OUT, LABEL, PID and --exit-file: of a step that may have to say why the launch's
    server died."""
    parser = of_launch(step, description)
    parser.add_argument("pid", type=int, help="of the server")
    parser.add_argument(
        "--exit-file", type=Path, help="where its exit status is noted once it has ended"
    )
    return parser

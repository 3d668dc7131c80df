"""What the steps of a launch are told by run_repro.sh: where, which launch, and its server."""

from __future__ import annotations

from pathlib import Path

from repro_pp_graphs.terminal import Parser


def of_launch(step: str, description: str | None, arguments: str = "OUT LABEL") -> Parser:
    """A parser of OUT and LABEL."""
    parser = Parser(step, f"{arguments} [options]", description or "", "")
    parser.add_argument("out", type=Path, help="where logs and trace are")
    parser.add_argument("label", help="of the launch")
    return parser


def of_server(step: str, description: str | None) -> Parser:
    """A parser of OUT, LABEL, PID and --exit-file: of a step that may have to say why the launch's
    server died."""
    parser = of_launch(step, description, "OUT LABEL PID")
    parser.add_argument("pid", type=int, help="of the server")
    parser.add_argument(
        "--exit-file", type=Path, help="where its exit status is noted once it has ended"
    )
    return parser

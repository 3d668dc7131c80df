"""Record how far a launch has come: running, ok, failed, interrupted."""

from __future__ import annotations

import argparse
from pathlib import Path

from repro_pp_graphs.run import record


def main(argv: list[str]) -> int:
    """status LOGS LABEL STATUS [REASON]: always 0."""
    parser = argparse.ArgumentParser(prog="repro_pp_graphs status", description=__doc__)
    parser.add_argument("logs", type=Path)
    parser.add_argument("label")
    parser.add_argument("status", choices=("running", "ok", "failed", "interrupted"))
    parser.add_argument("reason", nargs="?")
    options = parser.parse_args(argv)
    facts = {"status": options.status}
    if options.reason:
        facts["reason"] = options.reason
    elif options.status == "failed":
        earlier = record.load_facts(options.logs, options.label)
        facts["reason"] = earlier.get("reason", "a step of the harness broke off; see the terminal")
    if options.status == "running":
        record.forget_facts(options.logs, options.label)
    record.save_facts(options.logs, options.label, **facts)
    return 0

"""Record how a launch ended: ok, failed, interrupted."""

from __future__ import annotations

import argparse
from pathlib import Path

from repro_pp_graphs import files
from repro_pp_graphs.environment import masking
from repro_pp_graphs.run import begin, record
from repro_pp_graphs.terminal import wrapped

NO_REASON = "a step of the harness broke off; see the terminal"


def with_disk(logs: Path, reason: str) -> str:
    """The reason of a failure, with the disk, where that is all but full and not yet named."""
    full = "" if "the disk of" in reason else files.low_space(logs, logs.parent / "trace")
    return f"{reason}; {full}: free some" if full else reason


def main(argv: list[str]) -> int:
    """status LOGS LABEL STATUS [REASON]: always 0."""
    parser = argparse.ArgumentParser(prog="repro_pp_graphs status", description=__doc__)
    parser.add_argument("logs", type=Path)
    parser.add_argument("label")
    parser.add_argument("status", choices=("ok", "failed", "interrupted"))
    parser.add_argument("reason", nargs="?", help="for the terminal too")
    options = parser.parse_args(argv)
    logs, label = options.logs, options.label
    facts = {"status": options.status}
    if options.status == "failed":
        known = str(record.load_facts(logs, label).get("reason", ""))
        given = masking.excerpt(options.reason or "")  # may be a line of a log
        facts["reason"] = with_disk(logs, given or known or NO_REASON)
        if facts["reason"] != known:
            print("\n".join(wrapped(f"{label} failed: {facts['reason']}", "  ")))
    if measured := files.sha256(logs / f"{label}_client.json"):
        facts["client_sha256"] = measured
    begin.client_draft(logs, label).unlink(missing_ok=True)
    record.save_facts(logs, label, **facts)
    return 0

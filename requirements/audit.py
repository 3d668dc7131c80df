"""Known vulnerabilities of what the locks pin: asked of osv.dev, in one request.

USAGE   python requirements/audit.py
PRINTS  one line, and one for each package that an advisory names. Without an answer within 5 s it
        is one line that says that the audit was skipped, and why
EXIT    0 no advisory, or skipped; 1 some
"""

from __future__ import annotations

import json
import re
import sys
import threading
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
SERVICE = "https://api.osv.dev/v1/querybatch"  # google.github.io/osv.dev/post-v1-querybatch
LIMIT_S = 5.0
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\+]+)", re.MULTILINE)


class Package(NamedTuple):
    ecosystem: str
    name: str
    version: str


def locked(root: Path) -> list[Package]:
    """What the locks of Python and of web/ pin, each version once."""
    locks = sorted((root / "requirements").rglob("*.txt"))
    found = {
        Package("PyPI", *match.groups())
        for lock in locks
        for match in PIN.finditer(lock.read_text(encoding="utf-8"))
    }
    lock = json.loads((root / "web/package-lock.json").read_text(encoding="utf-8"))
    for path, package in lock["packages"].items():
        if path:
            found.add(Package("npm", path.rpartition("node_modules/")[2], package["version"]))
    return sorted(found)


def asked(packages: list[Package], service: str) -> list[list[str]]:
    """The advisories of each package. Raises OSError or HTTPException without an answer, and
    ValueError, KeyError, TypeError or AttributeError where it is another."""
    queries = [
        {"package": {"ecosystem": one.ecosystem, "name": one.name}, "version": one.version}
        for one in packages
    ]
    request = urllib.request.Request(service, json.dumps({"queries": queries}).encode())
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
        results = json.load(answer)["results"]
    found = [[str(each["id"]) for each in result.get("vulns", ())] for result in results]
    if len(found) != len(packages):
        raise ValueError(f"{len(found)} results for {len(packages)} packages")
    return found


def lines(packages: list[Package], advisories: list[list[str]]) -> list[str]:
    named = [(one, ids) for one, ids in zip(packages, advisories, strict=True) if ids]
    head = f"audit of the locks: osv.dev names {len(named)} of {len(packages)} versions"
    return [head, *(f"  {one.name} {one.version}: {', '.join(ids)}" for one, ids in named)]


def _answered(packages: list[Package], service: str, limit_s: float) -> list[list[str]] | str:
    """The advisories of each package, or why there is no answer: whatever it waits for, a name's
    look-up too, no longer than the limit."""
    said: list[list[list[str]] | str] = []

    def ask() -> None:
        try:
            said.append(asked(packages, service))
        except (OSError, HTTPException) as error:
            said.append(f"osv.dev: {getattr(error, 'reason', '') or error}")
        except (ValueError, KeyError, TypeError, AttributeError):
            said.append("osv.dev: an answer that is none to what was asked")

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(limit_s)
    return said[0] if said else f"osv.dev: no answer within {limit_s:g} s"


def main(service: str = SERVICE, limit_s: float = LIMIT_S) -> int:
    packages = locked(HERE.parent)
    found = _answered(packages, service, limit_s)
    if isinstance(found, str):
        print(f"audit of the locks: skipped, {found}")
        return 0
    print("\n".join(lines(packages, found)))
    return int(any(found))


if __name__ == "__main__":
    sys.exit(main())

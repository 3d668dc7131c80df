"""python -m repro_pp_graphs open: show a trace in ui.perfetto.dev.

The page may fetch from http://127.0.0.1:9001 only, so the file is served there, to this machine
alone, until the page has it. Nothing is uploaded: the viewer runs inside the browser.
"""

from __future__ import annotations

import gzip
import http.server
import json
import secrets
import shutil
import time
import urllib.parse
import webbrowser
import zlib
from pathlib import Path
from typing import Any

from repro_pp_graphs.conform import misfit
from repro_pp_graphs.terminal import Parser, complain

VIEWER = "https://ui.perfetto.dev"
LOOPBACK = "127.0.0.1"
# The only port that the viewer's content security policy lets it fetch from.
PORT = 9001
# The viewer sorts process groups by their number of slices: a workspace of our own has rank order.
WORKSPACE = "PP ranks"
# What Python's webbrowser takes where there is no display: they run no scripts.
TEXT_BROWSERS = ("www-browser", "links", "elinks", "lynx", "w3m")
LOOK_S = 0.2
LONGEST = 4000  # characters of a link to copy by hand
HEAD_BYTES = 1 << 20
VIEW = {"ranks": list[str], "start": int, "end": int}  # of a merged trace, each where it is known
EXAMPLES = """examples:
  python -m repro_pp_graphs open trace/CASE_A_decode_graphs_chrome_trace.json
  python -m repro_pp_graphs open trace/A_vs_B_chrome_trace.json.gz --no-browser
"""


def view_of(file: Path) -> dict[str, Any]:
    """What a merged trace says of its first view: `ranks`, `start` and `end` in ns; else empty."""
    opened = gzip.open if file.suffix == ".gz" else open
    try:
        with opened(file, "rb") as stream:
            head, found, _ = stream.read(HEAD_BYTES).partition(b'"traceEvents": [')
        view = json.loads(head + b'"traceEvents": []}' if found else "{}").get("view", {})
    except (OSError, EOFError, ValueError, RecursionError, AttributeError, zlib.error):
        return {}
    return {} if misfit(view, VIEW) else dict(view)


def first_view(view: dict[str, Any]) -> str:
    """The part of the viewer's link that puts the ranks in order, opens the pipeline of the first
    and the last (the token return's two ends) and shows that span; empty for no merged trace."""
    ranks = view.get("ranks", [])
    ends = "|".join({rank.rpartition(" · ")[2]: None for rank in (*ranks[:1], *ranks[-1:])})
    steps = [
        ["CopyTracksToWorkspaceByRegex", f"^{rank} · {kind}", WORKSPACE]
        for rank in ranks
        for kind in ("pipeline", "CPU", "GPU")
    ]
    steps += [["SwitchWorkspace", WORKSPACE], ["ExpandTracksByRegex", f"({ends}) · pipeline"]]
    commands = [{"id": f"dev.perfetto.{name}", "args": args} for name, *args in steps]
    found: dict[str, str] = {}
    if ranks:
        found["startupCommands"] = json.dumps(commands, ensure_ascii=False, separators=(",", ":"))
    if view.get("end", 0) > view.get("start", 0) >= 0:
        found |= {"visStart": str(view["start"]), "visEnd": str(view["end"])}
    return "".join(f"&{key}={urllib.parse.quote(value, ':,()')}" for key, value in found.items())


class OneFile(http.server.BaseHTTPRequestHandler):
    """Serves one file on loopback: other paths, and other names of this machine (DNS rebinding),
    get 404, and only the viewer's page may read it."""

    timeout = 60  # seconds: a connection that says nothing

    server: TraceServer

    def do_GET(self) -> None:
        host = self.headers.get("Host", "")
        if host not in self.server.hosts or self.path != self.server.url_path:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Access-Control-Allow-Origin", VIEWER)
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(self.server.file.stat().st_size))
        self.end_headers()
        with self.server.file.open("rb") as body:
            shutil.copyfileobj(body, self.wfile)
        self.server.fetched = True

    def log_message(self, format: str, *args: object) -> None:
        """No line a request."""


class TraceServer(http.server.ThreadingHTTPServer):
    """One trace on loopback, at a path that nobody can guess; `fetched` once it has been read to
    its end."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False  # whoever holds a connection open does not keep the command

    def __init__(self, file: Path, port: int) -> None:
        super().__init__((LOOPBACK, port), OneFile)
        self.file = file
        self.url_path = f"/{secrets.token_urlsafe(16)}/{urllib.parse.quote(file.name)}"
        self.hosts = {f"{name}:{self.server_port}" for name in (LOOPBACK, "localhost")}
        self.fetched = False

    def handle_error(self, request: object, client_address: object) -> None:
        """No traceback where a reader has gone, or the file: the page may ask again."""

    @property
    def link(self) -> str:
        """The viewer's deep link to the file."""
        return f"{VIEWER}/#!/?url=http://{LOOPBACK}:{self.server_port}{self.url_path}"

    def serve_until_fetched(self, seconds: float) -> bool:
        """Answer requests until the file has been read or the time is over."""
        end = time.monotonic() + seconds
        while not self.fetched and (left := end - time.monotonic()) > 0:
            self.timeout = min(left, LOOK_S)  # a thread of its own answers, and sets `fetched`
            self.handle_request()
        return self.fetched


def what_to_click(file: Path) -> list[str]:
    """How to open the file by hand."""
    link = VIEWER
    if view := first_view(view_of(file)).removeprefix("&"):
        # what the viewer does at first with any file that is opened after it
        link = link if len(view) > LONGEST else f"{VIEWER}/#!/?{view}"
    return [
        f"1. copy {file} to a machine with a browser, if this one has none",
        "2. open this link there, choose 'Open trace file' or drop the file on it",
        f"   {link}",
        "3. search for cudagraph (in a rehearsal: DECODE) to find the decode launches;",
        "   W and S zoom, A and D move",
        "4. each track's name begins with its rank: the funnel above them filters by it",
    ]


def parser() -> Parser:
    what = "Open a merged trace in ui.perfetto.dev, served from this machine."
    made = Parser("open", "FILE [options]", what, EXAMPLES)
    made.add_argument("file", type=Path, metavar="FILE", help="a .json or .json.gz trace")
    made.add_argument("--no-browser", action="store_true", help="print what to click instead")
    made.add_argument(
        "--wait",
        type=float,
        default=120,
        metavar="SECONDS",
        help="how long to wait for the page to fetch it (default: 120)",
    )
    return made


def main(argv: list[str]) -> int:
    """Exit status 0 shown (or how to do it printed), 1 the page did not fetch the file, 2 usage."""
    options = parser().parse_args(argv)
    if not options.file.is_file():
        complain("open", f"no such file: {options.file}")
        return 2
    lack = "" if options.no_browser else _lacking_browser()
    if options.no_browser or lack:
        print("\n".join([*[f"{lack}; by hand:"] * bool(lack), *what_to_click(options.file)]))
        return 0
    try:
        server = TraceServer(options.file, PORT)
    except OSError as error:
        complain("open", f"cannot serve on {LOOPBACK}:{PORT} ({error.strerror}); by hand:")
        print("\n".join(what_to_click(options.file)))
        return 1
    with server:
        print(f"opening {server.link}", flush=True)
        started = webbrowser.open(server.link + first_view(view_of(options.file)))
        if started and server.serve_until_fetched(options.wait):
            return 0
    reason = "the page did not fetch the file" if started else "no browser could be started"
    complain("open", f"{reason}; by hand:")
    print("\n".join(what_to_click(options.file)))
    return 1


def _lacking_browser() -> str:
    """That this machine has no browser that can show a trace; empty where it has one."""
    try:
        name = Path(getattr(webbrowser.get(), "name", "")).name
    except webbrowser.Error:
        return "there is no browser on this machine"
    return f"the only browser on this machine is {name}, without scripts" * (name in TEXT_BROWSERS)

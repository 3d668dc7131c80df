"""python -m repro_pp_graphs report: summary.json, report.md and report.html anew, from disk."""

from __future__ import annotations

from pathlib import Path

import msgspec

from repro_pp_graphs import files
from repro_pp_graphs.client.terminal import visible
from repro_pp_graphs.environment import masking
from repro_pp_graphs.files import BadFile
from repro_pp_graphs.report import source
from repro_pp_graphs.report.charts import all_charts
from repro_pp_graphs.report.page import content, html_page, markdown
from repro_pp_graphs.report.page.content import Content
from repro_pp_graphs.report.page.embedding import each_text
from repro_pp_graphs.report.source import Source
from repro_pp_graphs.terminal import Parser, complain, folder

COMMAND = "report"
EXAMPLES = """examples:
  python -m repro_pp_graphs report .              the run in ./logs and ./trace
  python -m repro_pp_graphs report results/today
  python -m repro_pp_graphs report /their/traces  writes ./traces_report

exit status: 0 written; 1 nothing to report, or it cannot be written; 2 usage
"""


def write(found: Source, to: Path) -> list[Path]:
    """Write report.md and report.html into a folder; the paths. Raises OSError."""
    said = masked(content.content(found), found)
    texts = {
        "report.md": markdown.text_of(said),
        "report.html": html_page.text_of(said, found.cases, all_charts.figures(found)),
    }
    to.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        files.write_whole(to / name, text)
    return [to / name for name in texts]


def masked(said: Content, found: Source) -> Content:
    """The same without what the servers' arguments and variables call a secret, and with the
    control characters of a server's words as their escapes."""
    masker = masking.of_this_process(people=False)
    for one in found.launches:
        masker.learn_from_json([one.summary.server_args, one.env, one.server_info])

    def shown(text: str) -> str:
        return visible(masker.string(text))

    return msgspec.convert(each_text(msgspec.to_builtins(said), shown), Content)


def of_traces(traces: Path) -> Path:
    """Where the report of somebody's traces goes: into the current folder, or, where that is
    among the traces, beside theirs. They are left as they are."""
    folder = traces.resolve()
    name = f"{folder.name}_report"
    return folder.parent / name if Path.cwd().is_relative_to(folder) else Path(name)


def main(argv: list[str]) -> int:
    """Exit status 0 written, 1 nothing to report or not writable, 2 usage."""
    made = Parser(
        COMMAND,
        "[--out FOLDER] DIR",
        "Rebuild summary.json, report.md and report.html from what a run left, or from traces "
        "alone.",
        EXAMPLES,
    )
    made.add_argument(
        "dir",
        type=Path,
        metavar="DIR",
        nargs="+",
        help="what --out named, its logs, or a folder of traces, or of folders with a case's each",
    )
    made.add_argument(
        "--out",
        type=folder,
        metavar="FOLDER",
        help="where to write (default: of a run its logs, of traces NAME_report here)",
    )
    options = made.parse_args(argv)
    folder_of_it, *more = options.dir
    if more:
        complain(
            COMMAND,
            "takes one folder: of two cases' traces the one that holds both folders; two runs: "
            "compare DIR1 DIR2",
        )
        return 2
    if not folder_of_it.is_dir():
        complain(
            COMMAND, f"{folder_of_it} is no folder; name the folder of a run, or of ranks' traces"
        )
        return 2
    try:
        found = source.read(folder_of_it)
    except BadFile as error:
        complain(COMMAND, f"{error}; name the folder of a run, or of ranks' traces")
        return 1
    except OSError as error:
        complain(COMMAND, f"{error.filename}: {error.strerror}; name a folder that you may read")
        return 1
    to = options.out or found.logs or of_traces(folder_of_it)
    try:
        paths = write(found, to)
        if found.summary:
            files.write_json(to / "summary.json", msgspec.to_builtins(found.summary))
            paths.insert(0, to / "summary.json")
    except OSError as error:
        complain(COMMAND, f"{error.filename or to}: {error.strerror}; --out names another folder")
        return 1
    for path in paths:
        print(f"{path.stat().st_size / 1e3:8.0f} kB  {path}")
    return 0

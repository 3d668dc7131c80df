"""What the documents name is there: files, sections, commands, options; README stays short."""

from __future__ import annotations

import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path

import pytest
from programs import ran

from repro_pp_graphs.__main__ import COMMANDS, STEPS
from repro_pp_graphs.run.folder import guide

ROOT = Path(__file__).resolve().parents[1]
READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]
DOCUMENTS = [*READMES, *sorted((ROOT / "docs").glob("*.md"))]
IDS = [path.name for path in DOCUMENTS]
MOST_LINES = 200

HELP = {  # how a command begins in a document -> what prints its options
    "run_repro.sh": ["bash", "run_repro.sh", "--help"],
    "tests/run.sh": ["bash", "tests/run.sh", "-h"],
    "collect_env.sh": ["bash", "collect_env.sh", "--help"],
    "client_benchmark.py": [sys.executable, "client_benchmark.py", "--help"],
    **{
        f"-m repro_pp_graphs {name}": [sys.executable, "-m", "repro_pp_graphs", name, "--help"]
        for name in COMMANDS
    },
}
# of sglang's server, which the argument files hold, and of programs that a document names
OTHERS = {
    "sglang": """--admin-api-key --api-key
        --attention-backend --chunked-prefill-size --cuda-graph-bs
        --cuda-graph-max-bs --cuda-graph-max-bs-decode --disable-cuda-graph --dist-init-addr --host
        --incremental-streaming-output --load-format --log-requests --max-running-requests
        --mem-fraction-static --model-path --nnodes --node-rank --pipeline-parallel-size
        --enable-dp-attention --max-total-tokens
        --pp-async-batch-depth --pp-max-micro-batch-size --tensor-parallel-size --tp-size""",
    "Slurm": "--account --container-image --container-mounts --gpus-per-node --partition --time",
    "others": "--argument --ipc --shm-size",
}
PICKS = "--(?:python|release|cpu|attach)"  # options that choose an sglang, or need none of GPUs
BEGINNINGS = ("bash ", "python ", *(name for name in HELP if "/" in name or "." in name))
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9_-]*[a-z0-9]")
DRY_RUN = re.compile(
    r"--dry-run(?: --[a-z]\S*(?: [\w.x]+)?)* --gpus [0-9][0-9x]*(?: --[a-z]\S* [\w.]+)*"
)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
# files that a reader would look for: of this repository, not of a run
FILE = re.compile(r"[\w./-]+/[\w.-]+\.(?:py|sh|txt|md|json|c|js|awk)")
OF_A_RUN = ("logs/", "trace/", "previous/", "results/")


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def sections(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", read(path)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def commands(text: str) -> list[tuple[str, str]]:
    """Command lines of a document, continued lines joined: which command, and its words."""
    found = []
    for whole in text.replace("\\\n", " ").splitlines():
        line = whole.partition("  #")[0]
        for name in sorted(HELP, key=len, reverse=True):
            # up to what ends it in prose or in a shell
            for words in re.findall(rf"{re.escape(name)}\b([^`|;&\"]*)", line):
                found.append((name, words))
    return found


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    """What each command prints when it is asked for its options."""

    def ask(command: list[str]) -> str:
        done = ran(command, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        return done.stdout

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(HELP, pool.map(ask, HELP.values()), strict=True))


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.name)
def test_readme_is_short(path):
    assert len(read(path).splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_links_lead_somewhere(path):
    dead = []
    for link in LINK.findall(FENCE.sub("", read(path))):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or (anchor and anchor not in sections(target)):
            dead.append(link)
    assert not dead


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_files_that_are_named_exist(path):
    places = (ROOT, ROOT / "repro_pp_graphs", ROOT / "docs", ROOT / "repro_pp_graphs/server")
    missing = []
    for span in SPAN.findall(FENCE.sub("", read(path))):
        if FILE.fullmatch(span) and not span.startswith(("/", "~", *OF_A_RUN)):
            missing += [] if any((place / span).exists() for place in places) else [span]
    assert not missing


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_commands_take_the_options_that_they_are_shown_with(path, helps):
    unknown = [
        (name, option)
        for name, words in commands(read(path))
        for option in OPTION.findall(words)
        if option.replace("_", "-") not in OPTION.findall(helps[name])
    ]
    assert not unknown


def test_the_dry_runs_that_are_shown_fit_the_gpus_that_they_assume(helps, tmp_path):
    shown = {
        words.partition(" #")[0].strip()
        for name, words in commands(helps["run_repro.sh"])
        if name == "run_repro.sh" and re.search("--gpus [0-9]", words) and "--dry-run" in words
    }
    assert len(shown) >= 2
    of_documents = {words.strip() for path in DOCUMENTS for words in DRY_RUN.findall(read(path))}
    assert len(of_documents) >= 4
    for number, words in enumerate(sorted(shown | of_documents)):
        given = [*words.split(), "--out", str(tmp_path / str(number))]
        command = ["bash", "run_repro.sh", *given]
        done = ran(command, cwd=ROOT)
        assert done.returncode == 0, (words, done.stdout[-500:], done.stderr[-500:])


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_commands_with_cases_of_newer_releases_name_one(path):
    """On GPUs without sglang 0.5.2 is made, which refuses these."""
    newer = re.compile(r"--cases \S*\b(sync_send|comm_stream|event_send|batched_p2p)")
    bare = [
        words
        for name, words in commands(read(path))
        if name == "run_repro.sh" and newer.search(words) and not re.search(PICKS, words)
    ]
    assert not bare


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_every_option_that_is_named_is_one_of_some_command(path, helps):
    of_tests = (ROOT / "tests" / name for name in ("fuzz/drive.py", "standin_server.py"))
    programs = [*(ROOT / "benchmarks").glob("*.py"), *of_tests]
    known = {
        option
        for text in [*helps.values(), *map(read, programs), *OTHERS.values()]
        for option in OPTION.findall(text)
    }
    spans = [span for span in SPAN.findall(read(path)) if span.startswith(("--", *BEGINNINGS))]
    named = {option for span in spans for option in OPTION.findall(span)}
    assert {option.replace("_", "-") for option in named} <= known


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_commands_of_the_package_exist(path):
    named = re.findall(r"python -m repro_pp_graphs ([a-z][\w-]*)", read(path))
    assert set(named) <= {*COMMANDS, *STEPS}


def test_documents_that_code_points_to_exist():
    folders = ("repro_pp_graphs", "benchmarks", "tests", "requirements")
    sources = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    sources += [*ROOT.glob("*.sh"), *ROOT.glob("*.txt"), *ROOT.glob("*.py")]
    named = {name for path in sources for name in re.findall(r"\bdocs/\w+\.md", read(path))}
    assert {name for name in named if not (ROOT / name).exists()} == set()
    assert named


def test_every_file_of_a_run_is_described():
    text = read(ROOT / "docs/reading_results.md")
    names = [name for names in (*guide.LOGS, *guide.TRACE) for name in names.split(", ")]
    shown = [name.replace("LABEL", "").replace("*_vs_*", "A_vs_B") for name in names]
    assert [name for name in shown if not (name in text or Path(name).stem in text)] == []


def test_every_document_is_in_the_readme():
    linked = {link.partition("#")[0] for link in LINK.findall(read(READMES[0]))}
    assert {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} <= linked


def test_both_readmes_show_the_same():
    """The same links, the same literal words, the same samples; prose is translated."""
    english, chinese = (read(path) for path in READMES)
    for pattern in (LINK, SPAN):
        here, there = (
            set(pattern.findall(FENCE.sub("", text))) - {"README.md", "README.zh-CN.md"}
            for text in (english, chinese)
        )
        assert here == there
    blocks = [
        [re.sub(r" +#.*", "", block) for block in FENCE.findall(text)]
        for text in (english, chinese)
    ]
    assert blocks[0] == blocks[1]
    heads = [
        len(re.findall(r"^#+ ", FENCE.sub("", text), re.MULTILINE)) for text in (english, chinese)
    ]
    assert heads[0] == heads[1]


def test_every_test_file_is_where_the_development_document_says():
    """Named after its package, so that a module's tests are found by name."""
    document = read(ROOT / "docs/development.md")
    patterns = SPAN.findall(document)
    names = {path.name for path in (ROOT / "tests").glob("test_*.py")}
    known = {name for name in names for span in patterns if fnmatch(name.removesuffix(".py"), span)}
    assert names - known - set(patterns) == set()
    packages = {path.parent.name for path in (ROOT / "repro_pp_graphs").glob("*/__init__.py")}
    lacking = {one for one in packages if f"test_{one}_" not in document}
    assert lacking == set()


CLIENT_JSON = "h100_pp2_sglang052_4rounds/CASE_A_decode_graphs_client.json"
STATISTIC = re.compile(r"^(mean|median|std|max|p\d+)_(?=.*_ms$)")
# what was asked for, by the names of the options
SETTINGS = {
    *("backend", "base_url", "model", "batch", "request_rate", "max_new_tokens", "max_concurrency"),
    *("ignore_eos", "seed", "warmup", "interrupted"),
}


def test_every_figure_of_a_clients_json_is_defined():
    found = json.loads(read(ROOT / "tests/data/runs" / CLIENT_JSON))
    summary, itself = found["summary"], found["summary"]["self_check"]
    names = {STATISTIC.sub("", name) for name in (*summary, *itself)} - SETTINGS
    words = set(re.findall(r"\w+", read(ROOT / "docs" / "client.md")))
    assert (names | found["requests"][0].keys()) - words == set()


def test_the_analysis_that_the_readme_shows_is_what_its_command_prints():
    for path in READMES:
        command, shown = re.findall(
            r"^`python -m repro_pp_graphs (analyze \S+)`\n\n```\n(.*?)```", read(path), re.M | re.S
        )[0]
        done = ran([sys.executable, "-m", "repro_pp_graphs", *command.split()], cwd=ROOT)
        assert done.returncode == 0, done.stderr
        assert shown in done.stdout

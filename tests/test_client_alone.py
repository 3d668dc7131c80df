"""client_benchmark.py and repro_pp_graphs/client, copied to a machine with nothing but requests."""

import ast
import importlib.metadata
import os
import shutil
import sys
from pathlib import Path

import pytest
from client_harness import CLIENT, generated
from programs import ran
from standin_server import StandIn

PACKAGE = CLIENT.parent / "repro_pp_graphs" / "client"
MODULES = {path.stem: path for path in PACKAGE.glob("*.py")}
REQUESTS = ("requests", "urllib3", "idna", "certifi", "charset_normalizer")


def copied(folder, place):
    """The client in an empty folder, its package at `place` there."""
    folder.mkdir()
    shutil.copy(CLIENT, folder)
    if place is not None:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PACKAGE, folder / place, ignore=ignored)
    return folder


def run_alone(folder, *argv, packages, options=("-S",)):
    """Python without its site-packages; what `packages` holds can be imported."""
    command = [sys.executable, *options, "client_benchmark.py", *argv]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(packages)}
    return ran(command, cwd=folder, env=environment)


@pytest.fixture(scope="module")
def only_requests(tmp_path_factory):
    """A folder that holds requests and what it requires, and nothing else."""
    folder = tmp_path_factory.mktemp("only_requests")
    for name in REQUESTS:
        for file in importlib.metadata.distribution(name).files or ():
            top = Path(file.parts[0])
            if top.name not in ("..", "__pycache__") and not (folder / top).exists():
                (folder / top).symlink_to(Path(file.locate()).parents[len(file.parts) - 1] / top)
    return folder


@pytest.mark.parametrize("place", ["repro_pp_graphs/client", "client"])
def test_the_client_works_alone_in_another_folder(tmp_path, only_requests, place):
    folder = copied(tmp_path / "box", place)
    (folder / "prompts.txt").write_text("alone\n")
    with StandIn() as server:
        argv = ("--base-url", server.url, "--batch", "1", "--output", "run.json")
        done = run_alone(folder, *argv, packages=only_requests)
        assert generated(server)[-1]["text"] == "alone"
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 completed, 0 failed" in done.stdout
    assert (folder / "run.json").is_file()


def test_a_default_call_without_prompts_runs_and_says_what_it_sent(tmp_path, only_requests):
    folder = copied(tmp_path / "box", "client")
    with StandIn() as server:
        done = run_alone(folder, "--base-url", server.url, packages=only_requests)
        assert {len(text.split()) for text in generated(server)[-1]["text"]} == {64}
    assert (done.returncode, done.stderr) == (0, "")
    assert "no prompts.txt beside client_benchmark.py: prompts of 64 random words" in done.stdout


def test_the_client_that_lies_with_the_file_runs_though_another_is_installed(
    tmp_path, only_requests
):
    packages = tmp_path / "packages"
    packages.mkdir()
    for path in only_requests.iterdir():
        (packages / path.name).symlink_to(path)
    for name in ("repro_pp_graphs", "client"):
        (packages / name).mkdir()
        (packages / name / "__init__.py").write_text("raise SystemExit('another client')")
    for place in ("repro_pp_graphs/client", "client"):
        folder = copied(tmp_path / place.replace("/", "_"), place)
        done = run_alone(folder, "--help", packages=packages)
        assert (done.returncode, done.stderr) == (0, "")


def test_without_its_package_the_file_says_what_to_copy(tmp_path, only_requests):
    folder = copied(tmp_path / "box", None)
    done = run_alone(folder, packages=only_requests)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"client_benchmark.py: copy repro_pp_graphs/client to {folder} too\n"


def test_an_older_python_says_which_is_needed():
    ast.parse(CLIENT.read_text(encoding="utf-8"), feature_version=(3, 6))
    code = "import runpy, sys; sys.version_info = (3, 9, 18); runpy.run_path(sys.argv[1])['main']()"
    done = ran([sys.executable, "-c", code, str(CLIENT)])
    said = "client_benchmark.py: needs Python 3.10 or newer, not 3.9\n"
    assert (done.stdout, done.stderr) == ("", said)


@pytest.mark.parametrize("module", ["requests", "urllib3"])
@pytest.mark.parametrize(
    ("argv", "status", "said"),
    [(["--help"], 0, "exit status: 0 measured"), ([], 2, f"{sys.executable} -m pip install")],
)
def test_without_requests_the_help_works_and_a_run_says_what_to_install(
    tmp_path, module, argv, status, said
):
    (tmp_path / "sitecustomize.py").write_text(f"import sys; sys.modules['{module}'] = None")
    done = ran(
        [sys.executable, str(CLIENT), *argv], env={**os.environ, "PYTHONPATH": str(tmp_path)}
    )
    assert done.returncode == status and said in done.stdout + done.stderr
    assert len(done.stderr.splitlines()) in ((1, 2) if status else (0,))


def imported(path):
    """(names of absolute imports, names of modules of the package), wherever they stand."""
    absolute, relative = set(), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            absolute |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            absolute.add(node.module.partition(".")[0])
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 1, "an import from outside of the package"
            relative |= {node.module} if node.module else {alias.name for alias in node.names}
    return absolute, relative


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_imports_the_standard_library_requests_and_its_neighbours_alone(name):
    absolute, relative = imported(MODULES[name])
    assert absolute <= sys.stdlib_module_names | {"requests", "urllib3"}
    assert relative <= set(MODULES)


def test_the_modules_import_one_another_in_no_circle():
    left = {name: imported(path)[1] for name, path in MODULES.items()}
    while left:
        ready = {name for name, needs in left.items() if not needs & set(left)}
        assert ready, f"a circle among {sorted(left)}"
        left = {name: needs for name, needs in left.items() if name not in ready}

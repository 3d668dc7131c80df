"""What is collected of software: the commit of sglang, the build of torch, which NCCL is in use."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from collect_env_harness import ROOT, bare, collect
from programs import ran

from repro_pp_graphs.environment import interpreter, libraries, packages

pytestmark = pytest.mark.launches


def editable(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A checkout of sglang, and an environment in which it is installed editable."""
    checkout = tmp_path / "sglang"
    (checkout / "python").mkdir(parents=True)
    info = tmp_path / "site" / "sglang-0.5.99.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sglang\nVersion: 0.5.99\n")
    url = f"file://{checkout}/python"
    (info / "direct_url.json").write_text(json.dumps({"url": url, "dir_info": {"editable": True}}))
    return checkout, bare(PYTHONPATH=str(info.parent))


def test_an_editable_install_shows_its_commit_and_whether_it_was_changed(tmp_path: Path) -> None:
    checkout, env = editable(tmp_path)
    (checkout / "a").write_text("a")
    git = ["git", "-C", str(checkout), "-c", "user.name=n", "-c", "user.email=e"]
    for command in (["init", "-q", "-b", "main"], ["add", "a"], ["commit", "-q", "-m", "a"]):
        subprocess.run([*git, *command], check=True)
    commit = packages.commit(checkout).split()[0]
    said = f"0.5.99, editable in {checkout}/python at {commit} (refs/heads/main), {commit[:7]}"
    assert collect("--no-redact", env=env)["software"]["sglang"] == said
    (checkout / "a").write_text("b")
    assert collect("--no-redact", env=env)["software"]["sglang"] == f"{said}-dirty"


def test_a_commit_is_read_without_git(tmp_path: Path) -> None:
    checkout, env = editable(tmp_path)
    (checkout / ".git").mkdir()
    (checkout / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (checkout / ".git" / "packed-refs").write_text("# pack\n" + "ab" * 20 + " refs/heads/main\n")
    assert packages.commit(checkout) == f"{'ab' * 20} (refs/heads/main)"
    told = collect("--no-redact", env=env)["software"]["sglang"]
    assert f"at {'ab' * 20} (refs/heads/main), dirty or not is unknown" in told
    (checkout / ".git" / "HEAD").write_text("cd" * 20 + "\n")
    assert packages.commit(checkout) == "cd" * 20


def test_torch_build_is_read_without_importing_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise SystemExit('imported')\n")
    (tmp_path / "torch" / "version.py").write_text(
        "from typing import Optional\n__all__ = ['cuda']\n__version__ = '2.9.1+cu128'\n"
        "debug = False\ncuda: Optional[str] = '12.8'\ngit_version = 'abc'\n"
        "hip: Optional[str] = None\n"
    )
    facts = collect(env=bare(PYTHONPATH=str(tmp_path)))
    assert facts["software"]["torch build"] == (
        "version 2.9.1+cu128, debug False, cuda 12.8, git_version abc, hip None"
    )
    assert facts["summary"]["torch"] == "2.9.1+cu128, cuda 12.8"


def test_a_driver_too_old_for_torch_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "driver_cuda", lambda: "12.8")
    monkeypatch.setattr(packages, "torch_build", lambda: {"version": "2.9.1", "cuda": "13.0"})
    notes = [fact.value for fact in interpreter.software() if fact.key == "look at"]
    assert notes == ["torch is built for CUDA 13.0, the driver takes 12.8"]


@pytest.mark.parametrize(("code", "text"), [(22705, "2.27.5"), (2708, "2.7.8"), (21805, "2.18.5")])
def test_nccl_version_codes_are_decoded(code: int, text: str) -> None:
    assert libraries.decode_nccl(code) == text


@pytest.fixture
def fake_nccl(tmp_path: Path) -> Path:
    """A site folder whose pip package says 2.27.5 while its library says 2.28.3."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    site = tmp_path / "site"
    folder = site / "nvidia" / "nccl" / "lib"
    folder.mkdir(parents=True)
    (site / "torch").mkdir()
    (site / "torch" / "__init__.py").touch()
    source = tmp_path / "nccl.c"
    source.write_text("int ncclGetVersion(int *v) { *v = 22803; return 0; }\n")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", str(folder / "libnccl.so.2"), str(source)], check=True
    )
    for name, extra in (
        ("torch", "Requires-Dist: nvidia-nccl-cu12 (==2.27.3) ; platform_system == 'Linux'\n"),
        ("nvidia-nccl-cu12", ""),
    ):
        info = site / f"{name.replace('-', '_')}-2.27.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.27.5\n{extra}"
        )
    return site


def test_nccl_library_is_asked_and_compared_with_its_package(fake_nccl: Path) -> None:
    facts = collect("--no-redact", env=bare(PYTHONPATH=str(fake_nccl)))
    library = fake_nccl / "nvidia/nccl/lib/libnccl.so.2"
    assert facts["software"]["NCCL in the pip package"] == f"2.28.3 {library}"
    assert "NCCL: torch asks for 2.27.3, pip has 2.27.5" in facts["summary"]["look at"]
    assert (
        "NCCL: 2.28.3 in the pip package, pip's metadata say 2.27.5" in facts["summary"]["look at"]
    )


def test_what_the_linker_finds_is_not_what_another_process_has_loaded(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    for name, version in (("linker", 22803), ("server", 22809)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "nccl.c").write_text(
            f"int ncclGetVersion(int *v) {{ *v = {version}; return 0; }}\n"
        )
        command = [compiler, "-shared", "-fPIC", "-Wl,-soname,libnccl.so.2", "nccl.c"]
        subprocess.run([*command, "-o", "libnccl.so.2"], cwd=folder, check=True)
    code = (
        "import ctypes, os, sys\n"
        "from repro_pp_graphs.environment import libraries\n"
        "(reads, writes), (waits, ends) = os.pipe(), os.pipe()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os.close(ends)\n"
        "    ctypes.CDLL(sys.argv[1])\n"
        "    os.write(writes, b'.')\n"
        "    os.read(waits, 1)\n"
        "    os._exit(0)\n"
        "os.read(reads, 1)\n"
        "for found in libraries.nccl([str(child)], []):\n"
        "    print(found.where.split()[0], found.version, found.path)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "server/libnccl.so.2")],
        env={"LD_LIBRARY_PATH": str(tmp_path / "linker"), "PYTHONPATH": str(ROOT)},
        input="",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        f"in 2.28.9 {tmp_path / 'server/libnccl.so.2'}",
        f"found 2.28.3 {tmp_path / 'linker/libnccl.so.2'}",
    ]


def test_without_a_server_the_packages_library_is_the_one_in_use(fake_nccl: Path) -> None:
    code = (
        "from repro_pp_graphs.environment import interpreter, running_servers\n"
        "running_servers.processes = lambda: iter(())  # whatever else runs on this machine\n"
        "print(*(fact.value for fact in interpreter.nccl() if fact.key == 'NCCL'))"
    )
    env = bare(PYTHONPATH=f"{fake_nccl}:{ROOT}")
    found = ran([sys.executable, "-c", code], env=env, check=True)
    assert found.stdout == "2.28.3 (in the pip package)\n"


def test_nccl_of_a_running_server_comes_first(fake_nccl: Path) -> None:
    library = fake_nccl / "nvidia/nccl/lib/libnccl.so.2"
    loader = "import ctypes, sys; ctypes.CDLL(sys.argv[1]); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", loader, str(library)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin and process.stdout
        process.stdout.readline()
        first = next(libraries.nccl([str(process.pid)], []))
        process.stdin.close()
    assert first == libraries.Library(f"in process {process.pid}", str(library), "2.28.3")

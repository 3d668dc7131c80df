"""Without a Python or its package collect_env.sh prints a short list, with coreutils alone."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from collect_env_harness import ROOT, SCRIPT, bare, run, tool
from planted_secrets import SECRETS
from programs import ran

pytestmark = pytest.mark.launches


# All that collect_env.sh may rely on.
COREUTILS = ("date", "df", "dirname", "nproc", "tail", "timeout", "uname", "uniq")

SHORT = ["date", "OS", "kernel", "CPU", "memory", "/dev/shm", "ulimit", "GPUs"]


def short_list(text: str) -> tuple[str, dict[str, str]]:
    """Why it is short, and the facts by name; a value may have further lines."""
    head, body = re.fullmatch(
        r"## system \(a short list: (.+)\)\n```text\n(.+)\n```\n", text, re.S
    ).groups()
    parts = re.split(rf"^({'|'.join(SHORT)}) +", body, flags=re.M)
    assert parts[0] == "" and parts[1::2] == SHORT
    return head, dict(zip(SHORT, (value.rstrip("\n") for value in parts[2::2]), strict=True))


def test_bash_and_coreutils_are_enough(tmp_path: Path) -> None:
    for name in ("bash", *COREUTILS):
        (tmp_path / name).symlink_to(shutil.which(name) or name)
    script = Path(shutil.copy(SCRIPT, tmp_path))  # beside the original there may be a .venv-cpu
    done = run(env={"PATH": str(tmp_path)}, script=script)
    assert (done.returncode, done.stderr) == (0, "")
    why, facts = short_list(done.stdout)
    assert why == "python3: not found"
    assert facts["GPUs"] == "nvidia-smi: not found"
    assert facts["CPU"].startswith(f"{os.cpu_count()} CPUs, ")
    assert facts["kernel"] == f"{os.uname().release} {os.uname().machine}"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for chroot")
def test_a_chroot_without_proc_and_dev_is_enough(tmp_path: Path) -> None:
    for name in ("bash", *COREUTILS):
        program = Path(shutil.which(name) or name).resolve()
        linked = ran(["ldd", program], check=True)
        places = {path: path for path in re.findall(r"(/\S+) \(0x", linked.stdout)}
        for place, path in {**places, f"/bin/{name}": str(program)}.items():
            copy = tmp_path / place.lstrip("/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    shutil.copy(SCRIPT, tmp_path)
    done = ran(
        [shutil.which("chroot") or "chroot", tmp_path, "/bin/bash", "/collect_env.sh"],
        env={"PATH": "/bin"},
        check=True,
    )
    assert done.stderr == ""
    why, facts = short_list(done.stdout)
    assert (why, facts["OS"], facts["memory"]) == ("python3: not found", *["not readable"] * 2)
    assert facts["/dev/shm"] == "not mounted"


def test_nothing_newer_than_bash_4_4_is_used() -> None:
    newer = (
        r"\$\{[a-z_]+@[UuLKk]\}", r"\bwait -p\b", "EPOCH(REAL)?(TIME|SECONDS)", "SRANDOM",
        "BASH_ARGV0",
        r"\$\{ ", "assoc_expand_once", "localvar_inherit", "globskipdots", "varredir_close",
        r"\bread -E\b", r"\$\{\|", r"compgen -V", r"printf .*%Q", r"\bBASH_MONOSECONDS\b",
    )  # fmt: skip
    text = SCRIPT.read_text()
    assert [feature for feature in newer if re.search(feature, text)] == []


def test_a_python_that_is_too_old_is_passed_over(tmp_path: Path) -> None:
    for name in ("bash", *COREUTILS):
        (tmp_path / name).symlink_to(shutil.which(name) or name)
    tool(tmp_path, "python3", "#!/bin/bash\necho\n")  # what 3.6 answers to whether it will do
    env = {"PATH": str(tmp_path)}
    assert run("--help", env=env | {"PYTHON": sys.executable}).stdout.startswith("usage:")
    root = tmp_path / "root"
    shutil.copytree(ROOT / "repro_pp_graphs" / "environment", root / "repro_pp_graphs/environment")
    script = Path(shutil.copy(SCRIPT, root))
    why, _ = short_list(run(env=env, script=script).stdout)
    assert why == "python3: older than 3.8, or parts are missing"


def test_copied_alone_it_says_what_to_copy_too(tmp_path: Path) -> None:
    script = Path(shutil.copy(SCRIPT, tmp_path))
    why, facts = short_list(run(script=script).stdout)
    assert why == "repro_pp_graphs/environment: copy it too"
    assert facts["kernel"].startswith(os.uname().release)


@pytest.mark.parametrize("option", ["--bundle", "--json-file", "--bogus", "--json", "--help"])
def test_without_its_package_it_takes_no_option(tmp_path: Path, option: str) -> None:
    done = run(option, script=Path(shutil.copy(SCRIPT, tmp_path)))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "options take Python 3.8 or newer (repro_pp_graphs/environment: copy it" in done.stderr


def test_without_python_no_variable_is_shown_as_nothing_masks_it(tmp_path: Path) -> None:
    script = Path(shutil.copy(SCRIPT, tmp_path))
    given = {f"NCCL_{number}": text for number, (text, _) in enumerate(SECRETS.values())}
    shown = run(env=bare(PYTHON="none", NCCL_DEBUG="INFO", **given), script=script).stdout
    _, facts = short_list(shown)
    assert facts.keys() == set(SHORT) and "NCCL" not in shown and "INFO" not in shown
    assert not [secret for _, secret in SECRETS.values() if secret in shown]


@pytest.mark.parametrize(
    ("said", "status", "shown"),
    [
        ("H100, 570.86, 81559 MiB\n" * 8, 0, ["8 H100, 570.86, 81559 MiB"]),
        ("A, 1, 2\nB, 1, 2\nB, 1, 2\n", 0, ["1 A, 1, 2", "2 B, 1, 2"]),
        ('say "no" \\ \x1b[1m\u00e9\n', 9, ['1 say "no" \\ [1m (failed)']),
    ],
)
def test_the_short_list_says_what_nvidia_smi_does(
    tmp_path: Path, said: str, status: int, shown: list[str]
) -> None:
    script = Path(shutil.copy(SCRIPT, tmp_path))
    (tmp_path / "said").write_text(said)
    smi = f"#!/bin/bash\ncat {tmp_path}/said\nexit {status}\n"
    done = run(env=bare(tool(tmp_path / "bin", "nvidia-smi", smi)), script=script)
    assert (done.returncode, done.stderr) == (0, "")
    _, facts = short_list(done.stdout)
    assert [" ".join(line.split()) for line in facts["GPUs"].splitlines()] == shown
    assert max(map(len, done.stdout.splitlines())) <= 80

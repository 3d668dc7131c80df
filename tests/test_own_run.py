"""tests/run.sh itself, in a checkout that has no environment yet."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from quick_venv import pip_for_all

ROOT = Path(__file__).parents[1]
# no index, and no folder of wheels that the machine's configuration names
NOTHING_TO_INSTALL = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}


@pytest.mark.slow
def test_a_fresh_checkout_gets_as_far_as_installing(tmp_path: Path):
    for name in ("repro_pp_graphs", "requirements"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "run.sh", tmp_path / "tests")
    site = pip_for_all(tmp_path / "site")
    done = subprocess.run(
        ["bash", "tests/run.sh", "-x"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": site, **NOTHING_TO_INSTALL},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "could not install" in done.stderr

"""tests/run.sh itself, in a checkout that has no environment yet."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from programs import ran
from quick_venv import pip_for_all

ROOT = Path(__file__).parents[1]
# no index, and no folder of wheels that the machine's configuration names
NOTHING_TO_INSTALL = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}


def of_a_checkout(folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """What tests/run.sh does in a copy of this checkout, where nothing can be installed."""
    for name in ("repro_pp_graphs", "requirements"):
        shutil.copytree(ROOT / name, folder / name)
    (folder / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "run.sh", folder / "tests")
    return ran(
        ["bash", "tests/run.sh", "-x"],
        cwd=folder,
        env={**os.environ, **environ, **NOTHING_TO_INSTALL},
    )


@pytest.mark.slow
def test_a_fresh_checkout_gets_as_far_as_installing(tmp_path: Path):
    done = of_a_checkout(tmp_path, PYTHONPATH=pip_for_all(tmp_path / "site"))
    assert done.returncode == 2, done.stdout + done.stderr
    assert "could not install" in done.stderr


@pytest.mark.slow
def test_a_link_in_the_place_of_its_environment_is_replaced_with_a_word(tmp_path: Path):
    site = Path(pip_for_all(tmp_path / "site"))
    (site / "sglang").mkdir()
    (site / "sglang" / "__init__.py").touch()
    (tmp_path / "elsewhere" / "kept").mkdir(parents=True)
    (tmp_path / ".venv-test").symlink_to("elsewhere")
    done = of_a_checkout(tmp_path, PYTHONPATH=str(site), PYTHON=sys.executable)
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 2 and "could not install" in said
    assert ".venv-test was a link to elsewhere, which stays as it is" in said
    assert (tmp_path / "elsewhere" / "kept").is_dir()

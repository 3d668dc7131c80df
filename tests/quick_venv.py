"""Environments that are made without unpacking a pip into each, which is most of the time."""

from __future__ import annotations

from pathlib import Path

import pip

WITHOUT_PIP = """import sys
if "venv" in sys.orig_argv:
    import venv
    venv.EnvBuilder._setup_pip = lambda *_: None
"""


def pip_for_all(folder: Path) -> str:
    """Make a folder for PYTHONPATH: `python -m venv` installs no pip, and every Python has the one
    of these tests."""
    folder.mkdir()
    (folder / "pip").symlink_to(Path(pip.__file__).parent)
    (folder / "sitecustomize.py").write_text(WITHOUT_PIP)
    return str(folder)

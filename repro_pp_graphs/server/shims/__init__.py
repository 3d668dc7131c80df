"""Named shims: small changes to a server process, each for one documented reason.

A launch names those it needs in the environment variable REPRO_SHIMS (comma-separated);
`repro_pp_graphs.server.launch` installs them in the server and in every process it spawns.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

from repro_pp_graphs.server.shim_names import ENV_NAME, REASONS, names_in


def announce(what: str, group: Any, more: str = "") -> None:  # noqa: ANN401 - a group of sglang's
    """Say in the server's log, in a rank of a PP group, that a shim is at work there."""
    import logging  # noqa: PLC0415 - what is imported to read of the shims needs none

    text = f"%s: PP rank %d of %d{more}"
    logging.getLogger(__name__).info(text, what, group.rank_in_group, group.world_size)


def install_all() -> None:
    """Install every shim named in REPRO_SHIMS, in this process."""
    for name in names_in(os.environ):
        if name not in REASONS:
            raise SystemExit(f"{ENV_NAME}: no shim '{name}': one of {', '.join(REASONS)}")
        importlib.import_module(f"{__name__}.{name}").install()


def install_all_in_server() -> None:
    """In the process that spawns the ranks: what some shims do there besides."""
    for name in names_in(os.environ):
        module = importlib.import_module(f"{__name__}.{name}")
        if hasattr(module, "install_in_server"):
            module.install_in_server()

"""python -m repro_pp_graphs.server.launch ARGS: `sglang.launch_server` with the named shims.

sglang spawns its ranks, and a spawned process imports its parent's main module first: so the
shims at the top of this module reach every rank before sglang is imported there.
"""

from __future__ import annotations

import runpy

from repro_pp_graphs.server import shims

shims.install_all()

if __name__ == "__main__":
    shims.install_all_in_server()
    runpy.run_module("sglang.launch_server", run_name="__main__")

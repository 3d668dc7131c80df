"""Whether a process is alive."""

from __future__ import annotations

import os
import subprocess
import sys

from fake_sglang.harness import wait_until

from repro_pp_graphs.server.machine import process


def test_a_zombie_is_not_alive():
    assert process.alive(os.getpid())
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        wait_until(lambda: not process.alive(child.pid))  # ended, not yet waited for
        assert child.returncode is None
    assert not process.alive(child.pid)

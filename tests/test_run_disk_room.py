"""The room on disk that a run needs before it begins."""

from __future__ import annotations

from gpu_plans import launch
from made_up_run import plan

from repro_pp_graphs.run.checks import preflight


def test_room_is_needed_for_each_traced_launch(tmp_path, monkeypatch):
    monkeypatch.setattr(
        preflight.shutil, "disk_usage", lambda path: type("U", (), {"free": 3 * 2**30})
    )
    assert preflight.check_disk(plan(launch()), tmp_path) == []
    (problem,) = preflight.check_disk(plan(launch(), launch()), tmp_path)
    assert "3.0 GiB" in problem and "--no-profile" in problem
    assert preflight.check_disk(plan(launch(), launch(), profile=False), tmp_path) == []

"""What the run records of a client's pass that failed."""

from __future__ import annotations

import errno
import os

import pytest

from repro_pp_graphs.run.launch.client_pass import Pass, run_client, why_failed


def test_what_the_client_complained_of_is_kept_and_no_more_at_the_next_pass(tmp_path, capsys):
    done = run_client(["--batch", "0"], tmp_path / "a_client.log", tmp_path)
    assert done.status == 2
    assert "--batch" in done.why
    assert "--batch" in capsys.readouterr().err
    words = ["--output", str(tmp_path / "none" / "a.json")]
    done = run_client(words, tmp_path / "a_client.log", tmp_path)
    assert done.status == 2
    assert "--batch" not in done.why


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_whatever_room_there_is_by_now(tmp_path, number):
    said = f"the report cannot be printed: {os.strerror(number)}"
    log = tmp_path / "a_client.log"
    assert why_failed(Pass(1, said), log) == f": {said}; the disk of {tmp_path} was full; see {log}"


def test_requests_that_failed_are_in_the_log(tmp_path):
    assert why_failed(Pass(1, ""), tmp_path / "a.log") == f"; see {tmp_path}/a.log"

"""The batch of a launch: split evenly into micro-batches, and covered by its decode graphs."""

from __future__ import annotations

import pytest
from plan_harness import plan_of, value


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", True),
        ("--cuda-graph-max-bs 64", True),
        ("--cuda-graph-backend-decode full", True),
        ('--cuda-graph-config \'{"decode": {"max_bs": 64}}\'', True),
        ('--cuda-graph-config \'{"prefill": {"backend": "disabled"}}\'', True),
        ("--disable-cuda-graph", False),
        ("--disable-decode-cuda-graph", False),
        ("--cuda-graph-backend-decode disabled", False),
        ("--cuda-graph-backend-decode=disabled", False),
        ('--cuda-graph-config \'{"decode": {"backend": "disabled"}}\'', False),
    ],
)
def test_every_way_to_switch_decode_graphs_off_is_seen(tmp_path, arguments, expected):
    (launch,) = plan_of(tmp_path, mine=arguments).launches
    assert launch.expects_graphs is expected
    if not expected:
        assert launch.captured_max_bs is None


@pytest.mark.parametrize(
    ("arguments", "batch", "captured", "noted"),
    [
        ("--cuda-graph-max-bs 64", "64", 64, ""),
        ("--cuda-graph-max-bs 64", "65", 65, "raised from 64 to 65"),
        ("--cuda-graph-bs 1 16 8", "16", 16, ""),
        ("--cuda-graph-bs 1 2 4", "16", 4, "run eagerly"),
        ("", "200", None, ""),
    ],
)
def test_captured_sizes_cover_the_loads_batch(tmp_path, arguments, batch, captured, noted):
    argv = ("--batch", batch, "--pp-size", "1")  # without pipeline the batch is never split
    (launch,) = plan_of(tmp_path, *argv, mine=arguments).launches
    assert launch.captured_max_bs == captured
    assert noted in " ".join(launch.notes) and bool(noted) == bool(launch.notes)
    if "--cuda-graph-max-bs" in launch.args:
        assert value(launch, "--cuda-graph-max-bs") == str(captured)


def test_captured_sizes_need_not_cover_more_than_a_micro_batch(tmp_path):
    argv = ("--batch", "65", "--pp-size", "4")
    (capped,) = plan_of(tmp_path, *argv, mine="--cuda-graph-bs 1 17").launches
    assert not [note for note in capped.notes if "eagerly" in note]
    text = "--cuda-graph-max-bs 16\n--pp-max-micro-batch-size 20"
    (given,) = plan_of(tmp_path, *argv, mine=text).launches
    assert given.captured_max_bs == 20


@pytest.mark.parametrize(
    ("argv", "arguments", "share", "noted"),
    [
        (["--batch", "16"], "", "4", 1),
        (["--batch", "17"], "", "5", 1),
        (["--batch", "2"], "", "1", "--batch 2 fills 2 of 4"),
        (["--batch", "16"], "--pp-async-batch-depth 1", "4", "--batch 16 fills 4 of 5"),
        (["--batch", "20"], "--pp-async-batch-depth 1", "4", 1),
        (["--batch", "16"], "--max-running-requests 16", "4", 1),
        (["--batch", "16"], "--pp-max-micro-batch-size 9", "9", 0),
        (["--batch", "16"], "--max-micro-batch-size 9", "9", 0),
        (["--batch", "16"], "--max-running-requests 15", None, 0),
        (["--batch", "16", "--pp-size", "1"], "", None, 0),
    ],
)
def test_the_load_is_split_evenly_unless_the_files_say_how(tmp_path, argv, arguments, share, noted):
    for launch in plan_of(
        tmp_path, *argv, one=arguments, two=f"# label: two\n{arguments}"
    ).launches:
        given = "--pp-max-micro-batch-size" in launch.args
        assert (value(launch, "--pp-max-micro-batch-size") if given else None) == share
        assert len(launch.notes) == (2 if isinstance(noted, str) else noted), launch.notes
        assert noted in launch.notes[1] if isinstance(noted, str) else True


def test_the_split_takes_the_name_that_the_release_has(tmp_path):
    names = {
        f"--{name}" for name in ("model-path", "pp-size", "tp-size", "port", "max-micro-batch-size")
    }
    found = frozenset(names)
    (launch,) = plan_of(tmp_path, release="0.5.2", flags=found, mine="").launches
    assert value(launch, "--max-micro-batch-size") == "4"

"""Every release's own PP loop: which shims fit it, and what is known of it by its number alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from release_sources import package

from repro_pp_graphs.run.plan import environments
from repro_pp_graphs.server.case import argfile, needs
from repro_pp_graphs.server.release import pp_loop
from repro_pp_graphs.server.release.installed import Release, version_numbers
from repro_pp_graphs.server.shims import comm_stream

ROOT = Path(__file__).resolve().parents[1]
DATA = json.loads((Path(__file__).parent / "data/pp_loop/loops.json").read_text(encoding="utf-8"))
LOCKED = environments.releases(ROOT)
RELEASES = {name: group for group in DATA for name in group["releases"]}
ASYNCHRONOUS = [name for name in RELEASES if version_numbers(name) >= (0, 5, 7)]


def source(kind: str, methods: dict[str, Any], more: str = "") -> str:
    """A class with those methods, each of which calls what the release's own calls."""
    found = f"class {kind}:\n    {more!r}\n"
    for name, (parameters, calls) in methods.items():
        found += f"    def {name}({', '.join(['self', *parameters])}):\n"
        found += "".join(f"        self.{each}()\n" for each in calls) or "        pass\n"
    return found


def place_of(folder: Path, release: str, **changed: Any) -> Path:
    facts = {**RELEASES[release], **changed}
    stream = pp_loop.COMM_OVERLAP if facts["own_stream"] else ""
    loop = source("SchedulerPPMixin", facts["SchedulerPPMixin"], stream)
    return package(folder, loop, source("GroupCoordinator", facts["GroupCoordinator"]))


def test_all_releases_are_there():
    numbers = {version_numbers(name)[:3] for name in RELEASES}
    assert {each[2] for each in numbers if each[1] == 5} >= set(range(2, 24))
    assert len(ASYNCHRONOUS) == 22


@pytest.mark.parametrize("release", RELEASES)
def test_a_shim_fits_a_release_or_says_why_not(tmp_path, release):
    place = place_of(tmp_path, release)
    expected = "" if release in ASYNCHRONOUS else pp_loop.ALREADY_SYNCHRONOUS
    assert pp_loop.misfit(place) == expected
    if version_numbers(release) >= (0, 5, 21):
        assert "the case comm_overlap switches on" in comm_stream.misfit(place)
    else:
        assert comm_stream.misfit(place).startswith(expected)
        assert bool(comm_stream.misfit(place)) == bool(expected)


@pytest.mark.parametrize("version", RELEASES)
def test_what_is_known_of_a_release_by_its_number_is_what_its_sources_say(tmp_path, version):
    known = needs.looked_up(version)
    if version_numbers(version) < (0, 4, 10):  # nobody knows how it sends
        assert known is None
    else:
        assert known and known.version == version
        assert known.loop == pp_loop.read(place_of(tmp_path, version))


@pytest.mark.parametrize("version", ["", "0.5.24", "0.5.24.dev1", "0.6", "9.9", "main"])
def test_of_a_release_that_nobody_looked_up_nothing_is_known_by_its_number(version):
    assert needs.looked_up(version) is None


def test_every_release_that_is_installed_here_was_looked_up():
    assert set(LOCKED) <= RELEASES.keys()
    for version in LOCKED:
        known = needs.looked_up(version)
        assert known and known.depth == (needs.DEPTH in environments.arguments(ROOT, version))
    rehearsed = (ROOT / "requirements/cpu.txt").read_text(encoding="utf-8")
    assert set(re.findall(r"^sglang==(\S+)", rehearsed, re.M)) <= RELEASES.keys()


@pytest.mark.parametrize("version", LOCKED)
def test_a_case_is_judged_by_the_number_as_by_the_installed_release(tmp_path, version):
    names = environments.arguments(ROOT, version)
    there = needs.installed(Release(version, names, place_of(tmp_path, version)))
    known = needs.looked_up(version)
    cases = [argfile.load(path) for path in ROOT.glob("server_args_*.txt")]
    judged = {args.label: needs.unmet(args, there) for args in cases}
    assert known and judged == {args.label: needs.unmet(args, known) for args in cases}
    assert judged["CASE_A_decode_graphs"] == "" != judged["CASE_I_comm_stream"]


@pytest.mark.parametrize("release", ASYNCHRONOUS)
def test_requests_are_sent_by_the_function_that_sync_send_replaces(release):
    assert RELEASES[release]["requests"]


@pytest.mark.parametrize("method", ["_pp_launch_batch", "_pp_process_batch_result"])
def test_a_release_that_lacks_a_method_is_refused_by_its_name(tmp_path, method):
    loop = dict(RELEASES["0.5.23"]["SchedulerPPMixin"])
    loop.pop(method)
    reason = pp_loop.misfit(place_of(tmp_path, "0.5.23", SchedulerPPMixin=loop))
    assert reason == f"it does not know this release: {method}()"

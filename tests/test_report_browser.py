"""The script of report.html: built as web/ builds it, and what a reader's browser makes of it.

Needs node 20 or newer with npm, a registry that npm reaches, and Chromium. Without them these
tests are skipped; where REPRO_WEB_TESTS is set, as CI does, they fail.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, NoReturn

import pytest
import report_runs
from programs import ran

from repro_pp_graphs.report import report_command
from repro_pp_graphs.report.page import html_page

pytestmark = pytest.mark.slow

WEB = Path(__file__).resolve().parents[1] / "web"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


def lacking(what: str) -> NoReturn:
    if os.environ.get("REPRO_WEB_TESTS"):
        pytest.fail(what)
    pytest.skip(what)


def node(*command: str, cwd: Path, **variables: str) -> str:
    env = {**os.environ, **variables}
    done = ran(command, cwd=cwd, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def web(tmp_path_factory) -> Path:
    """A copy of web/ with what its lock names installed."""
    for tool in ("node", "npm"):
        if not shutil.which(tool):
            lacking(f"no {tool} here: apt-get install nodejs npm")
    here = tmp_path_factory.mktemp("web") / "web"
    shutil.copytree(WEB, here, ignore=shutil.ignore_patterns("node_modules"))
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = ran(command, cwd=here)
    if done.returncode:
        lacking(f"npm ci: {done.stderr[-500:]}")
    return here


def test_the_committed_assets_are_what_the_sources_build(web, tmp_path):
    node("node", "build.mjs", str(tmp_path), cwd=web)
    built = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert built == {path.name: path.read_bytes() for path in html_page.ASSETS.iterdir()}
    assert b"</script" not in built["report.js"] and b"<!--" not in built["report.js"]


def test_the_lock_names_versions_and_hashes_but_no_registry():
    lock = json.loads((WEB / "package-lock.json").read_text())
    packages = {name: each for name, each in lock["packages"].items() if name}
    assert all("integrity" in each and "resolved" not in each for each in packages.values())
    wanted = json.loads((WEB / "package.json").read_text())["devDependencies"]
    assert wanted == {n: packages[f"node_modules/{n}"]["version"] for n in wanted}


@pytest.fixture(scope="module")
def seen(web, tmp_path_factory) -> dict[str, Any]:
    """What a browser drew of the report of a traced run."""
    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if not chromium:
        lacking("no Chromium here: apt-get install chromium")
    run = report_runs.traced(tmp_path_factory.mktemp("seen") / "run")
    # names that would be markup, if anything took them for it
    report_runs.changed(
        run / "logs" / "run.json",
        lambda plan: plan["launches"][0].update(model="<img src=x onerror=alert(1)>"),
    )
    assert report_command.main([str(run)]) == 0
    html = run / "logs" / "report.html"
    found = json.loads(node("node", "look.mjs", str(html), cwd=web, CHROMIUM=str(chromium)))
    return {**found, "facts": json.loads(html.read_text().split('id="facts">')[1].split("<")[0])}


def test_nothing_is_asked_for_and_nothing_is_wrong(seen):
    assert (seen["errors"], seen["requests"]) == ([], [])


def test_pictures_are_drawn_without_scrolling_and_for_a_print_even_where_that_takes_long(seen):
    every = len(seen["charts"])
    assert seen["slow"]["begun"] < every == seen["slow"]["printed"] > 3


def test_every_picture_is_drawn_with_all_its_points(seen):
    charts, drawn = seen["facts"]["charts"], seen["charts"]
    assert set(drawn) == {"lanes", *(name.replace("_", "-") for name in charts)}
    for name in ("itl_ecdf", "itl_time", "send_ecdf"):
        wanted = [[one["name"], len(one["points"])] for one in charts[name]["series"]]
        assert drawn[name.replace("_", "-")]["points"] == wanted
    for name in ("turns", "path"):
        parts = charts[name]["choices"][0]["parts"]
        wanted = [[part["title"], len(charts[name]["bars"])] for part in parts]
        assert drawn[name]["points"] == wanted
    of_lanes = [
        len(lane["slices"])
        for picture in seen["facts"]["lanes"]["pictures"]
        for rank in picture["ranks"]
        for lane in rank["lanes"]
    ]
    assert drawn["lanes"]["slices"] == sum(of_lanes) > drawn["lanes"]["painted"] > 100


def test_hover_zoom_and_keyboard_work(seen):
    assert "PP0 host" in seen["hover"] and "from" in seen["hover"]
    zoom = seen["zoom"]
    assert zoom["whole"] > zoom["wheeled"] > zoom["pressed"] == pytest.approx(zoom["wheeled"] / 4)
    assert "graphs_on" in seen["said"] and "PP0" in seen["said"]
    assert "TPOT mean, ms" in seen["tooltip"] and "47.9" in seen["tooltip"]
    assert "%" in seen["share"]


def test_it_is_light_and_dark_and_fits_a_phone(seen):
    light, dark, switched = seen["colours"]
    assert light != dark and switched == light
    assert seen["phone_width"] == 390


def test_what_goes_on_beyond_a_phone_shows_that_it_does(seen):
    assert {name for name, _ in seen["phone_scrolls"]} == {"DIV", "PRE"}  # tables, commands
    assert all(shaded for _, shaded in seen["phone_scrolls"])

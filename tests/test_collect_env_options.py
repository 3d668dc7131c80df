"""The options of collect_env.sh: shown by --help, and complained of in one line."""

from __future__ import annotations

import pytest
from collect_env_harness import run

pytestmark = pytest.mark.launches


def test_help_shows_every_option_and_examples() -> None:
    done = run("--help")
    assert done.returncode == 0
    for word in ("--json", "--no-redact", "--port", "--python", "examples:"):
        assert word in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--bogus"], "--bogus"),
        (["--port"], "--port needs a value"),
        (["--port", "0"], "not a port number"),
        (["--port", "65536"], "not a port number"),
        (["--port", "x"], "not a port number"),
        (["--python"], "--python needs a value"),
        (["--python", "/no/such/python"], "--python /no/such/python: no such program"),
        (["--python", "/"], "--python /: no such program"),
    ],
)
def test_wrong_options_exit_2_with_one_line(options: list[str], complaint: str) -> None:
    done = run(*options)
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1

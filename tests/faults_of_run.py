"""Faults of run_repro.sh: its options, Pythons, places and argument files."""

from __future__ import annotations

import os
from collections.abc import Iterator

from fake_sglang.harness import PYTHON
from fault_commands import CASE, DRY, REAL, RUN, Fault, Prepare, dry, nothing, plan, run
from fault_injection import NOBODY
from fault_preparations import case, checkout_in, content, folder, together

DENIED = "out: Permission denied; choose another --out"


def _numbers() -> Iterator[Fault]:
    options = ("--pp-size", "--rounds", "--layers", "--batch", "--max-new-tokens", "--port",
               "--profile-steps", "--start-timeout")  # fmt: skip
    for number, value in enumerate(("0", "-1", "\u00b2", "1e3", "", "\u0663", "1_0", " 4")):
        name = options[number]
        yield plan(f"{name} that is no number", name, value, says="not a whole number of 1 or more")
    for name, value in (
        ("--pp-size", "0"), ("--pp-size", "x"), ("--port", "0"), ("--port", "http"),
        ("--batch", "-8"), ("--gpus", "0"),
    ):  # fmt: skip
        yield dry(f"{name} {value}", name, value, says="not a whole number of 1 or more")
    for name, value in (
        ("--port", "65536"), ("--port", "99999999999999999999"), ("--batch", "1000000000"),
        ("--max-new-tokens", "1" + "0" * 12), ("--pp-size", "4096"), ("--layers", "1" * 50),
        ("--rounds", "1001"), ("--start-timeout", "9999999"), ("--profile-steps", "10000000"),
    ):  # fmt: skip
        yield plan(f"{name} {value[:12]} is too much", name, value, says="the highest is")


def _options() -> Iterator[Fault]:
    yield run("an option that there is not", "--no-such", says="no option '--no-such'")
    yield run("an option that there is not, with control characters", "--\x1b[2Jx", says="control")
    yield run("an option without its value", "--batch", says="--batch needs a value")
    yield run("a word that is no option", "stray", says="no option 'stray'")
    yield run("ESC and BEL in a model's name", "--model", "a\x1b]0;x\x07", says="control char")
    yield run("a line feed in a model's name", "--model", "a\nb", says="control character")
    yield run("C1 and bidi in a model's name", "--model", "a\u009b1m\u202e", says="control char")
    yield run("a name of 5000 characters", "--model", "m" * 5000, says="too long")
    yield run("bytes that are no UTF-8", "--model", "a\udcff", says="no UTF-8")
    yield run("a case that there is not", "--cases", "nope", says="there is no server_args_nope")
    yield run("a case with a way out", "--cases", "../x", says="a case's name has letters")
    yield run("a case with NUL's escape", "--cases", "\x01", says="control character")
    yield run("no case", "--cases", ",", says="no case named")
    yield run("a case twice", "--cases", "graphs_on,graphs_on", says="is named twice")
    yield run("--gpus of a real run", "--gpus", "8", says="--gpus is for --dry-run")
    yield run("--yes without --attach", "--yes", says="is for --attach")
    yield run("a password in a model's address", "--model", "https://me:xyzzy@h/m",
               says="an option holds a secret")  # fmt: skip
    yield run("an engine that there is not", "--engine", "vllm", says="sglang, or probe")
    yield dry("--rounds 1000 is planned, once", "--rounds", "1000", "--no-profile", says="# files",
               status=0)  # fmt: skip
    for url in ("http://127.0.0.1:99999", "http://h:x", "h", "http://u:p@h", "http://[::1",
                "http://h\x1b[1m"):  # fmt: skip
        says = "control" if "\x1b" in url else "--attach"
        yield Fault(
            f"--attach {url[:26]}", (*RUN, "--python", PYTHON, "--attach", url, "--yes"), says
        )
    yield Fault("--release that there is not", (*RUN, "--release", "9.9"), "no lock for it")
    yield Fault("--release with a way out", (*RUN, "--release", "../cpu"), "--release ../cpu")
    yield Fault("--release on a CPU", (*RUN, "--cpu", "--release", "0.5.2"), "need a GPU")


def _pythons() -> Iterator[Fault]:
    for program in ("/bin/true", "/bin/cat", "/usr/bin/yes", "/dev/null", "/nope", "/tmp"):
        says = "it cannot find sglang" if "bin" in program else "no such program"
        yield Fault(f"--python {program}", (*RUN, "--python", program), says)
        yield run(
            f"PYTHON={program} in a case", *CASE, says="no sglang there",
            prepare=case(f"PYTHON={program}"),
        )  # fmt: skip
    yield dry(
        "PYTHON=/bin/true in the shell is passed over", says="# files", status=0,
        env={"PYTHON": "/bin/true"},
    )  # fmt: skip


def _places() -> Iterator[Fault]:
    def at(what: str, out: str, says: str, prepare: Prepare = nothing, user: int = 0) -> Fault:
        words = (*RUN, *REAL[:-1], out)
        return Fault(what, words, says, prepare=prepare, user=user)

    yield at("--out ''", "", "--out '': name a folder")
    yield at("--out that is a file", "file", "file", content("file", b"x"))
    yield at("--out below a file", "file/out", "file", content("file", b"x"))
    yield at("--out that is a device", "/dev/null", "/dev/null")
    yield at("--out in /proc", "/proc/out", "/proc/out")
    yield at("--out with ESC", "a\x1b[31m", "control character")
    yield at("--out with a name of 300 characters", "n" * 300, "too long")
    yield at("--out whose logs are a file", "out", "out/logs", content("out/logs", b"x"))
    yield at("--out whose trace is a file", "out", "out/trace", content("out/trace", b"x"))
    yield at("--out that points nowhere", "out", "out",
             lambda harness: (harness.root / "out").symlink_to("/nowhere/at/all"))  # fmt: skip
    yield at("--out that points at itself", "out", "out",
             lambda harness: (harness.root / "out").symlink_to("out"))  # fmt: skip
    yield at("--out in a folder that is root's", "in/out", DENIED, folder("in"), NOBODY)
    yield at("--out that is root's", "out", DENIED, folder("out"), NOBODY)
    yield at("--out that is read-only", "out", DENIED, folder("out", 0o555, NOBODY), NOBODY)
    yield at("--out that cannot be entered", "out", "out", folder("out", 0o600, NOBODY), NOBODY)
    yield at(
        "logs of another user in --out", "out", "out/logs",
        together(folder("out", 0o755, NOBODY), folder("out/logs")), NOBODY,
    )  # fmt: skip
    other = "give a path that can be used"  # another --out is no help
    yield dry("--model with a part of 300 characters", "--model", "/" + "m" * 300,
               "--dummy-weights", says=f"File name too long; {other}")  # fmt: skip
    yield dry("--model in a folder that cannot be entered", "--model", "in/model",
               "--dummy-weights", says=f"Permission denied; {other}", user=NOBODY,
               prepare=folder("in", 0o700))  # fmt: skip
    yield run("a checkout's argument file that cannot be read", *CASE, says="server_args_x.txt",
               prepare=content("server_args_x.txt", b"--a 1\n", 0o600), user=NOBODY)  # fmt: skip
    yield run("a checkout that is root's", says=".state: cannot be written", user=NOBODY,
               prepare=lambda made: os.chown(made.root, 0, 0))  # fmt: skip
    for name in ("a:b", "a\x1b[1m", "a\nb"):
        linked = tuple(f"ROOT/{name}/{part}" for part in RUN[1:])
        yield Fault(f"a checkout in {name[:3]!r}", (RUN[0], *linked, *DRY), "move the checkout",
                    prepare=checkout_in(name))  # fmt: skip
    yield run(".state that others can write", says=".state", prepare=folder(".state", 0o777))
    yield run(".state of another user", says=".state", needs_root=True,
               prepare=folder(".state", 0o755, NOBODY))  # fmt: skip
    yield run(".state that is a file", says=".state", prepare=content(".state", b"x"))


def _argument_files() -> Iterator[Fault]:
    def file(what: str, *lines: str, says: str, status: int = 2) -> Fault:
        make = dry if status == 0 else plan
        return make(what, *CASE, says=says, status=status, prepare=case(*lines))

    yield file("NUL in an argument file", "--tp-size 1\0", says="control character")
    yield file("ESC in an argument file", "--served-model-name \x1b[31m", says="control character")
    yield file("a lone carriage return", "--a 1\r--b 2", says="control character")
    yield file("a file that is no UTF-8", "--a \udcff", says="cannot be read")
    yield file("a BOM is no part of it", "\ufeffMY_NOTE=bom", says="MY_NOTE=bom", status=0)
    yield file("# in a value is kept", "MY_NOTE=a#b # c", says="MY_NOTE='a#b'", status=0)
    yield file("a backslash at the end", "--served-model-name a \\", says="ends with a backslash")
    yield file("a quote that stays open", "--served-model-name 'a", says="close the quote")
    yield file("two arguments on a line", "--a 1 --b 2", says="each on its own")
    yield file("a word that is no argument", "tp-size 2", says="neither '--argument")
    yield file("a label of 300 characters", f"# label: {'a' * 300}", says="label of 300 char")
    yield file("label A_vs_B", "# label: A_vs_B", says="files of a run have that name")
    yield file("label summary", "# label: summary", says="files of a run have that name")
    yield file("label with a way out", "# label: ../x", says="use up to 64 letters")
    yield file("label with ESC", "# label: a\x1b[1m", says="control character")
    yield file("an empty label", "# label:", says="label ''")
    yield file("--pp-size 0 in a file", "--pp-size 0", says="--pp-size 0: at least 1")
    yield file("--pp-size -2 in a file", "--pp-size -2", says="--pp-size -2: at least 1")
    yield file("--pp-size without a number", "--pp-size", says="give it a number")
    yield file("--tp-size \u00b2 in a file", "--tp-size \u00b2", says="not a whole number")
    yield file("--pp-size of 400 digits", f"--pp-size {'9' * 400}", says="--pp-size")
    yield file("--pp-size 100000 in a file", "--pp-size 100000", says="--pp-size 100000")
    yield file("--nnodes 0 in a file", "--nnodes 0", says="--nnodes 0: at least 1")
    yield file("--nnodes 3 for 2 stages", "--nnodes 3", "--pp-size 2", says="--nnodes 3")
    yield file("--port 0 in a file", "--port 0", says="from 1 to 65535")
    yield file("--port 65536 in a file", "--port 65536", says="from 1 to 65535")
    yield file("--port that is none in a file", "--port http", says="not a whole number")
    yield file("an argument that sglang lacks", "--no-such 1", says="--no-such")
    yield file("RELEASE that there is not", "RELEASE=9.9", says="RELEASE=9.9")
    yield file("PYTHON and RELEASE", "PYTHON=/x", "RELEASE=0.5.2", says="leave one")
    yield file("a JSON that is none", "--json-model-override-args {", says="is no JSON object")
    yield file("a JSON that is a list", "--json-model-override-args []", says="is no JSON object")
    yield file("a JSON nested 100 000 deep", f"--json-model-override-args {'[' * 100_000}",
               says="is no JSON object")  # fmt: skip
    yield run("a model's folder that is not there", "--model", "/no/model", says="/no/model")
    for name in ("AWS_ACCESS_KEY_ID", "MY_PAT", "SIGNING_KEY", "DB_PWD", "SESSION_COOKIE",
                 "PASSPHRASE", "HF_TOKEN"):  # fmt: skip
        yield file(f"{name} in a file", f"{name}=xyzzy-plugh", says=f"{name} holds a secret")
    yield file("a proxy with a password", "HTTPS_PROXY=http://u:xyzzy@h:1", says="holds a secret")
    yield file("--api-key in a file", "--api-key xyzzy", says="--api-key holds a secret")
    yield file("a bearer value", "X_HEADER='Bearer xyzzy-plugh-1'", says="holds a secret")
    yield run("an argument file of 20 MB", *CASE, says="server_args_x.txt",
               prepare=content("server_args_x.txt", b"--a 1\n" * 3_500_000))  # fmt: skip
    yield run("an argument file that is a folder", *CASE, says="server_args_x.txt",
               prepare=folder("server_args_x.txt"))  # fmt: skip
    yield run("no server_args_base.txt", says="server_args_base.txt",
               prepare=lambda made: (made.root / "server_args_base.txt").unlink())  # fmt: skip


RUN_FAULTS = [*_numbers(), *_options(), *_pythons(), *_places(), *_argument_files()]

"""A server's log: the stage it has reached, its decode lines, and why it died."""

from __future__ import annotations

import re
from dataclasses import dataclass

# last one found wins; sglang 0.5.2 to 0.5.23
_STAGES = (
    ("starting its ranks", re.compile(r"server_args=")),
    ("loading weights", re.compile(r"Load weight begin")),
    ("weights loaded", re.compile(r"Load weight end")),
    ("capturing graphs", re.compile(r"Capture .*graph.* begin|Capturing batches", re.IGNORECASE)),
    ("graphs captured", re.compile(r"Capture .*graph.* end", re.IGNORECASE)),
    ("warming up", re.compile(r"Uvicorn running on")),
    ("ready", re.compile(r"The server is fired up")),
)
_BAR = re.compile(r"((?:Loading|Capturing)\b[^\r]*?:\s+\d+%)")
_SAID = re.compile(
    r"\[[-\d]+ [:\d]+(?P<rank>[^\]]*)\] "
    r"(?:INFO: +)?(?P<said>(?:Init |Load weight|KV Cache|Memory pool|Capture |max_total_num|"
    r"Uvicorn|The server is).*)"
)
_DECODE = re.compile(
    r"^(?:\[[^\]]*? PP(?P<rank>\d+)\b[^\]]*\])?.*?Decode batch.*?#running-req: (?P<running>\d+)"
    r".*?(?:cuda|cpu) graph: (?P<graph>True|False)"
)
# the main process outlives a dead rank by up to a minute
_FATAL = re.compile(
    r"Received sigquit from a child process|Scheduler hit an exception|"
    r"kill_process_tree called|Rank \d+ scheduler (?:is dead|died)"
)
_TELLING = re.compile(
    r"^\S*(?:Error|Exception|Interrupt)\b.*|.*(?:[Ee]rror:|ERROR|not enough|out of memory|denied|"
    r"Segmentation fault|Killed|Fatal Python error|what\(\)).*"
)
_NOISE = re.compile(
    r"Ignore import error|init failed \(|\[W\d{4} |^frame #\d|^Exception raised from |"
    r"ChildFailedError|pyspy|Pyspy|UserWarning|^\s*File "
)


@dataclass(frozen=True)
class Diagnosis:
    """What ended a server, and the next step."""

    cause: str
    remedy: str


# (cause, pattern, remedy), the first match in this order wins
_CAUSES = (
    (
        "unknown argument",
        r"error: (?:unrecognized arguments|ambiguous option|argument \S+: )",
        "mend the argument in server_args_*.txt; `python -m sglang.launch_server --help` lists all",
    ),
    (
        "port in use",
        r"[Aa]ddress already in use|error while attempting to bind|port at \d+ is not available",
        "end what listens there (ss -ltnp), or use --port",
    ),
    (
        "hub access denied",
        r"GatedRepoError|gated repo|RepositoryNotFoundError|40[13] Client Error|Access to model",
        "accept the model's licence and export HF_TOKEN, or use --model /local/folder, or "
        "--dummy-weights",
    ),
    (
        "model not reachable",
        r"LocalEntryNotFoundError|OfflineModeIsEnabled|couldn't connect to|"
        r"is not a local folder and is not a valid model|Can't load the configuration of",
        "check the spelling and the network, or use --model /local/folder, or --dummy-weights",
    ),
    (
        "out of GPU memory during graph capture",
        r"Capture .*graph failed.*(?:out of memory|OutOfMemory)",
        "lower --mem-fraction-static in the argument files, or --cuda-graph-max-bs in "
        "server_args_graphs_on.txt",
    ),
    (
        "no GPU memory left for the KV cache",
        r"[Nn]ot enough memory|leave no GPU memory for the KV cache",
        "raise --mem-fraction-static in the argument files, or use more GPUs or a smaller model",
    ),
    (
        "out of GPU memory",
        r"OutOfMemoryError|CUDA out of memory|CUBLAS_STATUS_ALLOC_FAILED",
        "lower --mem-fraction-static in the argument files, or use more GPUs, a smaller model "
        "or fewer --layers",
    ),
    (
        "too few GPUs",
        r"invalid device ordinal|Duplicate GPU detected|No CUDA GPUs are available",
        "use a smaller --pp-size, or --one-gpu to let ranks share a GPU",
    ),
    (
        "unsupported graph size",
        r"Capture .*graph failed|cuda.graph.(?:max.)?bs\S* .*(?:must|should|invalid|exceed)",
        "change the sizes in server_args_graphs_on.txt; --cuda-graph-max-bs 16 is a small set",
    ),
    (
        "more PP ranks than the model has layers",
        r"assert not pp_size or num_hidden_layers >= pp_size",
        "a smaller --pp-size, or more --layers",
    ),
    (
        "triton attention of sglang up to 0.5.17 with more than two PP ranks",
        r"get_value_buffer",
        "use another release, --pp-size 2, or another --attention-backend",
    ),
    (
        "driver too old for this torch",
        r"NVIDIA driver on your system is too old|CUDA driver version is insufficient",
        "update the driver, or use an environment built for the older CUDA (--python)",
    ),
    (
        "a package is missing or does not match",
        r"(?m)^(?:\[[^\]]*\] )?(?:ModuleNotFoundError|ImportError): ",
        "install it into that interpreter, or let run_repro.sh make an environment (no --python)",
    ),
    (
        "a shim does not suit this release",
        r"(?m)^shim \w+: ",
        "leave the case out, or use another release (PYTHON= in its file, or --python)",
    ),
    (
        "NCCL failed",
        r"NCCL (?:error|WARN)|ncclUnhandled|ncclSystemError|ncclInternalError",
        "run again with NCCL_DEBUG=INFO and read the server's log",
    ),
)


def stage(text: str) -> str:
    """The last stage that a log shows: starting, loading weights, ..., ready."""
    found = "starting"
    for name, pattern in _STAGES:
        if pattern.search(text):
            found = name
    return found


def latest(text: str) -> str:
    """The last line that tells what a starting server is at, or its progress bar up to `40%`;
    empty where there is none."""
    for line in reversed(text.splitlines()):
        if found := _BAR.search(line):
            return found[1]
        if found := _SAID.match(line):
            return f"{found['rank']} {found['said']}".strip()
    return ""


def is_dying(text: str) -> bool:
    """True once the log says that a rank has failed, though the main process may linger."""
    return _FATAL.search(text) is not None


def telling_lines(text: str, most: int = 4) -> list[str]:
    """The last few distinct lines that name an error."""
    kept: list[str] = []
    for line in reversed(text.splitlines()):
        plain = re.sub(r"^\[[^\]]*\]\s*", "", line).strip()
        if _TELLING.match(plain) and not _NOISE.search(plain) and plain not in kept:
            kept.append(plain)
        if len(kept) == most:
            break
    return kept[::-1]


def diagnose(text: str) -> Diagnosis:
    """Why a server died, from its log."""
    # the arguments that the log repeats name errors that did not happen
    said = "\n".join(line for line in text.splitlines() if "server_args=" not in line)
    for cause, pattern, remedy in _CAUSES:
        if re.search(pattern, said):
            return Diagnosis(cause, remedy)
    if "(exit code: -9)" in said:
        return Diagnosis(
            "killed (often the kernel's out-of-memory killer)",
            "see dmesg; the host needs more memory, or the model fewer --layers",
        )
    if "Fatal Python error: Segmentation fault" in text:
        return Diagnosis("crashed (segmentation fault)", "report it with `bash collect_env.sh`")
    if "Fatal Python error" in text:
        return Diagnosis("crashed (aborted)", "report it with `bash collect_env.sh`")
    if not telling_lines(text):
        return Diagnosis(
            "killed without a word (often the kernel's out-of-memory killer)",
            "see dmesg; the host needs more memory, or the model fewer --layers",
        )
    return Diagnosis("unknown", "read the server's log; `bash collect_env.sh` helps a report")


@dataclass(frozen=True)
class DecodeLine:
    """One `Decode batch` line: PP rank (0 where the log names none), requests, graph used."""

    pp_rank: int
    running: int
    graph: bool


def decode_lines(text: str) -> list[DecodeLine]:
    """Every decode line of a log, in order."""
    return [
        DecodeLine(int(m["rank"] or 0), int(m["running"]), m["graph"] == "True")
        for m in map(_DECODE.search, text.splitlines())
        if m
    ]

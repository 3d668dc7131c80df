"""What a fatal message means, and the next step: one rule a wording, most telling first."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Rule:
    """A cause, the wording that shows it, and one sentence on what to do.

    `broad` rules name what failed, not why: any other rule that matches goes before them.
    `frames` rules read the stack's lines, which others skip. `also` must match some line too.
    """

    cause: str
    wording: str  # regular expressions, compiled where a server has died
    remedy: str
    broad: bool = False
    frames: bool = False
    also_wording: str = ""

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        return re.compile(self.wording)

    @cached_property
    def also(self) -> re.Pattern[str] | None:
        return re.compile(self.also_wording) if self.also_wording else None


def _rule(
    cause: str,
    remedy: str,
    *patterns: str,
    broad: bool = False,
    frames: bool = False,
    also: str = "",
) -> Rule:
    return Rule(cause, "|".join(patterns), remedy, broad, frames, also)


_LOWER_MEMORY = (
    "lower --mem-fraction-static in the argument files, or use more GPUs, a smaller model or "
    "fewer --layers"
)
# of a cause that strikes during graph capture, where another step is next
IN_CAPTURE = {
    "out of GPU memory": "lower --mem-fraction-static in the argument files, or "
    "--cuda-graph-max-bs in server_args_graphs_on.txt"
}
BUSY = "a GPU is busy or refuses: another process, its compute mode, or an MPS daemon"
MPS_FAILED = "the MPS daemon or its server failed"
# of causes that mean something else where the harness began an MPS daemon for the launch (--mps)
UNDER_MPS = dict.fromkeys(
    (BUSY, MPS_FAILED),
    "see what its MPS server said (DIR/mps/LABEL.log) and dmesg for an Xid; --resume runs the "
    "launch again, with an MPS daemon of its own; if it stays, see nvidia-smi for other processes "
    "and `nvidia-smi -q -d COMPUTE` (Default?), or leave --mps out",
)
_TOOLKIT = (
    "install the CUDA toolkit of torch's CUDA version and export CUDA_HOME, or use an image or "
    "environment that has it (--python, --release)"
)

_PACKAGE = "install it into that interpreter, or let run_repro.sh make an environment (--release)"
_TOKENIZER = (
    "take the tokenizer of this very model (--tokenizer-path) and the transformers version that "
    "sglang asks for"
)

RULES = (
    _rule(
        "a node fell silent: its link is cut, or it is down",
        "see `scontrol show node` and the link of the node that the line names; the servers of "
        "all nodes are ended, go on with --resume",
        r"^run_repro\.sh: node \d+ \(\S+\) has ",
    ),
    _rule(
        "unknown argument",
        "mend the argument in server_args_*.txt; `python -m sglang.launch_server --help` lists all",
        r"error: (?:unrecognized arguments|ambiguous option|the following arguments are required)",
        r"error: argument \S+: ",
    ),
    _rule(
        "a shim does not suit this release",
        "leave the case out, or use another release (--release or --python; for one case, RELEASE= "
        "or PYTHON= in its file)",
        r"^shim \w+: ",
    ),
    _rule(
        "more PP ranks than the model has layers",
        "a smaller --pp-size, or more --layers",
        r"assert not pp_size or num_hidden_layers >= pp_size",
        frames=True,
    ),
    _rule(
        "triton attention of sglang up to 0.5.17 with more than two PP ranks",
        "use --release 0.5.23, --pp-size 2, or --attention-backend flashinfer in the argument "
        "files",
        r"get_value_buffer",
        frames=True,
    ),
    _rule(
        "/dev/shm is too small",
        "start the container with --shm-size 16g or --ipc=host, or enlarge it: mount -o "
        "remount,size=16g /dev/shm",
        r"(?:/dev/shm|nccl-shm)\b.*No space left|failed to extend /dev/shm",
        r"(?:shared memory|shm)\b.*No space left",
        r"posix_fallocate failed *: No space left",
        r"insufficient shared memory",
        r"out of shared memory\. Please try to raise",
    ),
    _rule(
        "disk full",
        "free some, or point HF_HOME, TRITON_CACHE_DIR and TMPDIR to a disk with room",
        r"No space left on device",
        r"[Dd]isk quota exceeded",
        r"\[Errno (?:28|122)\]",
        r"[Nn]ot enough free disk space",
    ),
    _rule(
        "port in use",
        "end what listens there (ss -ltnp), or use --port",
        r"[Aa]ddress already in use",
        r"EADDRINUSE",
        r"error while attempting to bind",
        r"[Pp]ort (?:at )?\d+ is (?:not available|already in use|in use|occupied)",
    ),
    _rule(
        "hub access denied",
        "accept the model's licence and export HF_TOKEN, or use --model /local/folder, or "
        "--dummy-weights",
        r"GatedRepoError|gated repo|public gated repositories",
        r"\b40[13] (?:Client Error|Forbidden: |Unauthorized: )",
        r"[Aa]ccess to model \S+ is restricted|awaiting a review|not in the authorized list",
        r"Invalid (?:credentials|username or password|user token)",
    ),
    _rule(
        "model not reachable",
        "check the spelling and the network (a private model needs HF_TOKEN), or use --model "
        "/local/folder, or --dummy-weights",
        r"LocalEntryNotFoundError|OfflineModeIsEnabled|outgoing traffic has been disabled",
        r"RepositoryNotFoundError|RevisionNotFoundError|(?<!Local)EntryNotFoundError",
        r"couldn't connect to|ConnectionPool\(host='(?!127\.|localhost)",
        r"is not a valid model identifier",
        r"Can't load the (?:configuration|config) (?:of|for)|Repo id must (?:be|use)",
        r"does not appear to have a file named config\.json|Unrecognized model in ",
        r"[Mm]odel \S+ (?:does not exist|not exists?) (?:on|in) ModelScope",
    ),
    _rule(
        "the tokenizer does not suit the model",
        _TOKENIZER,
        r"srcIndex < srcSelectDimSize",
        also=r"[Ee]mbedding",
    ),
    _rule(
        "the tokenizer does not suit the model, or this transformers",
        _TOKENIZER,
        r"[Tt]okenizer class \S+ does not exist",
        r"untagged enum (?:ModelWrapper|PreTokenizer\w*|DecoderWrapper|NormalizerWrapper)",
        r"(?:Can't|Failed to|Unable to) load (?:the )?(?:tokenizer|vocabulary)",
        r"Couldn't instantiate the backend tokenizer",
        r"[Tt]okenizer\b.*\b(?:mismatch|does not match|not match)",
        r"vocab(?:ulary)?[ _]size.*(?:mismatch|does not match|larger than|exceeds)",
        r"sentencepiece.*(?:ParseFromArray|could not parse ModelProto)|[Ee]rror loading tiktoken",
    ),
    _rule(
        "a weights file is broken or incomplete",
        "download that file again and compare its size with the hub's, or use --dummy-weights",
        r"SafetensorError|deserializing header|MetadataIncompleteBuffer|HeaderTooLarge",
        r"shard file\S* .*not on disk|incomplete download|PytorchStreamReader failed",
        r"invalid load key|Unexpected EOF|unexpected end of file|pickle data was truncated",
        r"Cannot find any model weights|No such file or directory: '[^']*\.(?:safetensors|bin|pt)'",
    ),
    _rule(
        "GPU memory is unbalanced between the ranks",
        "end the other processes on those GPUs (nvidia-smi), or choose GPUs alike with "
        "CUDA_VISIBLE_DEVICES",
        r"memory capacity is unbalanced",
    ),
    _rule(
        "out of host memory",
        "the host, or the container's limit, needs more memory, or the model fewer --layers; "
        "kernels compiled at start take less with MAX_JOBS=4",
        r"died due to signal 9|Killed signal terminated|\[code=137\]|exit status (?:137|-9)\b",
        r"DefaultCPUAllocator|^(?:numpy\S*_Array)?MemoryError|std::bad_alloc|\[Errno 12\]",
        r"[Cc]an't allocate memory",
        r"^(?!.*(?:NCCL|ibv_)).*[Cc]annot allocate memory",  # of the network card, for NCCL
    ),
    _rule(
        "no GPU memory left for the KV cache",
        "raise --mem-fraction-static in the argument files, or use more GPUs or a smaller model",
        r"[Nn]ot enough memory\b|leave no GPU memory for the KV cache",
        r"[Mm]emory pool (?:size )?is too small|[Nn]o available memory for the cache",
        r"increas\w+ (?:--)?mem[-_]fraction[-_]static",
    ),
    _rule(
        "out of GPU memory",
        _LOWER_MEMORY,
        r"OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED",
        r"(?:CUDA|HIP|[Cc]uda)\b.*\bout of memory|CUDA_ERROR_OUT_OF_MEMORY",
        r"cudaErrorMemoryAllocation|Failed to CUDA (?:m|c)alloc|CUresult error.*result=2\b",
    ),
    _rule(
        "GPU hardware fault",
        "see `nvidia-smi -q -d ECC,ROW_REMAPPER` and dmesg (Xid), reset the GPU or leave it out "
        "with CUDA_VISIBLE_DEVICES",
        r"uncorrectable (?:ECC|NVLink)|ECC_UNCORRECTABLE|ecc error",
        r"fallen off the bus|GPU is lost|CUDA_ERROR_NVLINK|\bNVRM: Xid",
        r"(?:hardware|HARDWARE)[ _](?:stack error|fault)|[Uu]ncontained (?:memory )?error",
    ),
    _rule(
        MPS_FAILED,
        "see who began it (`pgrep -a nvidia-cuda-mps`) and its log: have it ended, or begun anew",
        r"\bMPS (?:client|server)\b|cudaErrorMps\w+|CUDA_ERROR_MPS_\w+",
    ),
    _rule(
        BUSY,
        "see nvidia-smi for other processes, `nvidia-smi -q -d COMPUTE` (Exclusive or Prohibited: "
        "have it set to Default), and `pgrep -a nvidia-cuda-mps` for an MPS daemon of another "
        "user, or one that met a fault: have it ended",
        r"busy or unavailable|cudaErrorDevicesUnavailable|CUDA_ERROR_DEVICE_UNAVAILABLE",
    ),
    _rule(
        "illegal memory access on the GPU",
        "run again with CUDA_LAUNCH_BLOCKING=1 and graphs off to find the kernel, try another "
        "--attention-backend, and report it with `bash collect_env.sh`",
        r"illegal (?:memory access|address)|ILLEGAL_ADDRESS|misaligned address",
        r"Memory access fault by GPU",
    ),
    _rule(
        "a collective timed out",
        "the rank that fell silent first is where to look: a hang of one rank, or a slow one "
        "(--dist-timeout with more seconds)",
        r"Watchdog caught collective|Timeout at NCCL work|watchdog hang",
        r"(?i:timed? ?out (?:waiting|after|initializing|while))|\d+/\d+ clients joined",
    ),
    _rule(
        "too few GPUs",
        "use a smaller --pp-size, or --one-gpu to let ranks share a GPU",
        r"invalid device ordinal|Duplicate GPU detected|No CUDA GPUs are available",
        r"no CUDA-capable device|No accelerator \(|No HIP GPUs",
        r"(?:device|gpu)_?(?:count|s)\b.*(?:less|fewer|smaller) than",
    ),
    _rule(
        "driver too old for this torch",
        "update the driver, or use an environment built for the older CUDA (an older --release, "
        "--python)",
        r"NVIDIA driver on your system is too old|[Dd]river version is insufficient",
        r"InsufficientDriver|INSUFFICIENT_DRIVER|(?i:cuda (?:error|failure))\W*(?:code ?= ?)?35\b",
        r"unsupported toolchain|UNSUPPORTED_PTX_VERSION|forward compatibility was attempted",
        r"unsupported display driver|device kernel image is invalid",
        r"(?:API|library) mismatch: .*kernel module|Driver/library version mismatch",
    ),
    _rule(
        "the GPUs are not initialised",
        "start the fabric manager of the driver's version (systemctl start nvidia-fabricmanager), "
        "and see nvidia-smi and dmesg",
        r"system not yet initialized|SYSTEM_NOT_READY|[Ff]abric ?[Mm]anager",
    ),
    _rule(
        "a package is missing or does not match",
        _PACKAGE,
        r"undefined symbol: |cannot open shared object file|version `\S+' not found",
        r"minimum required version|PackageNotFoundError",
    ),
    _rule(
        "no kernel for this GPU in a compiled package",
        "install the build of torch, sglang-kernel and flashinfer that covers this GPU's "
        "architecture, or try another --attention-backend",
        r"no kernel image is available|NoKernelImageForDevice|NO_BINARY_FOR_GPU",
        r"Architecture-specific pattern: \S+ - found files: \[\]",
        r"[Mm]in(?:imum)? (?:compute )?capability|not compiled (?:with|for) (?:SM|sm_?)\d",
        r"not compatible with the current PyTorch installation|(?:sm|SM)[ _]?\d+ is not supported",
    ),
    _rule(
        "the compiler does not know this GPU",
        "install a CUDA toolkit that knows it (export CUDA_HOME, TRITON_PTXAS_PATH=$CUDA_HOME/"
        "bin/ptxas), or a newer triton",
        r"is not defined for option 'gpu-name'|Unsupported gpu architecture",
        r"Unknown CUDA arch|is not a recognized processor|invalid value for --gpu-architecture",
        r"invalid value '[^']*' for '--gpu-name|[Uu]nsupported (?:\.target|sm_)",
    ),
    _rule(
        "ninja is missing",
        "install it into that interpreter (pip install ninja) and have its bin folder on the PATH",
        r"(?:No such file or directory|Permission denied): '(?:\S*/)?ninja'",
        r"ninja: (?:command )?not found",
        r"[Nn]inja is required|No module named 'ninja'|(?i:could not find ninja|ninja not found)",
    ),
    _rule(
        "nvcc is missing (the CUDA toolkit)",
        _TOOLKIT,
        r"(?i:could not find nvcc|cannot find nvcc|nvcc: (?:command )?not found|nvcc not found)",
        r"(?:No such file or directory|Permission denied): '\S*nvcc'",
        r"CUDA_HOME\b.*(?:not set|not found)|cuda_home='[^']*' doesn't exist",
        r"[Ff]ailed to (?:find|locate) (?:nvcc|CUDA)",
    ),
    _rule(
        "no C compiler",
        "install gcc and g++ (Debian: apt-get install build-essential), or name one with CC=",
        r"Failed to find C compiler|InvalidCxxCompiler|No working C\+\+ compiler",
        r"\b(?:gcc|g\+\+|cc|c\+\+|clang): (?:command )?not found",
        r"No such file or directory: '(?:\S*/)?(?:gcc|g\+\+|cc|c\+\+|clang)'",
        r"Failed to preprocess host compiler",
    ),
    _rule(
        "a kernel could not be compiled",
        "install what the compiler misses (Python.h: python3-dev; CUDA headers: the toolkit of "
        "torch's CUDA version), or try another --attention-backend",
        r"fatal error: \S+: No such file or directory|cannot open source file",
        r"\berror: (?:identifier|expected|no |namespace|class|too |static assertion)",
        r"errors? detected in the compilation of|/ld: cannot find|NVRTC compilation failed",
        r"\(\d+\): (?:catastrophic )?error: |:\d+:\d+: error: ",
    ),
    _rule(
        "a package is missing or does not match",
        _PACKAGE,
        r"^(?:ModuleNotFoundError|ImportError)\b",
        r"^OSError: .*\.so\b|DistributionNotFound|VersionConflict|No module named '",
    ),
    _rule(
        "the server's own first request was refused",
        "a proxy may stand between: export NO_PROXY=127.0.0.1,localhost",
        r"res=<Response \[\d+\]>",
    ),
    # broad: what failed, not why
    _rule(
        "the tokenizer does not suit the model, or this transformers",
        _TOKENIZER,
        r"sentencepiece/__init__\.py|/tokenization_\w+\.py",
        broad=True,
        frames=True,
    ),
    _rule(
        "a kernel could not be compiled",
        "read the compiler's first error in the log, or try another --attention-backend",
        r"Error building extension|Ninja build failed|PTX codegen error|non-zero exit status \d+",
        r"Error compiling|CompilationError|ninja: build stopped|make\S*: \*\*\*",
        broad=True,
    ),
    _rule(
        "a GPU kernel failed",
        "run again with CUDA_LAUNCH_BLOCKING=1 to find it (token ids beyond the vocabulary are "
        "one reason), and report it with `bash collect_env.sh`",
        r"device-side assert|unspecified launch failure|illegal instruction was encountered",
        r"too many resources requested for launch|invalid (?:program counter|device function)",
        broad=True,
    ),
    _rule(
        "NCCL failed",
        "run again with NCCL_DEBUG=INFO and read the server's log",
        r"NCCL (?:error|WARN)|nccl\w*Error\b|ncclInvalidUsage|DistBackendError",
        broad=True,
    ),
    _rule(
        "graph capture failed",
        "try fewer sizes (--cuda-graph-max-bs 16 in server_args_graphs_on.txt) or another "
        "--attention-backend; the telling lines say what it met",
        r"[Cc]apture .*graph failed|(?i:graph capture failed)",
        r"(?i:cuda.?graph)\S* .*(?:must|exceed)",
        r"stream is capturing|during capture|capturing (?:blocking )?stream|StreamCapture",
        broad=True,
    ),
)

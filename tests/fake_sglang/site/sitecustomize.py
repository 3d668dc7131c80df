"""The disk of a run: $FAKE_FREE_KIB are free, whatever this machine has; without it as it is."""

import gc
import os
import sys

gc.set_threshold(50_000, 20, 20)  # hundreds of short processes

if "measure" in sys.orig_argv:
    import timeit

    _repeat = timeit.repeat

    def repeat(what: str, number: int, repeat: int) -> "list[float]":
        """How fast a core is, by one try: seven are 35 ms of CPU a launch, and no test needs it."""
        return _repeat(what, number=number, repeat=1)

    timeit.repeat = repeat

if "FAKE_FREE_KIB" in os.environ:
    _real = os.statvfs

    def statvfs(path: "str | bytes | int | os.PathLike[str]") -> os.statvfs_result:
        found = list(_real(path))
        found[4] = int(os.environ["FAKE_FREE_KIB"]) * 1024 // found[1]  # f_bavail of f_frsize
        return os.statvfs_result(found)

    os.statvfs = statvfs

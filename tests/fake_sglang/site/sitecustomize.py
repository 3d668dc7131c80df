"""The disk of a run: $FAKE_FREE_KIB are free, whatever this machine has; without it as it is."""

import gc
import os

gc.set_threshold(50_000, 20, 20)  # hundreds of short processes

if "FAKE_FREE_KIB" in os.environ:
    _real = os.statvfs

    def statvfs(path: "str | bytes | int | os.PathLike[str]") -> os.statvfs_result:
        found = list(_real(path))
        found[4] = int(os.environ["FAKE_FREE_KIB"]) * 1024 // found[1]  # f_bavail of f_frsize
        return os.statvfs_result(found)

    os.statvfs = statvfs

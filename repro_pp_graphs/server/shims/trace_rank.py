"""Add the PP rank to the name of an exported trace that lacks it."""

from __future__ import annotations

import re
from typing import Any

_AFTER_TP = re.compile(r"(-TP-\d+)(?=[-.])")


def ranked_name(path: str, pp_rank: int, pp_size: int) -> str:
    """`<id>-TP-0.trace.json.gz` -> `<id>-TP-0-PP-<rank>.trace.json.gz`, where sglang names none."""
    folder, slash, name = path.rpartition("/")
    if pp_size < 2 or "-PP-" in name:
        return path
    return folder + slash + _AFTER_TP.sub(rf"\g<1>-PP-{pp_rank}", name, count=1)


def install() -> None:
    """Rename on export, with the rank that sglang's own pipeline group gives."""
    import torch  # noqa: PLC0415

    export = torch.profiler.profile.export_chrome_trace

    def export_ranked(self: Any, path: str) -> Any:  # noqa: ANN401
        from sglang.srt.distributed import get_pp_group  # noqa: PLC0415

        group = get_pp_group()
        return export(self, ranked_name(path, group.rank_in_group, group.world_size))

    torch.profiler.profile.export_chrome_trace = export_ranked

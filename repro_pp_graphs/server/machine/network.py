"""How NCCL's messages between ranks travel, where a server's environment settles it."""

from __future__ import annotations

from collections.abc import Mapping

# of all ranks of one machine: as between hosts apart, but over its loopback
SOCKETS = {
    "NCCL_P2P_DISABLE": "1",
    "NCCL_SHM_DISABLE": "1",
    "NCCL_IB_DISABLE": "1",
    "NCCL_SOCKET_IFNAME": "lo",
}
BY_SOCKETS = "sockets in place of NVLink"


def transport(env: Mapping[str, str]) -> str:
    """BY_SOCKETS where neither peer access nor shared memory is left; empty where NCCL chooses."""
    off = all(env.get(name) == "1" for name in ("NCCL_P2P_DISABLE", "NCCL_SHM_DISABLE"))
    return BY_SOCKETS if off else ""

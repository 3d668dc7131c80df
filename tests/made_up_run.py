"""Records of a run that never was: a launch, a plan, with what a test is about changed."""

from __future__ import annotations

from typing import Any

from repro_pp_graphs.run_record import Launch, Plan

LAUNCH: dict[str, Any] = {
    **{"label": "A", "case": "a", "round": 1, "python": "p", "sglang_version": "0.5.21"},
    **{"args": [], "argv": [], "env": {}, "port": 1, "model": "m", "pp_size": 2, "tp_size": 1},
    **{"nodes": 1, "expects_graphs": None, "captured_max_bs": None},
}
PLAN: dict[str, Any] = {
    **{"mode": "gpu", "batch": 16, "max_new_tokens": 128, "profile": True, "profile_steps": 48},
    **{"with_stack": False, "nsys": False, "gpu_used_mib": {}},
}


def launch(label: str = "A", **changes: Any) -> Launch:
    return Launch(**{**LAUNCH, "label": label, **changes})


def plan(*launches: Launch, **changes: Any) -> Plan:
    return Plan(launches=list(launches), **{**PLAN, **changes})

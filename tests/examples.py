"""How many examples tests try: a sample, or all with `tests/run.sh --thorough`."""

from __future__ import annotations

import os

THOROUGH = bool(os.environ.get("REPRO_THOROUGH"))

"""A stand-in for sglang, for tests of the orchestrator: no model, real processes, log and HTTP."""

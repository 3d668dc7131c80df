"""The steps of run_repro.sh, one module each: plan, preflight, wait, profile, check, summarise."""

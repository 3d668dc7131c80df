"""The steps of run_repro.sh, a module each (*_step.py), and in folders what they are made of."""

"""The folder of a run, --out: what lies in it, whose it is, an earlier run's put aside."""

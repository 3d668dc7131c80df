"""From options and argument files to the launches of a run, before anything is started."""

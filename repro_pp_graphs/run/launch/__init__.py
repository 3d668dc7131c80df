"""While one launch's server runs: the client's passes, the profile, how it ended and why."""

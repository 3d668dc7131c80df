"""Chrome traces in, facts out: read, pair, steps, merge."""

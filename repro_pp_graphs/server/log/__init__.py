"""A server's log: its lines, its messages, why it died."""

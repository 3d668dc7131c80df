"""What a case's ranks did: messages, turns of the scheduler's loop, waits, the token return."""

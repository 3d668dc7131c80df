"""What a decode step waits for on its way round the ring: the critical path over all ranks."""

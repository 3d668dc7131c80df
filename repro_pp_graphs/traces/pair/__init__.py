"""Which send belongs to which receive: queues, offsets, clocks."""

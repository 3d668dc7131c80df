"""What readers do with any input at all: one target a kind of reader, an engine, a kept corpus."""

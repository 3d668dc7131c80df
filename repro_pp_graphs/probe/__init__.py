"""The ring of sglang's PP loop as a small program: torch, NCCL or gloo, and no sglang."""

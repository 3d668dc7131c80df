"""What the shim pp_clock writes in a server's ranks, and what is read of it (docs/pp_clock.md)."""

"""What must hold before the first server starts: programs, ports, memory, disk, cases that fit."""

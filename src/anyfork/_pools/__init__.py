"""What pools decide, without I/O, and their jobs, maps and workers."""

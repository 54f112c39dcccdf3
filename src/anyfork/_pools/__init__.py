"""Pools: their decisions, without I/O, and their jobs, maps and workers."""

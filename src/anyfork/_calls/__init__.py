"""Calls to workers, without I/O."""

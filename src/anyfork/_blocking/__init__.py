"""The blocking face of processes and calls."""

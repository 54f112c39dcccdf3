"""Processes and calls, in the blocking face."""

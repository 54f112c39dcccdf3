"""Processes of the multiprocessing context."""

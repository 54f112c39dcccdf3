"""The owner's side of the multiprocessing context."""

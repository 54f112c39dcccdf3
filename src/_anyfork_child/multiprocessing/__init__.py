"""The multiprocessing context: its classes, and the start and tasks of its processes."""

"""The face of concurrent.futures: an Executor and its thread."""

"""The Executor, a pool with the interface of concurrent.futures, and its thread."""

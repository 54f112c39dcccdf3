"""The client of ``anyfork run``. It imports neither anyfork nor a large module: its start delays every program."""

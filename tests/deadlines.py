"""How long a test waits for what must happen by itself. Nothing waits that long unless something is wrong."""

DEADLINE = 30.0  # seconds
PROGRAM_DEADLINE = 50.0  # seconds for a whole program; a test has 60

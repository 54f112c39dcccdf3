"""Workers: processes that answer calls."""

"""What scripts/demo shows: a survey of the standard library by many short processes, and ten servers on one socket."""

"""A process that answers calls."""

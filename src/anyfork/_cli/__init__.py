"""The command line: ``anyfork`` and ``python -m anyfork``."""

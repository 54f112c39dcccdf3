"""Python programs: what ``python -m name``, ``python path`` and ``python -c source`` do, in a process of a template."""

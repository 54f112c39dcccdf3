"""What a Python program reports of its start and its end, and what both sides make of it."""

from __future__ import annotations

FAILED, COLD = b"E", b"C"  # what a report begins with; a pipe that is closed without a report means success
REWRITTEN = "!"  # before the name of a module that a hook of the program has loaded
VOLATILE = {b"_", b"PWD", b"OLDPWD", b"SHLVL"}  # shells change them; who reads all variables means no single one

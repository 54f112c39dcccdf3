"""The code for templates and the processes forked from them. Standard library only; imports nothing of anyfork."""

import os

__version__ = "0.2.0"  # that of anyfork: the two belong together

if not hasattr(os, "fork"):
    raise ImportError(
        "anyfork needs fork(), which Windows does not have: run the program on Linux, for instance in WSL, or use "
        "concurrent.futures here"
    )

HOST = ""  # the owner's name for this machine if the owner is on another one; set once, before all other imports

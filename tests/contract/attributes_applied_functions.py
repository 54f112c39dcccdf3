"""Functions that the processes of test_attributes_applied.py run. They import little: each process imports them anew."""

from __future__ import annotations

import subprocess

NOBODY = 65534


def open_to_others(python):
    """Return whether everybody can execute this interpreter, and it is one that is supported."""
    code = "import os, sys; sys.exit(sys.version_info < (3, 11) or os.geteuid() != int(sys.argv[1]))"
    try:
        command = [python, "-I", "-c", code, str(NOBODY)]
        return subprocess.run(command, user=NOBODY, group=NOBODY, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def print_title(channel):
    with open("/proc/self/cmdline") as file:
        print(file.read().rstrip("\0"), end="")

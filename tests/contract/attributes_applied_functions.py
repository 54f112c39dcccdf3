"""Functions that the processes of test_attributes_applied.py run. They import little: each process imports them anew."""

from __future__ import annotations

import os
import subprocess
import threading

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


def note_state(path):
    """Write down what a process has before its attributes are applied."""
    with open(path, "a") as file:
        print(os.getcwd() == "/", os.umask(0o77), os.getuid(), file=file)


def refuse():
    raise PermissionError(1, "no")


def stop():
    raise SystemExit(3)


def leave_a_thread():
    threading.Thread(target=threading.Event().wait, daemon=True, name="left").start()


def close_everything():
    os.closerange(3, 100)


def fork_and_return():
    if os.fork():
        os.wait()

"""A command that runs another one and hands on what goes in and comes out, in pieces of some bytes.

``python forwarder.py SIZE COMMAND...``: the pieces of both directions have at most this size, each is a write of its
own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading


def pump(source: int, target: int, size: int) -> None:
    while data := os.read(source, size):
        os.write(target, data)
    os.close(target)


def main() -> None:
    size = int(sys.argv[1])
    with subprocess.Popen(sys.argv[2:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        threading.Thread(target=pump, args=(0, process.stdin.fileno(), size), daemon=True).start()
        pump(process.stdout.fileno(), 1, size)


if __name__ == "__main__":
    main()

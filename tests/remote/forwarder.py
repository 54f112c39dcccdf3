"""A command that runs another one and hands on what goes in and comes out, in pieces of some bytes.

``python forwarder.py SIZE COMMAND...``: the pieces of both directions have at most this size, each is a write of its
own. With ``SIZE@OFFSET`` the byte at this offset of what goes in is changed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading


def pump(source: int, target: int, size: int, changed: int = -1) -> None:
    at = 0
    while data := bytearray(os.read(source, size)):
        if at <= changed < at + len(data):
            data[changed - at] ^= 1
        at += len(data)
        os.write(target, data)
    os.close(target)


def main() -> None:
    size, changed = map(int, f"{sys.argv[1]}@-1".split("@")[:2])
    with subprocess.Popen(sys.argv[2:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        threading.Thread(target=pump, args=(0, process.stdin.fileno(), size, changed), daemon=True).start()
        pump(process.stdout.fileno(), 1, size)


if __name__ == "__main__":
    main()

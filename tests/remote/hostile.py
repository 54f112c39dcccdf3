"""A program that says it is a Python, takes what it is given, and then says whatever its file says.

``python hostile.py FILE [BEAT] [-c ...]``: the bytes in the file follow the handshake. With the bytes of BEAT, in
hexadecimal digits, it says those again and again, reads nothing, and leaves its pid in FILE.pid.
"""

from __future__ import annotations

import os
import re
import select
import sys


def read(size: int) -> bytes:
    got = b""
    while len(got) < size:
        part = os.read(0, size - len(got))
        if not part:
            sys.exit(1)
        got += part
    return got


def main() -> None:
    lines = b""
    while lines.count(b"\n") < 2:
        lines += os.read(0, 1 << 16)
    mark = b"\n<%s>" % re.search(rb"([0-9a-f]{16}-)", lines)[1][::-1]
    os.write(1, mark + b"python 3 11 2 elsewhere\n")
    read(int(read(8), 16) + 64)
    os.write(1, mark + b"ready 1.1\n")
    with open(sys.argv[1], "rb") as file:
        said = memoryview(file.read())
    while said:
        said = said[os.write(1, said) :]
    if sys.argv[2] != "-c":
        with open(f"{sys.argv[1]}.pid", "w") as file:
            file.write(str(os.getpid()))
        beat(bytes.fromhex(sys.argv[2]))
    while os.read(0, 1 << 16):
        pass


def beat(data: bytes) -> None:
    while True:
        os.write(1, data)
        if len(data) < 100:
            select.select([], [], [], 0.02)


if __name__ == "__main__":
    main()

"""The program that owns a template with many objects: it measures starts, and what processes come to own."""

from __future__ import annotations

import sys

from .ballast import BYTES_A_DICTIONARY
from .child import nothing
from .owner import own
from .procfs import available, cpu

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAKE = "made = [{'number': i, 'name': str(i), 'half': i / 2} for i in range(args[0])]"
WALK = """
def private():
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Private_")) * 1024
def walk(channel):
    before = private()
    for one in made:
        for key, value in one.items():
            str(value)
    channel.sendall(str(private() - before).encode())
"""


class Heap:
    """A template with so many dictionaries, whose objects may be immortal."""

    def __init__(self, kind: str, count: int) -> None:
        from anyfork import Template

        if available() < 3 * count * BYTES_A_DICTIONARY:
            raise MemoryError(f"needs {3 * count * BYTES_A_DICTIONARY // 1_000_000} MB of free memory")
        self._template = Template().preload("bench.child").execute(WALK).execute(MAKE, count)
        if kind == "immortal":
            self._template.immortalize()
        self._template.ready()

    def starts(self, count: int) -> list[float]:
        """Seconds of CPU of each of so many starts, one at a time: of the template and of the process."""
        pid = self._template.pid
        assert pid is not None
        found = []
        for _ in range(count):
            before = cpu(pid).own
            usage = self._template.fork().run(nothing).wait().usage
            assert usage is not None
            found.append(cpu(pid).own - before + usage.user_time + usage.system_time)
        return found

    def walk(self) -> list[float]:
        """Bytes that a process comes to own by reading all objects of the template."""
        with self._template.fork().run("walk") as process:
            return [float(process.channel.makefile().read())]

    def close(self) -> None:
        """Let go of the template."""
        self._template.close()


def main() -> None:
    """Own the template that the command line describes: descriptor of the socket, kind, number of dictionaries."""
    fd, kind, count = sys.argv[1:]

    def answer(heap: Any, measure: str, amount: float) -> list[float]:
        return heap.walk() if measure == "walk" else heap.starts(int(amount))  # type: ignore[no-any-return]  # a Heap

    own(fd, lambda: Heap(kind, int(count)), answer)

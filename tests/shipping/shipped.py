"""One program, shipped in many ways: what it does shows that all kinds of templates know what is in its ``__main__``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from deadlines import PROGRAM_DEADLINE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SOURCES = Path(__file__).parent.parent.parent / "src"

# By their first imports: templates that are interpreters of their own, and those that are copies of the program.
FIRST = {
    "plain": "import anyfork",
    "early": "import anyfork.early",
    "frozen": """\
import sys
if "early" in sys.argv:
    import anyfork.early
elif "bare" not in sys.argv:
    import anyfork.frozen""",
}

DEFINITIONS = """\
class OwnError(Exception):
    pass

class Point:
    def __init__(self, x):
        self.x = x

def times(factor):
    return lambda value: value * factor

def work(channel, function, point):
    with channel:
        channel.sendall(repr([function(point.x), type(point).__name__]).encode())

def fail(text):
    raise OwnError(text)

def move(point):
    return Point(point.x + 1)
"""

# What the program does: it prints that it begins, once, and a line for each kind of template.
CHECKS = """\
import anyfork
import os
import sys

print("the program begins", flush=True)

def check(template):
    with template.fork().run(work, times(3), Point(4)) as process:
        assert process.channel.makefile().read() == "[12, 'Point']"
    with anyfork.Worker(template) as worker:
        assert worker.call(times(2), 21) == 42
        assert worker.call(os.getpid) == worker.pid != os.getpid()
        moved = worker.call(move, Point(1))
        assert type(moved) is Point and moved.x == 2
        try:
            worker.call(fail, "as it was raised")
        except OwnError as error:
            assert str(error) == "as it was raised"
        else:
            raise AssertionError("nothing was raised")

def main():
    kinds = [
        ("forked", anyfork.Template),
        ("execed", anyfork.Template.new_exec),
        ("forked again", lambda: anyfork.Template().fork().fork()),
        ("copied", anyfork.fork_here),
    ]
    for name, make in kinds:
        check(make())
        print(name, flush=True)

"""
SAYS = "the program begins\nforked\nexeced\nforked again\ncopied\n"
GUARD = 'if __name__ == "__main__": '


def program(first: str, guard: str = GUARD) -> str:
    """Return the text of the program, with this kind of first import."""
    return f"{FIRST[first]}\n{DEFINITIONS}{CHECKS}{guard}main()\n"


def outcome(
    command: Sequence[str | os.PathLike[str]],
    *,
    text: str = "",
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    deadline: float = PROGRAM_DEADLINE,
) -> str:
    """Return what a program prints; it must end well and say nothing on its standard error."""
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=deadline, cwd=cwd, env=clean(env), check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def python(*arguments: str | os.PathLike[str], **options: object) -> str:
    """Return what this interpreter prints."""
    return outcome([sys.executable, *arguments], **options)  # type: ignore[arg-type]  # those of outcome


def clean(env: Mapping[str, str] | None) -> dict[str, str]:
    """Return the environment of a user, who has set nothing for Python, and these variables."""
    ours = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "ANYFORK", "COV", "_PYI", "PYTEST"))
    }
    return ours | dict(env or {})

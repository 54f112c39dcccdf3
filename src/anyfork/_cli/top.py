"""The command ``anyfork top``, which shows the pools, templates and processes of programs as a tree."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from time import sleep

from _anyfork_client.messages import peer
from _anyfork_client.place import UnusableError, file_in, open_directory

from .._pools.observation import SUFFIX
from .._system.process_memory import memory_of
from .top_screen import Line, accept_all_text, as_text, lines_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

TIMEOUT = 2.0  # seconds for an answer
PAUSE = 1.0  # seconds between two looks


def run(arguments: Sequence[str], fail: Callable[[str], NoReturn]) -> None:
    """Show the state of a program, or of all that offer it: once, or again and again in a terminal."""
    options = {argument for argument in arguments if argument.startswith("-")}
    pids = [argument for argument in arguments if argument not in options]
    if options - {"--once", "--json"} or len(pids) > 1 or not all(pid.isdecimal() for pid in pids):
        fail("top takes the pid of a program, --once and --json")
    wanted = int(pids[0]) if pids else None
    accept_all_text()
    if "--json" in options:
        print(json.dumps(states(wanted, _tell)))
    elif "--once" in options or not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        print(as_text(lines_of(states(wanted, _tell), wanted)))
    else:
        _watch(wanted)


def _tell(problem: str) -> None:
    print(f"anyfork top: {problem}", file=sys.stderr)


def _watch(wanted: int | None) -> None:
    """Show states until Ctrl-C, or until the only program has ended."""
    from .top_screen import open_screen

    shares = Shares()
    try:
        with open_screen() as screen:
            while True:
                problems: list[str] = []
                answers = states(wanted, problems.append)
                if wanted is not None and not answers and not problems:
                    break
                shares.note(answers)
                screen.show([*lines_of(answers, wanted), *(Line("error", problem) for problem in problems)])
                sleep(PAUSE)
    except KeyboardInterrupt:
        return
    print(f"program {wanted} has ended" if shares.known else as_text(lines_of((), wanted)))


class Shares:
    """The shares of a processor that processes have used between two looks."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[float, float]] = {}  # CPU seconds and age by process ids, at the last look

    def note(self, answers: list[dict[str, Any]]) -> None:
        """Add the ``share`` of each process that was there at the last look, too."""
        before, self.known = self.known, {}
        for answer in answers:
            if answer["process"]:
                self._note(answer["process"], before)

    def _note(self, process: dict[str, Any], before: dict[int, tuple[float, float]]) -> None:
        cpu, age = before.get(process["pid"], (0.0, process["age"]))
        if process["age"] > age:
            process["share"] = (process["cpu"] - cpu) / (process["age"] - age)
        self.known[process["pid"]] = process["cpu"], process["age"]
        for child in process["children"]:
            self._note(child, before)


def states(wanted: int | None, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """Return the states of the programs of this user that offer them, or of one. Raises SystemExit.

    ``tell`` is called with a sentence about each program that does not answer.
    """
    try:
        directory = open_directory()
    except UnusableError as error:
        raise SystemExit(f"anyfork: {error}") from None
    try:
        names = [name for name in sorted(os.listdir(f"/proc/self/fd/{directory}")) if name.endswith(SUFFIX)]
        if wanted is not None:
            names = [name for name in names if name == f"{wanted}{SUFFIX}"]
        answers = [answer for name in names if (answer := _ask(directory, name, tell)) is not None]
    finally:
        os.close(directory)
    table = processes()
    for answer in answers:
        answer["process"] = tree(answer["pid"], table)
    return answers


def _ask(directory: int, name: str, tell: Callable[[str], None]) -> dict[str, Any] | None:
    """Return the answer of a program. Return None, and remove its socket, if it has ended."""
    from socket import AF_UNIX, SOCK_STREAM, socket

    with socket(AF_UNIX, SOCK_STREAM) as sock:
        sock.settimeout(TIMEOUT)
        try:
            sock.connect(file_in(directory, name))
            if peer(sock)[1] != os.geteuid():
                return None
            answer: dict[str, Any] = json.loads(b"".join(iter(lambda: sock.recv(1 << 16), b"")))
        except ConnectionRefusedError:  # it was killed, and could not remove the socket
            _unlink(directory, name)
            return None
        except FileNotFoundError:  # it has just ended
            return None
        except (OSError, ValueError) as error:  # it is stopped, or was killed in the middle of its answer
            tell(f"program {name.removesuffix(SUFFIX)} does not answer: {error}")
            return None
    return answer


def _unlink(directory: int, name: str) -> None:
    with suppress(FileNotFoundError):  # somebody else has removed it
        os.unlink(name, dir_fd=directory)


def processes() -> dict[int, dict[str, Any]]:
    """Return all processes that the system shows, by their pids."""
    found = {}
    ticks = os.sysconf("SC_CLK_TCK")
    with open("/proc/uptime", encoding="ascii") as file:
        uptime = float(file.read().split()[0])
    for pid in [int(name) for name in os.listdir("/proc") if name.isdecimal()]:
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
            with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
                title = " ".join(file.read().rstrip("\0").replace("\n", " ").split("\0"))
        except OSError:  # it has ended
            continue
        found[pid] = {
            "pid": pid,
            "parent": int(fields[1]),
            "title": title,
            "age": uptime - int(fields[19]) / ticks,
            "cpu": (int(fields[11]) + int(fields[12])) / ticks,
        }
    return found


def tree(pid: int, table: dict[int, dict[str, Any]]) -> dict[str, Any] | None:
    """Return a process with its descendants, and their memory."""
    if pid not in table:
        return None
    memory = memory_of(pid)
    below = [tree(child, table) for child, facts in table.items() if facts["parent"] == pid]
    return {
        **table[pid],
        "private": None if memory is None else memory.private,
        "pss": None if memory is None else memory.pss,
        "children": [child for child in below if child is not None],
    }

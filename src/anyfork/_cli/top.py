"""The command ``anyfork top``, which shows the pools, templates and processes of programs as a tree."""

from __future__ import annotations

import json
import os
import sys
from time import sleep

from _anyfork_client.messages import peer
from _anyfork_client.place import UnusableError, file_in, open_directory

from .._pools.observation import SUFFIX
from .._system.process_memory import memory_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, NoReturn

TIMEOUT = 2.0  # seconds for an answer
PAUSE = 1.0  # seconds between two looks
CLEAR = "\x1b[H\x1b[J"  # of the terminal
NONE = "no program offers its state: call anyfork.observe() in it, or set ANYFORK_STATUS=1"


def run(arguments: Sequence[str], fail: Callable[[str], NoReturn]) -> None:
    """Show the state of a program, or of all that offer it: once, or again and again in a terminal."""
    options = {argument for argument in arguments if argument.startswith("-")}
    pids = [argument for argument in arguments if argument not in options]
    if options - {"--once", "--json"} or len(pids) > 1 or not all(pid.isdecimal() for pid in pids):
        fail("top takes the pid of a program, --once and --json")
    wanted = int(pids[0]) if pids else None
    if "--json" in options:
        print(json.dumps(states(wanted)))
    elif "--once" in options or not sys.stdout.isatty():
        print(described(states(wanted), wanted))
    else:
        _watch(wanted)


def _watch(wanted: int | None) -> None:
    try:
        while True:
            print(CLEAR + described(states(wanted), wanted), flush=True)
            sleep(PAUSE)
    except KeyboardInterrupt:
        pass


def states(wanted: int | None) -> list[dict[str, Any]]:
    """Return the states of the programs of this user that offer them, or of one. Raises SystemExit."""
    try:
        directory = open_directory()
    except UnusableError as error:
        raise SystemExit(f"anyfork: {error}") from None
    try:
        names = [name for name in sorted(os.listdir(f"/proc/self/fd/{directory}")) if name.endswith(SUFFIX)]
        if wanted is not None:
            names = [name for name in names if name == f"{wanted}{SUFFIX}"]
        answers = [answer for name in names if (answer := _ask(directory, name)) is not None]
    finally:
        os.close(directory)
    table = processes()
    for answer in answers:
        answer["process"] = tree(answer["pid"], table)
    return answers


def _ask(directory: int, name: str) -> dict[str, Any] | None:
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
            os.unlink(name, dir_fd=directory)
            return None
        except (OSError, ValueError) as error:  # it is stopped, or was killed in the middle of its answer
            print(f"anyfork top: program {name.removesuffix(SUFFIX)} does not answer: {error}", file=sys.stderr)
            return None
    return answer


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


def described(answers: list[dict[str, Any]], wanted: int | None) -> str:
    """Return states as lines of text."""
    lines = [line for answer in answers for line in _program(answer)]
    missing = NONE if wanted is None else f"program {wanted} does not offer its state: {NONE.partition(': ')[2]}"
    return "\n".join(lines or [missing])


def _program(answer: dict[str, Any]) -> Iterator[str]:
    workers = {}
    process = answer["process"]
    yield f"program {_process(process)}" if process else f"program {answer['pid']}"
    for pool in answer["pools"]:
        name = f"{pool['kind']} {pool['name']}".rstrip()
        stats = pool["stats"]
        yield (
            f"  {name}: workers {stats['workers']} ({stats['idle']} idle), starting {stats['starting']}, "
            f"queued {stats['queued']}, running {stats['running']}, "
            f"submitted {stats['submitted']}, died {stats['died']}, spares {stats['spares']}"
        )
        if pool["error"]:
            yield f"    last error: {pool['error'].splitlines()[0]}"
        workers.update({worker["pid"]: (name, worker) for worker in pool["workers"]})
    for child in process["children"] if process else ():
        yield from _below(child, workers, "  ")


def _below(process: dict[str, Any], workers: dict[int, tuple[str, dict[str, Any]]], indent: str) -> Iterator[str]:
    """Yield lines for a process and its descendants."""
    if process["pid"] in workers:
        name, worker = workers[process["pid"]]
        yield f"{indent}worker of {name} {_process(process)}"
        yield f"{indent}  {_work(worker)}"
    else:
        yield f"{indent}process {_process(process)}"
    for child in process["children"]:
        yield from _below(child, workers, indent + "  ")


def _work(worker: dict[str, Any]) -> str:
    running = f"runs {', '.join(worker['running'])}" if worker["running"] else "idle"
    since = "" if worker["seconds"] is None else f" for {worker['seconds']:.1f} s"
    return f"{worker['state']}, {running}{since}, calls {worker['calls']}, generation {worker['generation']}"


def _process(process: dict[str, Any]) -> str:
    mebibytes = [process[name] / (1 << 20) for name in ("private", "pss") if process[name] is not None]
    memory = ", private {:.1f} MiB, PSS {:.1f} MiB".format(*mebibytes) if mebibytes else ""
    return f"{process['pid']} [{process['title'][:60]}]: age {process['age']:.1f} s, CPU {process['cpu']:.1f} s{memory}"

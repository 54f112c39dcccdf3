"""The keepers of this user: what they have, and their end."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from signal import SIGKILL
from time import monotonic, sleep

from _anyfork_client.launch import LOCK
from _anyfork_client.messages import LostError, peer, receive, send
from _anyfork_client.place import SUFFIX, UnusableError, connect, file_in, open_directory

from .._programs.unused_files import remove_killed
from .._system.process_memory import memory_of
from .top_screen import accept_all_text, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Iterator
    from typing import Any

TIMEOUT = 2.0  # seconds for an answer
START_TIMEOUT = 10.0  # seconds for a keeper that is starting
PAUSE = 0.02  # seconds
MEGABYTE = 1 << 20


def show() -> None:
    """Print the keepers as a tree: their templates, and the programs that run."""
    accept_all_text()
    answers = [answer for sock in _connections() if (answer := _ask(sock, "status")) is not None]
    for answer in answers:
        print("\n".join(map(printable, _described(answer))))
    if not answers:
        print("no keeper runs; `anyfork run` starts one")


def stop() -> None:
    """Let all keepers end, and kill those that do not answer."""
    end = monotonic() + START_TIMEOUT
    stopped: set[int] = set()
    starting = True
    while starting and monotonic() < end:
        starting = _any_is_starting()  # asked first: it may listen right afterwards
        stopped.update(map(_stop, _connections()))
        sleep(PAUSE * starting)
    print(f"keepers stopped: {len(stopped)}")


def _stop(sock: socket) -> int:
    pid = peer(sock)[0]
    if _ask(sock, "stop") is None and pid:  # the kernel has no number for a process of another namespace
        os.kill(pid, SIGKILL)
    return pid


def _ask(sock: socket, command: str) -> Any:
    """Return the answer of a keeper, None if there is none."""
    try:
        send(sock, (command, {}))
        return receive(sock)[1]
    except (LostError, OSError):
        print(f"anyfork: the keeper {peer(sock)[0]} does not answer", file=sys.stderr)
        return None


def _connections() -> Iterator[socket]:
    """Yield a connection to each keeper of this user."""
    with _directory() as directory:
        for name in _names(directory, SUFFIX):
            try:
                sock = connect(directory, name, TIMEOUT)
            except OSError:  # it has ended
                continue
            try:
                if peer(sock)[1] == os.geteuid():
                    yield sock
            finally:
                sock.close()


def _any_is_starting() -> bool:
    """Return whether a keeper has a lock, but no socket yet. Remove what killed keepers have left."""
    with _directory() as directory:
        starting = [_is_starting(directory, name) for name in _names(directory, LOCK)]
        return any(starting)


def _is_starting(directory: int, name: str) -> bool:
    return not remove_killed(directory, name) and not os.path.exists(file_in(directory, name + SUFFIX))


@contextmanager
def _directory() -> Iterator[int]:
    """Open the directory of keepers. Raises SystemExit if it cannot be used."""
    try:
        directory = open_directory()
    except UnusableError as error:
        raise SystemExit(f"anyfork: {error}") from None
    try:
        yield directory
    finally:
        os.close(directory)


def _names(directory: int, suffix: str) -> list[str]:
    found = sorted(os.listdir(f"/proc/self/fd/{directory}"))
    return [name.removesuffix(suffix) for name in found if name.endswith(suffix)]


def _described(answer: dict[str, Any]) -> Iterator[str]:
    """Yield lines that describe a keeper."""
    options = " ".join(["", *answer["options"]])
    age, idle = _duration(answer["age"]), _duration(answer["idle"])
    yield f"keeper {answer['pid']}: {answer['python']}{options}, {age} old, ends after {idle} without a program"
    for template in answer["templates"]:
        yield from _template(template)
    for pid, line, age in answer["programs"]:
        yield f"  program {pid}: {' '.join(line[1:])}, for {_duration(age)}"


def _template(facts: dict[str, Any]) -> Iterator[str]:
    what = ", ".join(facts["preload"]) or "nothing preloaded"
    if facts["learned"]:
        what = f"{len(facts['preload'])} modules that a program imported before"
    if facts["state"] != "ready":
        yield f"  template of {what}: {facts['state']}"
        return
    memory = _memory(facts["pid"])
    saved = _duration(facts["starts"] * facts["seconds"])
    yield (
        f"  template {facts['pid']} of {what}: {len(facts['modules'])} modules, {memory}, "
        f"{_duration(facts['age'])} old, {facts['starts']} starts, made in {_duration(facts['seconds'])} "
        f"(at most {saved} saved)"
    )
    if facts["base"] is not None:
        yield f"    a fork of template {facts['base']}, which has its installed modules: {_memory(facts['base'])}"
    for path in facts["watch"]:
        yield f"    watches {path}"


def _memory(pid: int) -> str:
    """Return the memory of a process, proportionally where it is shared."""
    found = memory_of(pid)
    return "memory unknown" if found is None else f"{found.pss / MEGABYTE:.1f} MiB"


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min"

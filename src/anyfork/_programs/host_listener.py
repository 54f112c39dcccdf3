"""The keeper for hosts: it listens at a path, and serves each host that connects."""

from __future__ import annotations

import os
import stat
import sys
import threading
import time
from select import POLLIN, poll
from signal import SIG_IGN, SIGHUP, SIGINT, SIGTERM, getsignal, signal
from socket import AF_UNIX, SOCK_STREAM, socket

from _anyfork_client.messages import peer

from .host_connection import HostConnection
from .owned_program import ProgramSource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .kept_templates import Recipe

BACKLOG = 128
PAUSE = 0.1  # seconds until there may be a descriptor for a connection again
END_SIGNALS = SIGTERM, SIGINT, SIGHUP  # signals that end the keeper


def keep(path: str, recipe: Recipe, options: Sequence[str]) -> None:
    """Serve hosts at a path, until a signal or the end of standard input. Raises OSError if nobody can listen there."""
    for number in END_SIGNALS:
        if getsignal(number) != SIG_IGN:
            signal(number, _end)
    source = ProgramSource(recipe, options)
    listener = listen(path)
    own = os.stat(path)
    try:
        source.prepare()
        print(f"anyfork: listening at {path}", flush=True)
        _serve(listener, source)
    finally:
        listener.close()
        source.close()
        if _is_file(path, own):
            os.unlink(path)


def _end(*_: object) -> None:
    for number in END_SIGNALS:
        signal(number, SIG_IGN)
    sys.exit(0)


def listen(path: str) -> socket:
    """Return a socket that listens at a path, and that only this user may connect to. Raises OSError."""
    listener = socket(AF_UNIX, SOCK_STREAM)
    before = os.umask(0o177)  # of a process without other threads yet
    try:
        _make_room(path)
        listener.bind(path)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, error.strerror or str(error), path) from error
    finally:
        os.umask(before)
    listener.listen(BACKLOG)
    return listener


def _make_room(path: str) -> None:
    """Remove the socket of a keeper that was killed. What is no socket, or is in use, stays."""
    if not os.path.lexists(path) or not stat.S_ISSOCK(os.lstat(path).st_mode):
        return
    with socket(AF_UNIX, SOCK_STREAM) as trial:
        try:
            trial.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)


def _is_file(path: str, own: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), own)
    except OSError:
        return False


def _serve(listener: socket, source: ProgramSource) -> None:
    waiting = poll()
    for fd in (listener.fileno(), *_leash()):
        waiting.register(fd, POLLIN)
    while True:
        ready = [fd for fd, _ in waiting.poll()]
        if 0 in ready and not os.read(0, 1 << 16):
            return
        if listener.fileno() in ready:
            _accept(listener, source)


def _leash() -> Iterator[int]:
    """Yield standard input if it is a pipe or a socket: its end means that who has started this keeper has ended."""
    try:
        mode = os.fstat(0).st_mode
    except OSError:  # it is closed
        return
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        yield 0


def _accept(listener: socket, source: ProgramSource) -> None:
    try:
        sock, _ = listener.accept()
    except OSError:  # the host has ended, or there is no descriptor for it
        time.sleep(PAUSE)
        return
    try:
        threading.Thread(target=_answer, args=(sock, source), name="anyfork host", daemon=True).start()
    except RuntimeError:  # there can be no more threads now
        sock.close()


def _answer(sock: socket, source: ProgramSource) -> None:
    """Serve one host, if it is this user's. Runs in a thread of its own."""
    with sock:
        try:
            if peer(sock)[1] == os.geteuid():
                HostConnection(sock, source).serve()
        except OSError:  # the host has ended
            pass

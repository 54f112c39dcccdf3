"""The private socket where a program tells ``anyfork top`` what its pools do, if it is asked to."""

from __future__ import annotations

import os
import time
from _thread import RLock
from dataclasses import asdict

from .records import JobState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from socket import socket
    from typing import Any, Protocol
    from weakref import ref

    from .records import WorkerRecord
    from .scheduler import Scheduler

    class Observable(Protocol):
        """A pool, as this module sees it."""

        def snapshot(self) -> dict[str, Any]: ...


SUFFIX = ".status"  # of the socket's name, which begins with the pid
BACKLOG = 8
TIMEOUT = 2.0  # seconds for a client to read
PAUSE = 0.1  # seconds until there may be a descriptor for a client again
VARIABLE = "ANYFORK_STATUS"


class Observation:
    """The socket of this process, and the pools that it tells about. Pools are not kept alive."""

    def __init__(self) -> None:
        self.pools: list[ref[Observable]] = []
        self._lock = RLock()
        self._listener: socket | None = None
        self._directory = -1
        self._registered = self._refused = False

    def is_on(self) -> bool:
        """Return whether the program offers its state; begin with it if the environment asks for it."""
        if self._listener is None and not self._refused and os.environ.get(VARIABLE, "0") not in ("", "0"):
            try:
                self.begin()
            except (OSError, RuntimeError) as error:  # the program has not asked for it, and goes on
                import logging

                self._refused = True
                logging.getLogger("anyfork").warning("%s has no effect in this program: %s", VARIABLE, error)
        return self._listener is not None

    def add(self, pool: Observable) -> None:
        """Tell about this pool, too, as long as it exists."""
        from weakref import ref

        self.pools.append(ref(pool, self.pools.remove))

    def begin(self) -> None:
        """Listen at the socket, in a thread. Raises OSError, and RuntimeError if no thread can be started."""
        with self._lock:
            if self._listener is None:
                self._begin()

    def _begin(self) -> None:
        import atexit

        from _anyfork_client.place import UnusableError, open_directory

        try:
            self._directory = open_directory()
        except UnusableError as error:
            raise OSError(f"observe() cannot offer a socket: {error}") from error
        try:
            self._unlink()  # of an earlier process with this pid
            self._listener = self._listen()
        except BaseException:
            os.close(self._directory)
            raise
        if not self._registered:
            self._registered = True
            atexit.register(self._end)
            os.register_at_fork(after_in_child=self._forget)

    def _listen(self) -> socket:
        import threading
        from socket import AF_UNIX, SHUT_RDWR, SOCK_STREAM, socket

        from _anyfork_client.place import file_in

        from .._system.threads import start_thread

        listener = socket(AF_UNIX, SOCK_STREAM)
        try:
            listener.bind(file_in(self._directory, f"{os.getpid()}{SUFFIX}"))
            listener.listen(BACKLOG)
            start_thread(threading.Thread(target=self._serve, args=(listener,), name="anyfork status", daemon=True))
        except BaseException:
            listener.shutdown(SHUT_RDWR)  # ends the thread, if it runs
            listener.close()
            self._unlink()
            raise
        return listener

    def _serve(self, listener: socket) -> None:
        """Answer each client. Runs in a thread of its own."""
        while True:
            try:
                client, _ = listener.accept()
            except OSError:  # the client has ended, or there is no descriptor for it
                if listener.fileno() < 0:  # the program ends
                    return
                time.sleep(PAUSE)  # no event tells of a free descriptor
                continue
            with client:
                try:
                    self._answer(client)
                except (OSError, ImportError):  # the client has ended, or there is no descriptor to load a module
                    pass

    def _answer(self, client: socket) -> None:
        import json

        from _anyfork_client.messages import peer

        client.settimeout(TIMEOUT)
        if peer(client)[1] == os.geteuid():
            pools = [pool.snapshot() for known in [*self.pools] if (pool := known()) is not None]
            client.sendall(json.dumps({"pid": os.getpid(), "pools": pools}).encode())

    def _unlink(self) -> None:
        try:
            os.unlink(f"{os.getpid()}{SUFFIX}", dir_fd=self._directory)
        except FileNotFoundError:
            pass

    def _end(self) -> None:
        """Remove the socket at the end of the program."""
        if self._listener is not None:
            self._unlink()
            self._forget()

    def _forget(self) -> None:
        """Close the socket without removing it. Runs in a forked copy of the owner, too, which has pools of its own."""
        self._lock = RLock()  # another thread may have held it
        listener, self._listener = self._listener, None
        self.pools.clear()
        if listener is not None:
            listener.close()
            os.close(self._directory)


observation = Observation()


def observe() -> None:
    """Offer ``anyfork top`` the state of this program, at a socket that only programs of the same user can reach.

    It tells about the pools that are made from now on. Calling it twice is harmless. Setting the variable
    ``ANYFORK_STATUS`` to 1 does the same when the program makes its first pool. Raises OSError, and
    RuntimeError if no thread can be started.

    For example::

        import anyfork

        anyfork.observe()
        with anyfork.Executor(max_workers=2, name="resize") as executor:
            executor.submit(pow, 2, 10).result()
    """
    observation.begin()


def snapshot_of(scheduler: Scheduler, kind: str, name: str, now: float) -> dict[str, Any]:
    """Return the numbers of a pool, its workers and what they do, and why the last start of a worker failed."""
    stats = asdict(scheduler.stats())
    del stats["pids"]
    errors = [str(source.error) for source in scheduler.sources if source.error is not None]
    workers = [_worker(worker, scheduler.limits.concurrent, now) for worker in scheduler.workers.all()]
    return {"kind": kind, "name": name, "stats": stats, "error": "\n".join(errors), "workers": workers}


def _worker(worker: WorkerRecord, concurrent: bool, now: float) -> dict[str, Any]:
    jobs = [*worker.jobs]
    running = [job.label for job in jobs if job.state in (JobState.RUNNING, JobState.GIVEN_UP)]
    pooled_worker = worker.pooled_worker
    return {
        "pid": None if pooled_worker is None else pooled_worker.pid,
        "state": worker.state.name.lower(),
        "running": running,
        "seconds": now - worker.began if running and not concurrent else None,
        "waiting": len(jobs) - len(running),
        "calls": worker.calls,
        "age": now - worker.born,
        "generation": worker.generation,
    }

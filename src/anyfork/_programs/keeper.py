"""The keeper: it listens in the user's own directory, has templates, and leaves when nobody needs it any longer."""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from _signal import SIG_IGN, SIGHUP, SIGINT, signal
from _socket import AF_UNIX, SOCK_STREAM
from select import POLLIN, poll

from _anyfork_client.arguments import RunArguments
from _anyfork_client.launch import LOCK
from _anyfork_client.messages import LostError, peer, receive, send
from _anyfork_client.place import PATH, SUFFIX, file_in, inheritance, key, read_status

from .._blocking.generation import NotWarmError
from .kept_program import run
from .kept_templates import KeptTemplates, Recipe
from .learned import Learned
from .unused_files import remove_unused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from socket import socket
    from typing import Any

    from .._blocking.generation import Generation
    from .kept_templates import KeptTemplate

BACKLOG = 128
REQUEST_TIMEOUT = 10.0  # seconds for a client to say what it wants
LOOK_AROUND = 5.0  # seconds between two looks whether the keeper is still needed
PAUSE = 0.1  # seconds until there may be a descriptor for a connection again
MOST_TIMES = 1000  # commands whose last run is remembered
UNLIMITED = (
    resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_DATA, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE,
    resource.RLIMIT_NPROC,
)  # fmt: skip


def main(arguments: Sequence[str]) -> None:
    """Be a keeper. The arguments are its directory, its name, the descriptor of its lock, and those of ``run``."""
    place, name, lock, *first = arguments
    sys.argv[:] = [""]
    for number in (SIGINT, SIGHUP):  # of the terminal where its first client runs
        signal(number, SIG_IGN)
    for limit in UNLIMITED:  # each program has its client's; the keeper would run into them later
        resource.setrlimit(limit, (resource.getrlimit(limit)[1],) * 2)
    directory = os.open(place, PATH)
    keeper = Keeper(directory, name, int(lock))
    try:
        keeper.begin(RunArguments(first))
        remove_unused(directory)
        keeper.serve()
    finally:
        keeper.close()


class Keeper:
    """A socket in a directory, templates by their recipes, and the programs that run."""

    def __init__(self, directory: int, name: str, lock: int) -> None:
        from socket import socket

        self.options = sys.orig_argv[1 : sys.orig_argv.index("-c")]
        status = read_status()
        self.key = key(self.options, status, inheritance(status))
        self.since = time.monotonic()
        self.idle = 0.0  # seconds
        self._path = file_in(directory, name + SUFFIX)
        self._lock = threading.Lock()
        self._templates = KeptTemplates()
        self._learned = Learned(file_in(directory, name))
        self._clients: set[threading.Thread] = set()
        self._programs: dict[int, tuple[Sequence[str], float]] = {}
        self._times: dict[tuple[str, ...], float] = {}  # of the last warm run of each command, in seconds
        self._last_use = self.since
        self._leaving = False
        self._end_of_wait = os.eventfd(0)
        self._listener = socket(AF_UNIX, SOCK_STREAM)
        self._listener.bind(self._path)
        self._listener.listen(BACKLOG)
        self._files = {self._path: os.stat(self._path), file_in(directory, name + LOCK): os.fstat(lock)}

    def begin(self, first: RunArguments) -> None:
        """Make the templates that the first client would have needed."""
        self.idle = first.idle * 60
        learned = None if first.preload else self._learned.latest(first.kind, first.target, first.watch)
        for recipe in (learned, Recipe(tuple(first.preload), tuple(first.watch))):
            if recipe is not None:
                self._kept(recipe).prepare(os.environb)

    def serve(self) -> None:
        """Answer clients, each in a thread of its own, until nobody has needed this keeper for a time."""
        waiting = poll()
        for fd in (self._listener.fileno(), self._end_of_wait):
            waiting.register(fd, POLLIN)
        while not self._is_superfluous():
            if waiting.poll(min(LOOK_AROUND, self.idle) * 1000) and not self._leaving:
                self._accept()

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:  # the client has ended, or there is no descriptor for it
            time.sleep(PAUSE)
            return
        thread = threading.Thread(target=self._answer, args=(sock,), name="anyfork client")
        with self._lock:
            self._clients.add(thread)
        try:
            thread.start()
        except RuntimeError:  # there can be no more threads now: the program starts cold
            with self._lock, sock:
                self._clients.discard(thread)

    def close(self) -> None:
        """Let all templates end, and wait for the programs that run."""
        self._listener.close()
        self._leave_place()
        self._templates.close()
        while self._clients:
            with self._lock:
                thread = next(iter(self._clients), None)
            if thread is not None:
                thread.join()

    def _is_superfluous(self) -> bool:
        with self._lock:
            unused = not self._clients and time.monotonic() - self._last_use >= self.idle
        return self._leaving or unused or not self._has_place()

    def _has_place(self) -> bool:
        return _is_file(self._path, self._files[self._path])

    def _leave_place(self) -> None:
        """Make room for another keeper, while programs of this one may still run."""
        for path, own in self._files.items():
            try:
                if _is_file(path, own):
                    os.unlink(path)
            except FileNotFoundError:  # another thread, or the user, was faster
                pass

    def _answer(self, sock: socket) -> None:
        """Do what one client wants. Runs in a thread of its own."""
        try:
            with sock:
                self._serve_client(sock)
        except (LostError, OSError):  # the client has ended
            pass
        finally:
            with self._lock:
                self._last_use = time.monotonic()
                self._clients.discard(threading.current_thread())

    def _serve_client(self, sock: socket) -> None:
        if peer(sock)[1] != os.geteuid():
            return
        sock.settimeout(REQUEST_TIMEOUT)
        command, request = receive(sock)
        if command == "status":
            send(sock, ("status", self._status()))
        elif command == "stop":
            self._stop(sock)
        elif command == "time":
            send(sock, ("time", self._times.get(_command(request)) if request["key"] == self.key else None))
        elif request["key"] != self.key:
            send(sock, ("cold", "the keeper was started in another environment"))
        else:
            self._run(sock, request)

    def _run(self, sock: socket, request: dict[str, Any]) -> None:
        self.idle = request["idle"] * 60
        learns = not request["preload"]
        recipes = self._learned.recipes(request) if learns else [_asked(request)]
        try:
            kept, made = self._choose(recipes, request["env"])
            if learns:
                request["imports_to"] = self._learned.new_address()
            if run(sock, kept, made, request, self._programs):
                self._note_time(request)
        except NotWarmError as why:
            send(sock, ("cold", str(why)))
        finally:
            recipe = self._learned.learn(request) if learns else None
            if recipe is not None:
                self._kept(recipe).prepare(request["env"])

    def _note_time(self, request: dict[str, Any]) -> None:
        """Note how long a program took, from the start of its client to its end."""
        command = _command(request)
        with self._lock:
            self._times.pop(command, None)
            self._times[command] = time.monotonic() - request["began"]
            if len(self._times) > MOST_TIMES:
                del self._times[next(iter(self._times))]

    def _choose(self, recipes: Sequence[Recipe], env: Mapping[bytes, bytes]) -> tuple[KeptTemplate, Generation]:
        """Return the first template that is up to date. Raises NotWarmError for the reason of the last one."""
        for recipe in recipes[:-1]:
            try:
                kept = self._kept(recipe)
                return kept, kept.get(env)
            except NotWarmError:  # the template of what was known before serves meanwhile
                continue
        kept = self._kept(recipes[-1])
        return kept, kept.get(env)

    def _kept(self, recipe: Recipe) -> KeptTemplate:
        return self._templates.get(recipe, self.options, os.environb)

    def _stop(self, sock: socket) -> None:
        self._leaving = True
        self._leave_place()
        os.eventfd_write(self._end_of_wait, 1)
        send(sock, ("stopped", os.getpid()))

    def _status(self) -> dict[str, Any]:
        now = time.monotonic()
        templates = [kept.status(now) for kept in self._templates.all()]
        with self._lock:
            programs = [(pid, [*line], now - since) for pid, (line, since) in self._programs.copy().items()]
        return {
            "pid": os.getpid(),
            "python": sys.executable,
            "options": self.options,
            "age": now - self.since,
            "idle": self.idle,
            "templates": templates,
            "programs": programs,
        }


def _command(request: dict[str, Any]) -> tuple[str, ...]:
    """Return the command line of a request, and its directory."""
    return *request["line"], request["directory"]


def _asked(request: dict[str, Any]) -> Recipe:
    return Recipe(tuple(request["preload"]), tuple(request["watch"]))


def _is_file(path: str, own: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), own)
    except OSError:
        return False

"""Templates: the blocking face."""

from __future__ import annotations

import _socket
import os

from _anyfork_child._wire import EXECUTE, PRELOAD, PREPARE, PROGRAM, SEND, START

from ._arguments import Encoded, encode_call, encode_values
from ._attributes import encode_attributes
from ._delivery import when_free
from ._dialogue import hand_over, prepare
from ._errors import ArgumentError
from ._forks import NOTHING, adopt, fork, fork_default, fork_exec, take_over
from ._process import Process
from ._waiting import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence
    from typing import Self, Unpack

    from ._attributes import Attributes
    from ._link import Link


class Template:
    """A process that has not been told to run anything yet: prepare it, fork it, and let a function take it over.

    ``Template()`` is a fork of the default template, a clean interpreter that is started at the first need.

    All methods but ``ready``, ``run``, ``run_program`` and ``detach`` return at once. What they ask for happens in
    order in the template, and what fails there is raised by the next ``ready`` or ``run`` of this template or of
    anything forked from it later. Every handle may be used from any thread.
    """

    __slots__ = ("__weakref__", "_link")
    _link: Link

    def __init__(self) -> None:
        self._link = fork_default({}, NOTHING)

    @classmethod
    def _of(cls, link: Link) -> Self:
        template = cls.__new__(cls)
        template._link = link
        return template

    @classmethod
    def new_exec(
        cls,
        *,
        python: str | os.PathLike[str] | None = None,
        flags: Sequence[str] | None = None,
        **attributes: Unpack[Attributes],
    ) -> Self:
        """Start a fresh interpreter as a template.

        It shares nothing with other templates: it has its own address space layout and hash seed, and sees the
        present environment, directory and limits of this program. ``python`` is the interpreter (by default
        ANYFORK_PYTHON or the running one), ``flags`` are its options (by default those of this program), and
        ``attributes`` are those of ``fork``. Raises ArgumentError, and LaunchError where no interpreter is found;
        one that does not start is a LaunchError of ``ready`` or ``run``.
        """
        return cls._of(fork_exec(python, flags, attributes))

    @classmethod
    def from_socket(cls, sock: socket.socket) -> Self:
        """Take over a template whose handle was given up by ``detach``, in this or in another process.

        ``sock`` is used up. The template ends when this process does. Raises ArgumentError for anything but a
        connected Unix stream socket.
        """
        return cls._of(adopt(sock))

    def detach(self) -> socket.socket:
        """Give up the handle: everything queued is flushed, and the socket returned moves it to another process.

        Send the socket there and use ``Template.from_socket``. Closing it instead ends the template.
        """
        import socket

        return socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, run(hand_over(self._link)))

    @property
    def pid(self) -> int | None:
        """Its process id, once it is known: after ``ready``."""
        return self._link.session.pid

    def preload(self, *modules: str) -> Self:
        """Import modules in the template. A failure is a PreloadError of the next ``ready`` or ``run``."""
        for module in modules:
            if not isinstance(module, str) or not all(part.isidentifier() for part in module.split(".")):
                raise ArgumentError(f"preload() needs names of modules, not {module!r}")
        return self._send("preload", PRELOAD, encode_values("preload", modules))

    def execute(self, code: str, *args: object) -> Self:
        """Run code in the template's ``__main__``, where ``args`` is the tuple of the arguments.

        Functions defined there can be run by their name alone. A failure is an ExecuteError of the next ``ready``
        or ``run``.
        """
        if not isinstance(code, str):
            raise ArgumentError(f"execute() needs code as a str, not {type(code).__name__}")
        return self._send("execute", EXECUTE, encode_values("execute", (code, *args)))

    def prepare(self, function: Callable[..., object] | str, /, *args: object) -> Self:
        """Call a function in the template: load a model, warm a cache. Its result is dropped.

        A failure is a PrepareError of the next ``ready`` or ``run``.
        """
        return self._send("prepare", PREPARE, encode_call("prepare", function, args))

    def send(self, *args: object) -> Self:
        """Queue positional arguments for the function, descriptors included. Forks get a copy of the queue.

        Values are taken as they are now, descriptors are duplicated. Raises ArgumentError naming what cannot travel.
        """
        return self._send("send", SEND, encode_values("send", args))

    def fork(self, **attributes: Unpack[Attributes]) -> Template:
        """Make a clone of this template: loaded code, data, queued arguments; later changes to either are its own.

        The attributes are given to the new process in this order: ``new_session`` (bool: setsid), ``nice`` (added to
        the present value), ``rlimits`` ({resource.RLIMIT_x or "NOFILE": limit or (soft, hard)}), ``umask``, ``cwd``
        (path or open directory), ``stdin``, ``stdout``, ``stderr`` (a file, a descriptor, DEVNULL, or CHANNEL, which
        connects the process's channel when its function is entered), ``title`` (as ps shows it), ``extra_groups``,
        ``group``, ``user`` (names or numbers), ``env`` (replaces the whole environment). With ``detached=True`` it
        survives the owner's end, once a function runs in it. One that is refused is an AttributeRefusedError of the
        next ``ready`` or ``run``; one that makes no sense is an ArgumentError now.
        """
        self._link.check("fork")
        encoded = encode_attributes("fork", attributes) if attributes else NOTHING
        return Template._of(fork(self._link, attributes, encoded))

    def ready(self, timeout: float | None = None) -> Self:
        """Wait until all of the above is done; raise what failed.

        With a ``timeout``, in seconds, raises TimeoutError when that is over; the template goes on.
        """
        run(prepare(self._link, timeout))
        return self

    def start(self, function: Callable[..., object] | str, /, *args: object) -> Process:
        """Let ``function(channel, *sent, *args)`` take the process over, and return at once.

        ``channel`` is a connected stream socket to this program. ``function`` is a function or its name as
        ``"package.module:qualified.name"``, or ``"name"`` for one that ``execute`` defined. This handle is used up. A
        template that has been forked stays behind until its forks have ended, and a clone of it runs the function.
        """
        return self._start("start", START, encode_call("start", function, args))

    def run(self, function: Callable[..., object] | str, /, *args: object, timeout: float | None = None) -> Process:
        """As ``start``, and wait until the function has been entered; raise why it was not.

        ``timeout`` is in seconds, as in ``Process.ready``.
        """
        return self._start("run", START, encode_call("run", function, args))._ready_or_gone(timeout)

    def run_program(
        self, argv: Sequence[str | bytes | os.PathLike[str]], /, *, timeout: float | None = None
    ) -> Process:
        """Replace the process by a program, found by PATH, and wait until it has been executed.

        It has the standard streams of the process; make them with ``fork(stdin=..., stdout=...)``, CHANNEL among
        others. It gets no other descriptors and no arguments of ``send``. Raises ProgramError where it cannot be
        executed.
        """
        if isinstance(argv, str | bytes):
            raise ArgumentError("run_program() needs a sequence of arguments, not one string")
        try:
            encoded = [os.fsencode(part) for part in argv]
        except TypeError as error:
            raise ArgumentError(f"run_program() needs strings or paths: {error}") from error
        if not encoded:
            raise ArgumentError("run_program() needs at least the program's name")
        call = encode_values("run_program", encoded)
        return self._start("run_program", PROGRAM, call)._ready_or_gone(timeout)

    def close(self) -> None:
        """Let the template end. What is queued is still done, and what was forked from it goes on.

        Closing twice is harmless. Dropping the last reference does the same.
        """
        self._link.close_template()

    def _send(self, call: str, kind: int, encoded: Encoded) -> Self:
        self._link.check(call)
        frame, made = encoded.frame(kind)
        self._link.send(frame, own=made)
        return self

    def _start(self, call: str, kind: int, encoded: Encoded) -> Process:
        self._link = take_over(self._link, call, kind, encoded)
        return Process._of(self._link)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_link"):
            when_free(self._link, self._link.close_template)

    def __repr__(self) -> str:
        session = self._link.session
        return f"<Template pid={session.pid} {session.phase.value} forks={session.forks}>"

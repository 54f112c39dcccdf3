"""The handles of both faces: the part that returns at once."""

from __future__ import annotations

import os
from _signal import SIGKILL, SIGSTOP, SIGTERM
from _thread import RLock

from _anyfork_child.wire.frames import EXECUTE, IMMORTALIZE, PRELOAD, PREPARE, PROGRAM, SEND, START
from _anyfork_child.wire.platform import LINUX
from _anyfork_child.wire.process_tree import kill_descendants

from .._errors import AnyforkError, ArgumentError, HandleError, StatusUnknownError
from .._system.import_path import ORDINARY
from .._system.pipes import streams_of
from .._system.polling import is_ready
from .._system.signatures import overload
from .arguments import (
    CALLS,
    NEEDED,
    Stays,
    encode_async_call,
    encode_call,
    encode_program,
    encode_values,
    refused_keywords,
)
from .attributes import encode_attributes
from .flows import check
from .session import MOVED, RUNNING, STARTING, Session
from .start import (
    NOTHING,
    add_next_spare,
    adopt,
    fork,
    fork_contained,
    fork_default,
    fork_exec,
    keep_spares,
    take_over,
    warm_parent,
    warm_template,
)
from .undelivered import destructor, when_free

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence
    from typing import Literal, NoReturn, Self, TypeAlias, TypeVar, Unpack

    from _anyfork_child.values.encode import Encoded
    from _anyfork_child.values.functions_by_value import Receiver

    from .._system.signatures import Arguments
    from .arguments import Argument, Kind, Signals
    from .attributes import Attributes
    from .link import Link

    Made = TypeVar("Made")
    Backend: TypeAlias = Literal["asyncio", "trio"]

TAKEN_OVER = (STARTING, RUNNING)


class _Moved:
    """The link of a handle that was given up for another handle."""

    def __init__(self) -> None:
        self.session = Session()
        self.session.phase = MOVED
        self.foreign = self.unclaimed = False
        self.lock = RLock()
        self.outbox = ()
        self.streams = None
        self.spares = self.origin = None
        self.remote = False
        self.receiver = ORDINARY

    def check(self, call: str) -> NoReturn:
        """Raise HandleError."""
        raise HandleError(f"{call}() on a handle that was moved to another one: use that one")

    def close_template(self) -> None:
        """Do nothing: no link is left to close."""

    drop_process = close_template


class _Unmade(_Moved):
    """The link of a handle whose template is still to be made: it passes all checks, and nobody uses it."""

    def __init__(self, receiver: Receiver) -> None:
        super().__init__()
        self.receiver = receiver

    def check(self, call: str) -> None:  # type: ignore[override]  # it raises nothing
        """Do nothing."""

    def check_descriptors_stay_here(self, call: str, encoded: Encoded) -> None:
        """Do nothing."""


def _moved() -> Link:
    return _Moved()  # type: ignore[return-value]  # it has all that a handle uses of such a link


class TemplateHandle(Stays):
    """A template's handle: the part that awaits nothing."""

    __slots__ = ("__weakref__", "_link")
    _link: Link
    _instead = "pass the socket that its detach() returns, and use Template.from_socket() there"

    def __init__(self) -> None:
        self._link = fork_default({}, NOTHING)
        self._link.hold()
        if self._link.held is None:
            self._queued()

    @classmethod
    def _of(cls, link: Link) -> Self:
        template = cls.__new__(cls)
        template._link = link
        link.hold()
        if link.held is None:
            template._queued()
        return template

    @classmethod
    def _unmade(cls, receiver: Receiver) -> Self:
        """Return a handle that stands for a template that is still to be made."""
        template = cls.__new__(cls)
        template._link = _Unmade(receiver)  # type: ignore[assignment]  # it has all that is used of it
        return template

    def _queued(self) -> None:
        """Let a face that can deliver the rest of a queue do so, after something was queued on a link."""

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
        ``attributes`` are those of ``fork``. Raises ArgumentError, and LaunchError if no interpreter is found;
        an interpreter that does not start is a LaunchError of ``ready`` or ``run``.

        For example::

            import anyfork

            template = anyfork.Template.new_exec(flags=["-O"])
            template.ready()
        """
        return cls._of(fork_exec(python, flags, attributes))

    @classmethod
    def from_socket(cls, sock: socket.socket) -> Self:
        """Take over a template whose handle was given up by ``detach``, in this or in another process.

        ``sock`` is used up. The template ends when this process does. Raises ArgumentError for anything but a
        connected Unix stream socket.

        For example::

            import anyfork

            sock = anyfork.Template().preload("json").detach()    # send it to another process, or
            template = anyfork.Template.from_socket(sock)
        """
        return cls._of(adopt(sock))

    @property
    def pid(self) -> int | None:
        """The template's process id, known after ``ready``; None before.

        For example::

            import anyfork

            print(anyfork.Template().ready().pid)
        """
        return self._link.session.pid

    def preload(self, *modules: str) -> Self:
        """Import modules in the template. A failure is a PreloadError of the next ``ready`` or ``run``.

        For example::

            import anyfork

            template = anyfork.Template().preload("json", "email.mime.text")
            template.ready()
        """
        check_modules("preload", modules)
        return self._send("preload", PRELOAD, encode_values("preload", modules))

    def execute(self, code: str, *args: object) -> Self:
        """Run code in the template's ``__main__``, where ``args`` is the tuple of the arguments.

        Functions defined there can be run by their name alone. A failure is an ExecuteError of the next ``ready``
        or ``run``.

        For example::

            import anyfork

            template = anyfork.Template().execute("limit = args[0]", 100)
            assert anyfork.call(eval, "__import__('__main__').limit", template=template) == 100
        """
        if not isinstance(code, str):
            raise ArgumentError(f"execute() needs code as a str, not {type(code).__name__}")
        return self._send("execute", EXECUTE, encode_values("execute", (code, *args), self._link.receiver))

    @overload
    def prepare(self, function: Callable[[*Arguments], object], /, *args: *Arguments) -> Self: ...
    @overload
    def prepare(self, function: str, /, *args: object) -> Self: ...
    def prepare(self, function: Callable[..., object] | str, /, *args: object, **keywords: object) -> Self:
        """Call a function in the template: load a model, warm a cache. Its result is dropped.

        A failure is a PrepareError of the next ``ready`` or ``run``.

        For example::

            import anyfork

            template = anyfork.Template().prepare("locale:setlocale", 0, "C")
            template.ready()
        """
        if keywords:
            raise refused_keywords("prepare", function, keywords)
        return self._send("prepare", PREPARE, encode_call("prepare", function, args, self._link.receiver))

    def send(self, *args: object) -> Self:
        """Queue positional arguments for the function, descriptors included. Forks get a copy of the queue.

        Values are taken as they are now, descriptors are duplicated. Raises ArgumentError, which names the value that
        cannot travel.

        For example::

            import anyfork

            def greet(channel, greeting, name):
                with channel:
                    channel.sendall(f"{greeting}, {name}!".encode())

            template = anyfork.Template().send("Hello")
            with template.fork().run(greet, "Ada") as process:
                assert process.channel.recv(100) == b"Hello, Ada!"
        """
        return self._send("send", SEND, encode_values("send", args, self._link.receiver))

    def immortalize(self) -> Self:
        """Make all objects immortal that the template has at its next fork, and at later ones what it has added.

        Processes then share them even after they have used them, because nobody counts references to immortal objects
        any more. But nothing of it is freed or closed before the end of its process. Needs CPython 3.12, 3.13 or 3.15
        with a GIL; elsewhere it does nothing, and the log says so.

        For example::

            import sys
            import anyfork

            if sys.version_info[:2] in ((3, 12), (3, 13), (3, 15)):
                template = anyfork.Template().preload("json").immortalize().ready()
        """
        return self._send("immortalize", IMMORTALIZE, NOTHING)

    def keep_spares(self, maximum: int | None) -> Self:
        """Have this many forks ready before anybody asks for them, so that functions are entered sooner.

        None means as many as the starts ask for: one spare while processes are started one at a time with pauses of
        5 ms to a minute, and none during a burst, or when starts are rarer.

        ``fork`` without attributes hands out such a spare if there is one; the next spare is made once the function of
        that process has been entered and its handle is used. Spares end when the template is changed, and when it is
        closed; ``ready`` and later starts make new ones. There are none while the program has one CPU only, or little
        memory is left. 0, as at first, ends them. Raises ArgumentError.

        For example::

            import anyfork

            template = anyfork.Template().preload("json").keep_spares(None)
            with template.fork().run_code("pass") as process:
                assert process.wait().code == 0
        """
        number = isinstance(maximum, int) and not isinstance(maximum, bool) and maximum >= 0
        if not (number or maximum is None):
            raise ArgumentError(f"keep_spares() needs a number of processes, 0 or more, or None, not {maximum!r}")
        self._link.check("keep_spares")
        keep_spares(self._link, maximum)
        self._queued()
        return self

    def fork(self, **attributes: Unpack[Attributes]) -> Self:
        """Make a clone of this template: loaded code, data, queued arguments. Later changes affect only one of the two.

        The attributes are applied to the new process in this order: ``before`` (a function without arguments, which is
        called there, for namespaces and mounts), ``new_session`` (bool: setsid), ``nice`` (added to
        the present value), ``rlimits`` ({resource.RLIMIT_x or "NOFILE": limit or (soft, hard)}), ``umask``, ``cwd``
        (path or open directory), ``stdin``, ``stdout``, ``stderr`` (a file, a descriptor, DEVNULL, PIPE, which gives
        the process handle an attribute of that name, CHANNEL, which connects the process's channel when its function is
        entered, or for ``stderr`` STDOUT), ``title`` (as ps shows it), ``extra_groups``,
        ``group``, ``user`` (names or numbers; a user without a group gets its own groups), ``env`` (replaces the whole
        environment). With ``detached=True`` the process survives the owner's end, once a function runs in it. With
        ``contain=True`` everything that the process and its forks start, daemons included, is killed at its end. An
        attribute that the system refuses is an AttributeRefusedError of the next ``ready`` or ``run``; an invalid
        attribute is an ArgumentError now.

        For example::

            import anyfork

            template = anyfork.Template().preload("json")
            with template.fork(cwd="/", nice=5, stdout=anyfork.DEVNULL).run_code("print(1)") as process:
                assert process.wait().code == 0
        """
        self._link.check("fork")
        if not attributes:
            return type(self)._of(fork(self._link, {}, NOTHING))
        encoded = encode_attributes("fork", attributes, self._link.receiver)
        try:
            self._link.check_descriptors_stay_here("fork", encoded)
            start = fork_contained if attributes.get("contain") else fork
            link = start(self._link, attributes, encoded)
        finally:
            encoded.close_made()
        link.streams = streams_of(encoded.pipes)
        if encoded.by_value:
            warm_template(self._link, "cloudpickle.cloudpickle")
        return type(self)._of(link)

    def close(self) -> None:
        """Let the template end. Queued work is still done, and processes forked from it go on.

        Closing twice is harmless. Dropping the last reference has the same effect.

        For example::

            import anyfork

            template = anyfork.Template()
            process = template.fork().run_code("print('goes on')")
            template.close()
            process.wait()
        """
        self._link.close_template()
        self._queued()

    def _send(self, call: str, kind: int, encoded: Encoded) -> Self:
        self._link.check(call)
        self._link.check_descriptors_stay_here(call, encoded)
        self._link.post(kind, encoded)
        self._queued()
        return self

    def _take_over(
        self,
        make: Callable[[Link], Made],
        call: str,
        function: Callable[..., object] | str,
        args: Sequence[object],
        backend: Backend | None,
    ) -> Made:
        """Let a function take over the process, and make the process's handle; this handle is used up."""
        if backend is None:
            encoded = encode_call(call, function, args, self._link.receiver)
        else:
            encoded = encode_async_call(call, backend, function, args, self._link.receiver)
        return self._begin(make, call, START, encoded)

    def _take_over_by_program(self, make: Callable[[Link], Made], argv: Sequence[Argument]) -> Made:
        """Let a program take over the process, and make the process's handle; this handle is used up."""
        return self._begin(make, "run_program", PROGRAM, encode_values("run_program", _arguments(argv)))

    def _take_over_by_python(
        self,
        make: Callable[[Link], Made],
        kind: Kind,
        target: Argument,
        argv: Sequence[Argument],
        starter: Sequence[object] = (),
        signals: Signals | None = None,
    ) -> Made:
        """Let a Python program take over the process, and make the process's handle; this handle is used up."""
        encoded = encode_program(kind, target, argv, bool(self._link.session.host), starter, signals)
        process = self._begin(make, CALLS[kind], START, encoded)
        for module in NEEDED:
            warm_parent(self._link, module)
        return process

    def _begin(self, make: Callable[[Link], Made], call: str, kind: int, encoded: Encoded) -> Made:
        try:
            self._link = take_over(self._link, call, kind, encoded)
            self._link.unclaimed = call != "start"
            self._queued()
            return make(self._link)
        except AnyforkError:
            raise
        except BaseException:  # the caller gets no handle
            if self._link.session.phase is STARTING:
                self._link.abandon()
            raise

    def _give_up(self, call: str) -> Link:
        """Hand the link over to another handle; this handle is used up."""
        link = self._link
        link.check(call)
        self._link = _moved()
        return link

    def _movable(self) -> Link:
        """Return the link to a template that can be detached.

        If the template is a child of this process, which alone can reap it, that is the link to a clone of it.
        """
        link = self._link
        link.check("detach")
        if link.child:
            self._link = fork(link, {}, NOTHING)
            self._link.hold()
            link.close_template()
        return self._link

    @destructor
    def __del__(self) -> None:
        # A process has its own handle, and never becomes a template again.
        if hasattr(self, "_link") and self._link.session.phase not in TAKEN_OVER:
            when_free(self._link, self._link.close_template)

    def __repr__(self) -> str:
        session = self._link.session
        compiled = "" if session.compiled is None else f" compiled={session.compiled}"
        spares = self._link.spares
        ready = "" if spares is None else f" spares={len(spares)}"
        forks = session.forks if spares is None else session.forks - spares.unused
        return f"<Template pid={session.pid} {session.phase.value} forks={forks}{ready}{compiled}>"


def _arguments(argv: Sequence[Argument]) -> list[bytes]:
    if isinstance(argv, str | bytes):
        raise ArgumentError(
            "run_program() needs a sequence of arguments, not one string: write ['ls', '-l'], not 'ls -l'"
        )
    try:
        encoded = [os.fsencode(part) for part in argv]
    except TypeError as error:
        raise ArgumentError(f"run_program() needs strings or paths: {error}") from error
    if not encoded:
        raise ArgumentError("run_program() needs at least the program's name")
    return encoded


def count_spares(template: object) -> int:
    """Return how many spares a template keeps; 0 for anything else that has templates."""
    spares = template._link.spares if isinstance(template, TemplateHandle) else None
    return 0 if spares is None else len(spares)


class HasTemplates(Stays):
    """An object with templates of its own: a pool, or a ``Warm``."""

    __slots__ = ()

    def _templates(self, call: str) -> Sequence[TemplateHandle]:
        """Return the present templates. Raises ArgumentError if one cannot be prepared, and what prevents one."""
        raise NotImplementedError


class TemplateSource(HasTemplates):
    """What has a new template at hand whenever one is needed: the common base of ``Warm`` in the faces."""

    __slots__ = ()
    _instead = "make another one there"

    def fork(self, **attributes: Unpack[Attributes]) -> TemplateHandle:
        """Return a new template, which is the caller's. Each face implements this."""
        raise NotImplementedError

    def _fork_for(self, call: str, until: float | None, attributes: Attributes) -> TemplateHandle:
        """Do the same as ``fork`` for a call, which errors name. Raises NotInTimeError at a deadline, too."""
        raise NotImplementedError


def check_modules(call: str, names: Sequence[str]) -> None:
    """Raise ArgumentError for what is not the name of a module."""
    for name in names:
        if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
            raise ArgumentError(f"{call}() needs names of modules, as in {call}('os', 'json'), not {name!r}")


def check_template(call: str, template: object) -> None:
    """Raise ArgumentError for an object that is not a template."""
    if not isinstance(template, TemplateHandle):
        what = f"the class {template.__name__}" if isinstance(template, type) else type(template).__name__
        raise ArgumentError(f"{call}() needs a template, as anyfork.Template() makes one, not {what}")


class ProcessHandle(Stays):
    """A process's handle: the part that awaits nothing."""

    __slots__ = ("__weakref__", "_link")
    _link: Link
    _instead = "pass its pid or its channel"

    def __init__(self) -> None:
        raise TypeError("processes are made by Template.start, run and run_program, not by Process()")

    @property
    def pid(self) -> int | None:
        """The process id, known after ``ready``; None before.

        For example::

            import anyfork

            with anyfork.Template().run_code("pass") as process:
                print(process.pid)
        """
        return self._link.session.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, or the negative number of the signal, as of the last ``wait`` or ``poll``; None before.

        Raises StatusUnknownError when the process has ended and its status is unknown.

        For example::

            import anyfork

            with anyfork.Template().run_code("raise SystemExit(3)") as process:
                process.wait()
                assert process.returncode == 3
        """
        status = self._link.session.status
        if status is None:
            return None
        if status.returncode is None:
            why = status.error or f"process {self.pid} has ended after its template"
            raise StatusUnknownError(f"the exit status of a process is unknown: {why}")
        return status.returncode

    @property
    def cold(self) -> str | None:
        """Why a new interpreter runs the program, if a Warm has started it; empty if the program runs warm.

        None as long as the program has not begun, and for all other processes.

        For example::

            import anyfork

            with anyfork.Warm("json") as warm:
                process = warm.run_code("import json")
                process.wait()
                assert process.cold == ""
        """
        look = self._link.why_cold
        return None if look is None else look()

    if TYPE_CHECKING:  # each face has its own: one waits for the birth, the other keeps the signal until then

        def send_signal(self, number: int) -> None:
            """Send the process a signal; do nothing if it has ended."""

        def _signal(self, number: int, use: str) -> None:
            """Do the same for the method that errors name, as check() does."""

        def fileno(self) -> int:
            """Return a descriptor that becomes readable when the process has ended."""

    def _leave(self) -> None:
        """Release the process, which goes on."""
        link = self._link
        if link.origin is not None:
            add_next_spare(link)
        when_free(link, link.end_unclaimed if link.unclaimed else link.drop_process)

    def _give_up(self, call: str) -> Link:
        """Hand the link over to another handle; this handle is used up."""
        link = self._link
        check(link, f"{call}()")
        if link.streams is not None and link.streams.opened:
            raise HandleError(f"{call}() on a process whose standard streams are in use: move it before you use them")
        self._link = _moved()
        return link

    def terminate(self) -> None:
        """Send SIGTERM to the process.

        For example::

            import anyfork

            with anyfork.Template().run_code("import signal; signal.pause()") as process:
                process.terminate()
                assert process.wait().signal == 15
        """
        self._signal(SIGTERM, "terminate()")

    def kill(self, *, tree: bool = False) -> None:
        """Send SIGKILL to the process, and with ``tree`` to all of its descendants, on Linux.

        A descendant whose parent has ended before, as a daemon's has, is not found. Raises PermissionError if a
        descendant may not be killed.

        For example::

            import anyfork

            with anyfork.Template().run_code("import signal; signal.pause()") as process:
                process.kill(tree=True)
                assert process.wait().signal == 9
        """
        if tree:
            self._kill_descendants()
        self._signal(SIGKILL, "kill()")

    def _kill_descendants(self) -> None:
        link = self._link
        if link.remote or not LINUX:
            where = link.session.host or "this system"
            raise ArgumentError(f"kill(tree=True) cannot find the processes on {where}: use kill(), for one process")
        self._signal(SIGSTOP, "kill()")
        link.read_news(link.ended)
        pid, pidfd = link.session.pid, link.session.pidfd
        if pid is None or link.session.status is not None or (pidfd >= 0 and is_ready(pidfd)):
            return  # not born, or ended: its number may belong to another process by now
        try:
            kill_descendants(pid)
        except BaseException:
            self._signal(SIGKILL, "kill()")
            raise

    def __repr__(self) -> str:
        session = self._link.session
        state = session.phase.value if session.status is None else str(session.status)
        return f"<Process pid={session.pid} {state}>"

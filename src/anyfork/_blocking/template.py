"""Templates, in the blocking face."""

from __future__ import annotations

from _anyfork_child.wire.own_imports import import_own

from .._processes.arguments import refused_keywords
from .._processes.flows import hand_over, prepare
from .._processes.handles import TemplateHandle, TemplateSource, check_template
from .._system.signatures import overload
from .process import Process
from .waiting import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence
    from typing import Self

    from .._processes.arguments import Argument
    from .._processes.handles import Backend
    from .._system.signatures import AnyEntry, Arguments, Entry, EntryAfterOne, EntryAfterTwo


class Template(TemplateHandle):
    """A process that runs nothing yet: prepare it, fork it, and let a function take it over.

    ``Template()`` is a fork of the default template, a clean interpreter that is started when it is first needed.

    All methods but ``ready``, ``detach`` and those that run something return at once. The template carries out their
    requests in order. If a request fails, the next ``ready`` or ``run`` of this template, or of anything forked from it
    later, raises the error. Every handle may be used from any thread.

    For example::

        import anyfork

        def greet(channel, name):
            with channel:
                channel.sendall(f"Hello, {name}!".encode())

        with anyfork.Template().preload("json") as template:
            with template.fork(nice=5).run(greet, "Ada") as process:
                assert process.channel.recv(100) == b"Hello, Ada!"
    """

    __slots__ = ()

    def ready(self, timeout: float | None = None) -> Self:
        """Wait until the template has carried out all requests so far; raise what failed.

        With a ``timeout``, in seconds, raise TimeoutError when that is over; the template goes on.

        For example::

            import anyfork

            try:
                anyfork.Template().preload("no_such_module").ready()
            except anyfork.PreloadError as error:
                assert error.module == "no_such_module"
        """
        run(prepare(self._link, timeout))
        return self

    @overload
    def start(self, function: Entry[*Arguments], /, *args: *Arguments, backend: Backend | None = ...) -> Process: ...
    @overload
    def start(
        self, function: EntryAfterOne[*Arguments], /, *args: *Arguments, backend: Backend | None = ...
    ) -> Process: ...
    @overload
    def start(
        self, function: EntryAfterTwo[*Arguments], /, *args: *Arguments, backend: Backend | None = ...
    ) -> Process: ...
    @overload
    def start(self, function: AnyEntry, /, *, backend: Backend | None = ...) -> Process: ...
    @overload
    def start(self, function: str, /, *args: object, backend: Backend | None = ...) -> Process: ...
    def start(
        self,
        function: Callable[..., object] | str,
        /,
        *args: object,
        backend: Backend | None = None,
        **keywords: object,
    ) -> Process:
        """Let ``function(channel, *sent, *args)`` take the process over, and return at once.

        ``channel`` is a connected stream socket to this program. ``function`` is a function or its name as
        ``"package.module:qualified.name"``, or ``"name"`` for a function that ``execute`` defined. This handle cannot
        be used afterwards. If the template has been forked, it stays behind until its forks have ended, and a clone of
        it runs the function.

        An async function gets its channel as an AnyIO Unix socket stream, and runs under asyncio or the ``backend``.

        For example::

            import anyfork

            def work(channel, number):
                with channel:
                    channel.sendall(b"x" * number)

            processes = [anyfork.Template().start(work, number) for number in (1, 2)]
            for process in processes:
                with process:
                    print(process.channel.makefile().read())
        """
        if keywords:
            raise refused_keywords("start", function, keywords, "backend")
        return self._take_over(Process._of, "start", function, args, backend)

    @overload
    def run(
        self,
        function: Entry[*Arguments],
        /,
        *args: *Arguments,
        timeout: float | None = ...,
        backend: Backend | None = ...,
    ) -> Process: ...
    @overload
    def run(
        self,
        function: EntryAfterOne[*Arguments],
        /,
        *args: *Arguments,
        timeout: float | None = ...,
        backend: Backend | None = ...,
    ) -> Process: ...
    @overload
    def run(
        self,
        function: EntryAfterTwo[*Arguments],
        /,
        *args: *Arguments,
        timeout: float | None = ...,
        backend: Backend | None = ...,
    ) -> Process: ...
    @overload
    def run(self, function: AnyEntry, /, *, timeout: float | None = ..., backend: Backend | None = ...) -> Process: ...
    @overload
    def run(
        self, function: str, /, *args: object, timeout: float | None = ..., backend: Backend | None = ...
    ) -> Process: ...
    def run(
        self,
        function: Callable[..., object] | str,
        /,
        *args: object,
        timeout: float | None = None,
        backend: Backend | None = None,
        **keywords: object,
    ) -> Process:
        """Call ``start``, and wait until the process has entered the function; raise why it has not.

        ``timeout`` is in seconds, as in ``Process.ready``.

        For example::

            import anyfork

            def wait_for_a_byte(channel):
                channel.recv(1)

            template = anyfork.Template()
            with template.fork(title="waits").run(wait_for_a_byte, timeout=60) as process:
                process.channel.sendall(b"x")
        """
        if keywords:
            raise refused_keywords("run", function, keywords, "timeout, backend")
        return self._take_over(Process._of, "run", function, args, backend)._ready_or_gone(timeout)

    def run_program(self, argv: Sequence[Argument], /, *, timeout: float | None = None) -> Process:
        """Replace the process by a program, found by PATH, and wait until it has been executed.

        The program has the standard streams of the process; set them with ``fork(stdin=..., stdout=...)``, for example
        to CHANNEL. It gets no other descriptors and no arguments of ``send``. Raises ProgramError if it cannot be
        executed.

        For example::

            import anyfork

            with anyfork.Template().fork(stdout=anyfork.PIPE).run_program(["echo", "hello"]) as process:
                assert process.communicate()[0].split() == [b"hello"]
        """
        return self._take_over_by_program(Process._of, argv)._ready_or_gone(timeout)

    def run_module(self, name: str, /, *argv: Argument, timeout: float | None = None) -> Process:
        """Do what ``python -m name argv...`` does, in this process, and return when it has begun.

        The program has the interpreter and the loaded modules of this template; standard streams, directory and
        environment are those of the process, which ``fork`` sets. It gets no other descriptors and no arguments of
        ``send``. What prevents it from running (no such module, a syntax error) is printed by the program, as a new
        interpreter prints it, and its exit status says so.

        For example::

            import anyfork

            template = anyfork.Template().preload("calendar")
            with template.fork().run_module("calendar", "2027", "1") as process:
                assert process.wait().code == 0
        """
        return self._take_over_by_python(Process._of, "-m", name, argv)._ready_or_gone(timeout)

    def run_script(self, path: Argument, /, *argv: Argument, timeout: float | None = None) -> Process:
        """Do what ``python path argv...`` does: run a file, a directory or a zip file. See ``run_module``.

        For example::

            import anyfork

            with open("hello.py", "w") as script:
                script.write("import sys; print('hello', *sys.argv[1:])")
            with anyfork.Template().run_script("hello.py", "you") as process:
                assert process.wait().code == 0
        """
        return self._take_over_by_python(Process._of, "", path, argv)._ready_or_gone(timeout)

    def run_code(self, source: str, /, *argv: Argument, timeout: float | None = None) -> Process:
        """Do what ``python -c source argv...`` does. See ``run_module``.

        For example::

            import anyfork

            with anyfork.Template().preload("fractions").run_code("from fractions import Fraction") as process:
                assert process.wait().code == 0
        """
        return self._take_over_by_python(Process._of, "-c", source, argv)._ready_or_gone(timeout)

    def detach(self) -> socket.socket:
        """Give up the handle: flush all requests, and return a socket that moves the template to another process.

        Send the socket there and use ``Template.from_socket``. Closing it instead ends the template.

        For example::

            import anyfork

            def serve(channel, sock):                      # the template is this process's now
                template = anyfork.Template.from_socket(sock)
                template.run_code("print('hello')").wait()

            anyfork.Template().run(serve, anyfork.Template().detach()).wait()
        """
        kind: type[socket.socket] = import_own("socket").socket
        return run(hand_over(self._movable(), kind))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def fork_of(call: str, template: Template | TemplateSource | None, until: float | None = None) -> Template:
    """Return a fork of a template, or of the default one.

    Raises ArgumentError, what prevents a new template, and NotInTimeError if there is none at a deadline.
    """
    if template is None:
        return Template()
    if isinstance(template, TemplateSource):
        return template._fork_for(call, until, {})  # type: ignore[return-value]  # that of this face makes them
    check_template(call, template)
    template._link.check(call)
    return template.fork()


def is_template(value: object) -> bool:
    """Return whether a value is a template of this face, or a Warm."""
    return isinstance(value, Template | TemplateSource)

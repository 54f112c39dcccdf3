"""``open_process`` and ``run_process``, as AnyIO's: commands that are this interpreter start from a template."""

from __future__ import annotations

import sys
from subprocess import PIPE, STDOUT, CalledProcessError, CompletedProcess

import anyio
from anyio import BrokenResourceError, CancelScope, create_task_group
from anyio.abc import Process as AnyProcess

from .._errors import ArgumentError
from .._programs.command_line import NotAProgramError
from .._programs.popen import python_line, tell_cold
from .._programs.start import FAILED, check_local, errors_of_start, program_attributes, reason, request
from .._system.pipes import open_pipe
from ._pipes import ReceivePipe, SendPipe
from ._process import Process
from ._template import Template

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import IO, Any, TypeAlias, TypedDict, TypeVar, Unpack

    from anyio.abc import ByteReceiveStream, ByteSendStream

    from _anyfork_child.wire.owned_descriptors import Owned

    from .._programs.command_line import CommandLine

    Made = TypeVar("Made")
    Path: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]
    Stream: TypeAlias = int | IO[Any] | None

    class Options(TypedDict, total=False):
        """What a command gets, with the names of subprocess."""

        cwd: Path | None
        env: Mapping[str, str] | None
        start_new_session: bool
        pass_fds: Sequence[int]
        user: str | int | None
        group: str | int | None
        extra_groups: Iterable[str | int] | None
        umask: int


class Program(AnyProcess):
    """A program that ``open_process`` has started warm.

    As an async context manager, it closes the program's streams at the end of the block and waits for the program; if
    that is cancelled, it kills the program.
    """

    def __init__(
        self,
        process: Process,
        stdin: ByteSendStream | None,
        stdout: ByteReceiveStream | None,
        stderr: ByteReceiveStream | None,
    ) -> None:
        self._process = process
        self._stdin, self._stdout, self._stderr = stdin, stdout, stderr

    async def wait(self) -> int:
        """Wait until the program has ended; return its exit code, or the negative number of the signal."""
        await self._process.wait()
        code = self._process.returncode
        assert code is not None
        return code

    def send_signal(self, signal: int) -> None:
        """Send a signal to the program. Nothing happens when it has ended."""
        self._process.send_signal(signal)

    def terminate(self) -> None:
        """Send SIGTERM to the program."""
        self._process.terminate()

    def kill(self) -> None:
        """Send SIGKILL to the program."""
        self._process.kill()

    @property
    def pid(self) -> int:
        """The program's process id."""
        return self._process.pid or 0

    @property
    def returncode(self) -> int | None:
        """The exit code, or the negative number of the signal; None while the program runs."""
        known = self._process.returncode
        return self._process.poll() if known is None else known

    @property
    def stdin(self) -> ByteSendStream | None:
        """The stream to the program's standard input, if that is a pipe."""
        return self._stdin

    @property
    def stdout(self) -> ByteReceiveStream | None:
        """The stream of the program's standard output, if that is a pipe."""
        return self._stdout

    @property
    def stderr(self) -> ByteReceiveStream | None:
        """The stream of the program's standard error, if that is a pipe of its own."""
        return self._stderr

    async def aclose(self) -> None:
        """Close the program's streams and wait for its end. After a cancellation, kill it."""
        with CancelScope(shield=True):
            for stream in (self._stdin, self._stdout, self._stderr):
                if stream is not None:
                    await stream.aclose()
        try:
            await self.wait()
        except BaseException:
            self.kill()
            with CancelScope(shield=True):
                await self.wait()
            raise
        finally:
            with CancelScope(shield=True):
                await self._process.aclose()


async def open_process(
    command: Path | Sequence[Path],
    *,
    stdin: Stream = PIPE,
    stdout: Stream = PIPE,
    stderr: Stream = PIPE,
    template: Template | None = None,
    **options: Unpack[Options],
) -> AnyProcess:
    """Start a command, as ``anyio.open_process`` does: the same options, and ``template``.

    A command that begins with ``sys.executable`` starts warm, in a process forked from ``template`` or from the default
    one; see ``anyfork.subprocess.Popen``. AnyIO starts all other commands.
    """
    if template is not None:
        check_local("open_process", Template, template)
    pass_fds = options.get("pass_fds", ())
    try:
        line = python_line(command, None, None, True, pass_fds, False)
        if line is None:
            raise NotAProgramError
        sys.audit("subprocess.Popen", line.line[0], line.line, options.get("cwd"), options.get("env"))
        return await _Start(template, line, options).open(stdin, stdout, stderr)
    except (NotAProgramError, ArgumentError) as why:
        tell_cold(str(why))
    return await anyio.open_process(command, stdin=stdin, stdout=stdout, stderr=stderr, **options)


class _Start:
    """One start of a command line in a template."""

    def __init__(self, template: Template | None, line: CommandLine, options: Options) -> None:
        self._template, self._line, self._options = template, line, options
        self._far: list[Owned] = []  # the program's ends of its pipes

    async def open(self, stdin: Stream, stdout: Stream, stderr: Stream) -> Program:
        """Start the program. Raises NotAProgramError if nothing was started, ArgumentError and OSError."""
        try:
            streams = [self._pipe(name, wanted) for name, wanted in _named(stdin, stdout, stderr).items()]
            process, report = await self._begin({name: far for name, far, _ in streams if far is not None})
        finally:
            for far in self._far:
                far.close()
        said = await process._done_or_gone(_read_all(ReceivePipe(report)))
        if said.startswith(FAILED):
            await process.wait()
        tell_cold(reason(said))
        near = [end for _, _, end in streams]
        return Program(process, _stream(SendPipe, near[0]), *(_stream(ReceivePipe, end) for end in near[1:]))

    async def _begin(self, streams: dict[str, object]) -> tuple[Process, Owned]:
        """Return the process when it has entered the program's start, and the pipe over which it reports the rest."""
        attributes = self._attributes(streams)
        passed = sorted({*map(int, self._options.get("pass_fds", ()))})
        with errors_of_start(attributes):
            process, report = request(Template, Process._of, self._template, self._line, attributes, passed, None)
            await process._done_or_gone(process._enter())
        return process, report

    def _pipe(self, name: str, wanted: Stream) -> tuple[str, object, Owned | None]:
        """Return a stream's name, the attribute of that name, and this program's end if it is a pipe."""
        if wanted != PIPE:
            return name, wanted, None
        read, write = open_pipe()
        far, near = (read, write) if name == "stdin" else (write, read)
        self._far.append(far)
        return name, far.fd, near

    def _attributes(self, streams: dict[str, object]) -> dict[str, object]:
        if streams.get("stderr") == STDOUT:
            streams["stderr"] = streams.get("stdout", 1)
        options = self._options
        umask = options.get("umask", -1)
        return program_attributes(
            streams,
            cwd=options.get("cwd"),
            env=options.get("env"),
            umask=None if umask < 0 else umask,
            user=options.get("user"),
            group=options.get("group"),
            extra_groups=None if options.get("extra_groups") is None else list(options["extra_groups"] or ()),
            new_session=True if options.get("start_new_session") else None,
        )


def _stream(kind: Callable[[Owned], Made], end: Owned | None) -> Made | None:
    return None if end is None else kind(end)


def _named(*streams: Stream) -> dict[str, Stream]:
    return dict(zip(("stdin", "stdout", "stderr"), streams, strict=True))


async def _read_all(stream: ByteReceiveStream) -> bytes:
    async with stream:
        return b"".join([part async for part in stream])


async def run_process(
    command: Path | Sequence[Path],
    *,
    input: bytes | None = None,  # noqa: A002  # AnyIO's name
    stdin: Stream = None,
    stdout: Stream = PIPE,
    stderr: Stream = PIPE,
    check: bool = True,
    template: Template | None = None,
    **options: Unpack[Options],
) -> CompletedProcess[bytes]:
    """Run a command to its end, as ``anyio.run_process`` does, and start it as ``open_process``.

    Raises CalledProcessError if its exit status is not 0, unless ``check`` is false.
    """
    if stdin is not None and input is not None:
        raise ValueError("run_process() takes only one of stdin and input")
    found: dict[str, bytes] = {}

    async def read(name: str, stream: ByteReceiveStream | None) -> None:
        if stream is not None:
            found[name] = await _read_all(stream)

    process = await open_process(
        command, stdin=PIPE if input else stdin, stdout=stdout, stderr=stderr, template=template, **options
    )
    async with process, create_task_group() as tasks:
        tasks.start_soon(read, "stdout", process.stdout)
        tasks.start_soon(read, "stderr", process.stderr)
        if input and process.stdin is not None:
            await _write_all(process.stdin, input)
        code = await process.wait()
    if check and code:
        raise CalledProcessError(code, command, found.get("stdout"), found.get("stderr"))
    return CompletedProcess(command, code, found.get("stdout"), found.get("stderr"))


async def _write_all(stream: ByteSendStream, data: bytes) -> None:
    try:
        await stream.send(data)
    except (BrokenResourceError, ConnectionError):  # the program has closed its input, as it may
        pass
    await stream.aclose()

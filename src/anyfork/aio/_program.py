"""``open_process`` and ``run_process``, as AnyIO's: commands that are this interpreter start from a template."""

from __future__ import annotations

from subprocess import PIPE, CalledProcessError, CompletedProcess

import anyio
from anyio import BrokenResourceError, create_task_group
from anyio.abc import Process as AnyProcess

from _anyfork_child.wire.program_reports import FAILED

from .._errors import ArgumentError
from .._programs.command_line import NotAProgramError
from .._programs.popen import generation_for, python_line, tell_cold
from .._programs.start import check_local, errors_of_start, program_attributes, reason, request
from ._process import Process
from ._streams import ReceivePipe
from ._template import Template
from ._warm import Warm

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence
    from typing import IO, Any, TypeAlias, TypedDict, Unpack

    from anyio.abc import ByteReceiveStream, ByteSendStream

    from .._processes.handles import TemplateHandle
    from .._programs.command_line import CommandLine

    Path: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]
    Stream: TypeAlias = int | IO[Any] | None

    class Options(TypedDict, total=False):
        """What a command gets, with the names of subprocess."""

        cwd: Path | None
        env: Mapping[str, str] | None
        start_new_session: bool
        user: str | int | None
        group: str | int | None
        extra_groups: Iterable[str | int] | None
        umask: int


class Program(AnyProcess):
    """A program that ``open_process`` has started warm.

    As an async context manager, it closes the program's streams at the end of the block and waits for the program; if
    that is cancelled, it kills the program.
    """

    def __init__(self, process: Process) -> None:
        self._process = process

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
        """The exit code, or the negative number of the signal; None while the program runs.

        None, too, after a block that was left while the template was stopped: nobody has told it.
        """
        process = self._process
        return process.returncode if process._link.closed else process.poll()

    @property
    def stdin(self) -> ByteSendStream | None:
        """The stream to the program's standard input, if that is a pipe."""
        return self._process.stdin

    @property
    def stdout(self) -> ByteReceiveStream | None:
        """The stream of the program's standard output, if that is a pipe."""
        return self._process.stdout

    @property
    def stderr(self) -> ByteReceiveStream | None:
        """The stream of the program's standard error, if that is a pipe of its own."""
        return self._process.stderr

    async def aclose(self) -> None:
        """Close the program's streams and wait for its end. After a cancellation, kill it."""
        async with self._process:
            pass


async def open_process(
    command: Path | Sequence[Path],
    *,
    stdin: Stream = PIPE,
    stdout: Stream = PIPE,
    stderr: Stream = PIPE,
    pass_fds: Sequence[int] = (),
    template: Template | Warm | None = None,
    **options: Unpack[Options],
) -> AnyProcess:
    """Start a command, as ``anyio.open_process`` does: the same options, and ``template``.

    A command that begins with ``sys.executable`` starts warm, in a process forked from ``template`` or from the default
    one; see ``anyfork.subprocess.Popen``. AnyIO starts all other commands.

    For example::

        import anyio
        import sys
        from anyfork import aio

        async def main():
            async with await aio.open_process([sys.executable, "-c", "print('hello')"]) as process:
                assert b"".join([part async for part in process.stdout]).strip() == b"hello"

        anyio.run(main)
    """
    if template is not None and not isinstance(template, Warm):
        check_local("open_process", Template, template)
    try:
        line = python_line(command, options.get("cwd"), options.get("env"), pass_fds)
        if not isinstance(template, Warm):
            attributes = program_attributes(stdin, stdout, stderr, **options)
            return (await _start(template, line, attributes, pass_fds))[0]
        warm = template._warm
        generation, env = await template._in_thread(generation_for, "open_process", warm, options.get("env"))
        attributes = program_attributes(stdin, stdout, stderr, **{**options, "env": env})
        program, why = await _start(
            generation.template, line, attributes, pass_fds, warm._imports_to(line.kind, line.target)
        )
        warm._count(generation, why)
        return program
    except (NotAProgramError, ArgumentError) as why:
        tell_cold(str(why))
    return await anyio.open_process(command, stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=pass_fds, **options)


async def _start(
    template: TemplateHandle | None,
    line: CommandLine,
    attributes: Mapping[str, object],
    passed: Sequence[int],
    imports_to: str = "",
) -> tuple[Program, str]:
    """Start a command line in a template; return the program, and why a new interpreter runs it, if one does.

    Raises NotAProgramError if nothing was started, ArgumentError and OSError.
    """
    with errors_of_start(attributes):
        process, report = request(Template, Process._of, template, line, attributes, passed, None, imports_to)
        await process._done_or_gone(process._enter())
    said = await process._done_or_gone(_read_all(ReceivePipe(report)))
    if said.startswith(FAILED):
        await process.wait()
    why = reason(said)
    tell_cold(why)
    return Program(process), why


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
    pass_fds: Sequence[int] = (),
    template: Template | Warm | None = None,
    **options: Unpack[Options],
) -> CompletedProcess[bytes]:
    """Run a command to its end, as ``anyio.run_process`` does, and start it as ``open_process``.

    Raises CalledProcessError if its exit status is not 0, unless ``check`` is false.

    For example::

        import anyio
        import sys
        from anyfork import aio

        async def main():
            done = await aio.run_process([sys.executable, "-c", "print('hello')"])
            assert done.stdout.strip() == b"hello"

        anyio.run(main)
    """
    if stdin is not None and input is not None:
        raise ValueError("run_process() takes only one of stdin and input")
    found: dict[str, bytes] = {}

    async def read(name: str, stream: ByteReceiveStream | None) -> None:
        if stream is not None:
            found[name] = await _read_all(stream)

    source = PIPE if input else stdin
    process = await open_process(
        command, stdin=source, stdout=stdout, stderr=stderr, pass_fds=pass_fds, template=template, **options
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

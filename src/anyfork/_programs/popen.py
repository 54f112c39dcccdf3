"""Popen: commands that are this interpreter start from a template, all others as ever."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from functools import wraps

from .._blocking.generation import NotWarmError
from .._blocking.template import Template
from .._blocking.warm import Warm
from .._errors import AnyforkError, ArgumentError, RemoteTemplateError, StatusUnknownError
from .._system.timeouts import NotInTimeError, deadline, remaining
from .command_line import NotAProgramError, take_apart
from .start import check_local, program_attributes, start_warm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeAlias

    from .._blocking.generation import Generation
    from .._blocking.process import Process
    from .command_line import CommandLine

    StandardPopen: TypeAlias = subprocess.Popen[Any]  # generic in the stubs, by what its streams carry
else:
    StandardPopen = subprocess.Popen

logger = logging.getLogger("anyfork.subprocess")
_told: set[str] = set()  # the reasons for cold starts that were logged


class Popen(StandardPopen):
    """A program that was started by a command, as ``subprocess.Popen``.

    A command that begins with ``sys.executable`` starts warm: in a process forked from ``template`` or from the default
    one. If that cannot do what a new interpreter would, a new interpreter runs the command; a log record says why, once
    for each reason. All other commands are started by the standard module.

    For example::

        import sys
        import anyfork.subprocess

        with anyfork.subprocess.Popen([sys.executable, "-c", "print(1)"], stdout=anyfork.PIPE) as program:
            assert program.communicate()[0].strip() == b"1"
    """

    __module__ = "anyfork.subprocess"

    # Why a new interpreter runs a command that is this one; empty if it started warm, None for other commands.
    cold: str | None = None
    _process: Process | None = None
    _template: Template | Warm | None = None
    _until: float | None = None  # the deadline for its start
    _outlives: bool = True  # whether the program goes on when this process has ended

    def __init__(self, args: Any, *positional: Any, template: Template | Warm | None = None, **keywords: Any) -> None:
        if template is not None and not isinstance(template, Warm):
            check_local("Popen", Template, template)
        self._template = template
        super().__init__(args, *positional, **keywords)

    def _execute_child(self, args: Any, executable: Any, *rest: Any) -> None:
        preexec_fn, close_fds, pass_fds, cwd, env, _startupinfo, _creationflags, shell, *more = rest
        try:
            line = python_line(args, cwd, env, pass_fds, executable, preexec_fn, close_fds, shell)
            self._start(line, pass_fds, cwd, env, *more)
        except (NotAProgramError, ArgumentError) as why:
            self._start_cold(why, args, executable, *rest)

    def _start_cold(self, why: Exception, args: Any, executable: Any, *rest: Any) -> None:
        """Start a command that the template cannot run, as the standard module does."""
        self._tell_cold(str(why))
        self.cold = str(why) or str(why.__cause__ or "") or None  # a Warm has logged the cause
        super()._execute_child(args, executable, *rest)  # type: ignore[misc]  # private, but its parameters are

    def _tell_cold(self, why: str) -> None:
        self.cold = why
        tell_cold(why)

    def _start(self, line: CommandLine, pass_fds: Sequence[int], cwd: Any, env: Any, *more: Any) -> None:
        """Start a command in the template. Raises NotAProgramError if that is impossible, and OSError."""
        p2cread, _, _, c2pwrite, _, errwrite, _restore, gid, gids, uid, umask, new_session, group = more
        template, warm, imports_to = self._template, None, ""
        if isinstance(template, Warm):
            warm = template
            generation, env = generation_for("Popen", warm, env, self._until)
            template, imports_to = generation.template, warm._imports_to(line.kind, line.target)
        stdin, stdout, stderr = (None if fd == -1 else fd for fd in (p2cread, c2pwrite, errwrite))
        attributes = program_attributes(stdin, stdout, stderr, cwd, env, umask, uid, gid, gids, new_session)
        attributes["detached"] = self._outlives
        self._process, why = start_warm(
            template, line, attributes, pass_fds, None if group < 0 else group, imports_to, self._until
        )
        if warm is not None:
            warm._count(generation, why)
        self.pid: int = self._process.pid or 0
        self._child_created = True
        self._close_pipe_fds(*more[:6])  # type: ignore[attr-defined]  # of the standard class
        self._tell_cold(why)

    def _internal_poll(self, _deadstate: int | None = None, **others: Any) -> int | None:
        if self._process is None:
            return super()._internal_poll(_deadstate, **others)  # type: ignore[misc,no-any-return]  # as above
        if self.returncode is None:
            try:
                self.returncode = self._process.poll()
            except StatusUnknownError:
                if _deadstate is None:
                    raise
                self.returncode = _deadstate
        return self.returncode

    def _wait(self, timeout: float | None) -> int | None:
        if self._process is None:
            return super()._wait(timeout)  # type: ignore[misc,no-any-return]  # as above
        if self.returncode is None:
            try:
                self._process.wait(timeout if timeout is None else max(timeout, 0.0))
            except TimeoutError:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0) from None
            self.returncode = self._process.returncode
        return self.returncode

    def send_signal(self, sig: int) -> None:
        """Send a signal to the program. Nothing happens when it has ended.

        For example::

            import signal
            import sys
            import anyfork.subprocess

            with anyfork.subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as program:
                program.send_signal(signal.SIGTERM)
            assert program.returncode == -signal.SIGTERM
        """
        if self._process is None:
            super().send_signal(sig)
        elif self.poll() is None:
            self._process.send_signal(sig)


class TimedPopen(Popen):
    """A Popen whose timeouts end at a deadline at the latest, which is that of its start, too."""

    def __init__(self, args: Any, *positional: Any, until: float | None = None, **keywords: Any) -> None:
        self._until = until
        super().__init__(args, *positional, **keywords)

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[Any, Any]:  # noqa: A002  # as there
        return super().communicate(input, self._left(timeout))

    def wait(self, timeout: float | None = None) -> int:
        return super().wait(self._left(timeout))

    def _left(self, timeout: float | None) -> float | None:
        left = remaining(self._until)
        return timeout if timeout is None or left is None else min(timeout, left)


def timed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of the standard module with a timeout that counts from its call on, the start included.

    It makes a TimedPopen.
    """

    @wraps(function)
    def call(*popenargs: Any, timeout: float | None = None, **keywords: Any) -> Any:
        if timeout is None:
            return function(*popenargs, **keywords)
        try:
            return function(*popenargs, timeout=timeout, until=deadline(timeout), **keywords)
        except subprocess.TimeoutExpired as error:
            error.timeout = timeout  # not what the start has left of it
            raise
        except NotInTimeError:
            raise subprocess.TimeoutExpired(popenargs[0] if popenargs else keywords["args"], timeout) from None

    return call


def generation_for(call: str, warm: Warm, env: Any, until: float | None = None) -> tuple[Generation, Any]:
    """Return the generation for a program, and the program's environment.

    Raises NotAProgramError, NotInTimeError at the deadline, and what prevents a start on another machine.
    """
    try:
        generation, given = warm._for_program(call, os.environb if env is None else env, until)
    except NotWarmError as why:
        raise NotAProgramError from why  # the Warm has logged it
    except AnyforkError as error:
        if warm._is_remote or isinstance(error, RemoteTemplateError):
            raise
        raise NotAProgramError(str(error)) from error
    if warm._is_remote:
        host = generation.template._link.session.host
        text = f"{call}() needs a template on this machine, and that of {warm!r} is on {host}"
        raise RemoteTemplateError(text, host=host)
    return generation, given


def python_line(
    args: Any,
    cwd: Any,
    env: Any,
    pass_fds: Sequence[int],
    executable: Any = None,
    preexec_fn: Callable[[], object] | None = None,
    close_fds: bool = True,
    shell: bool = False,
) -> CommandLine:
    """Take a command apart that is this interpreter, and tell the audit hooks; the arguments are those of Popen.

    Raises NotAProgramError if it is another one, without a text, and if a template cannot run it.
    """
    if shell or isinstance(args, str | bytes | os.PathLike):
        raise NotAProgramError
    try:
        line = [os.fsdecode(part) for part in args]
    except TypeError:
        raise NotAProgramError from None
    if not line or line[0] != sys.executable or executable not in (None, line[0]):
        raise NotAProgramError
    if preexec_fn is not None:
        raise NotAProgramError("preexec_fn runs between the fork and a new interpreter")
    if not close_fds or any(int(fd) < 3 for fd in pass_fds):
        raise NotAProgramError("it inherits descriptors that only a child of this process can")
    program = take_apart(line)
    sys.audit("subprocess.Popen", line[0], line, cwd, env)
    return program


def tell_cold(why: str) -> None:
    """Log why a program starts cold, the first time for each reason."""
    if why and why not in _told and logger.isEnabledFor(logging.INFO):
        _told.add(why)
        logger.info("a program starts cold: %s", why)

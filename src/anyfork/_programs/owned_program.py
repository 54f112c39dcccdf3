"""Programs that end with this process, though they are not its children, and the templates that they come from."""

from __future__ import annotations

import os
import sys
from fcntl import F_SETOWN, fcntl

from .._blocking.generation import NotWarmError
from .._errors import AnyforkError, ForkError
from .._system.lifeline import open_lifeline
from .command_line import NotAProgramError
from .kept_templates import KeptTemplates
from .popen import Popen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, TypeVar

    from .._blocking.process import Process
    from .._blocking.template import Template
    from .command_line import CommandLine
    from .kept_templates import KeptTemplate, Recipe

    Program = TypeVar("Program", bound="OwnedProgram")


class OwnedProgram(Popen):
    """A program in a process of a template. Unless it ``outlives`` this process, it ends with it.

    ``Popen`` ends it by way of the template. But the template may be killed before; so the program also gets a
    lifeline. A command that no template can run raises NotAProgramError.
    """

    def __init__(
        self,
        command: Sequence[str],
        template: Template | None,
        env: Mapping[bytes, bytes],
        *,
        outlives: bool = False,
        **keywords: Any,
    ) -> None:
        self._outlives = outlives
        super().__init__(command, template=template, env=env, **keywords)

    @property
    def process(self) -> Process:
        """The process that runs the program."""
        assert self._process is not None  # otherwise there would be no object
        return self._process

    def _start(self, line: CommandLine, pass_fds: Sequence[int], *rest: Any) -> None:
        if self._outlives:
            super()._start(line, pass_fds, *rest)
            return
        lifeline, follows = open_lifeline()
        try:
            super()._start(line, [*pass_fds, *lifeline.fds], *rest)
            if follows:
                follow(lifeline.fds[0], self.pid)
        finally:
            lifeline.close()

    def _start_cold(self, why: Exception, *_: Any) -> None:
        raise why

    def _tell_cold(self, why: str) -> None:
        self.cold: str | None = why


def follow(lifeline: int, pid: int) -> None:
    """Have the system tell a program when this process has ended, unless the program has ended already."""
    try:
        fcntl(lifeline, F_SETOWN, pid)
    except ProcessLookupError:
        pass


def start_kept(
    make: type[Program], kept: KeptTemplate, command: Sequence[str], env: Mapping[bytes, bytes], **keywords: Any
) -> Program:
    """Start a program from a kept template, and from a new one if that is gone.

    Raises NotWarmError, NotAProgramError, ArgumentError and OSError.
    """
    made = kept.await_made(env)
    try:
        return make(command, made.template, made.environment(env), **keywords)
    except NotAProgramError as why:
        if not _is_fault_of_template(why.__cause__):
            raise
    kept.discard(made)
    made = kept.await_made(env)
    return make(command, made.template, made.environment(env), **keywords)


def _is_fault_of_template(error: BaseException | None) -> bool:
    return isinstance(error, AnyforkError) and not isinstance(error, ForkError)


class ProgramSource:
    """A template by its recipe and the options of its interpreter; one for each environment that needs its own."""

    def __init__(self, recipe: Recipe, options: Sequence[str]) -> None:
        self._recipe = recipe
        self._options = options
        self._templates = KeptTemplates()

    def prepare(self) -> None:
        """Have the template made for programs with the environment of this process."""
        self._templates.get(self._recipe, self._options, os.environb).prepare(os.environb)

    def close(self) -> None:
        """Let the templates end."""
        self._templates.close()

    def start(
        self, program: Sequence[str], env: dict[bytes, bytes] | None, cwd: str | None, streams: dict[str, Any]
    ) -> OwnedProgram:
        """Start a program, which leads a session. If its template cannot be made, it has no modules loaded.

        Raises OSError, and AnyforkError and ValueError for what no program can be given.
        """
        command = [sys.executable, *self._options, *program]
        found = dict(os.environb) if env is None else env
        keywords = {"cwd": cwd, "start_new_session": True, "bufsize": 0, **streams}
        kept = self._templates.get(self._recipe, self._options, found)
        try:
            return start_kept(OwnedProgram, kept, command, found, **keywords)
        except NotWarmError as why:
            started = OwnedProgram(command, None, found, **keywords)
            started.cold = str(why)
            return started

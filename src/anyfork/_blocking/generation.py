"""A generation of a template that is made again when it is stale: the template, and what it depends on."""

from __future__ import annotations

import marshal
import os
import sys
import time
from _signal import SIGKILL
from dataclasses import dataclass, field, replace
from itertools import takewhile

from _anyfork_child.wire.memfd import new_file
from _anyfork_child.wire.program_reports import COERCED, LOCALES, VOLATILE

from .._processes.flows import why_gone
from .._processes.start import fork_present
from .._system.import_path import is_installed
from .learned_imports import REWRITTEN_BY
from .sources import Sources, expand
from .template import Template
from .waiting import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from typing import Any, TypeAlias

    Variable: TypeAlias = tuple[bytes, bytes | None]
    Report: TypeAlias = dict[str, Any]  # what a template has loaded, see _anyfork_child.program.loaded

MAKING_TIMEOUT = 600.0  # seconds
ATTEMPTS = 5  # to make a template from files that go on changing
LOADED, NOTING, TRIAL = (f"_anyfork_child.program.{name}" for name in ("loaded", "noting", "trial"))
RUNNER = "runpy"  # runs programs that are modules; it is never learned, because it is frozen into the interpreter
OWN = "_anyfork_child"
WROTE = "a module wrote something when it was loaded, which programs would not show"


class NotWarmError(Exception):
    """Raised when a program cannot start from a template; the text says why."""


@dataclass(frozen=True, slots=True)
class Generation:
    """A template that is ready, and what it depends on.

    ``variables`` are those that its modules have read, with their values then, ``settings`` those that they have set.
    ``readers`` are the modules that have read each variable first, as far as they are known. ``read_all`` is the module
    that has read the whole environment, where a further variable counts as well, or empty; ``wrote`` says that one has
    written something. ``seconds`` is how long it took to load the modules. ``places`` are the directories that this
    program had put on its path, ``left_out`` the learned modules that it has not loaded, with the reasons.
    ``environment_of_make`` is the environment of a template that a function has made: all of it counts for programs,
    while the function depends on the ``variables`` of this program. ``interpreter`` is that of such a template; empty
    if it is on another machine.
    """

    template: Template
    modules: Sequence[str]
    sources: Sources
    variables: Sequence[Variable]
    settings: Sequence[Variable]
    readers: Mapping[bytes, str]
    read_all: str
    seconds: float
    since: float
    wrote: bool = False
    places: Sequence[str] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    environment_of_make: Mapping[bytes, bytes] | None = None
    interpreter: str = ""

    def outdated(self, env: Mapping[bytes, bytes]) -> str:
        """Return why the template does not serve this program, with this environment, any more; empty if it does."""
        changed = self.sources.changed()
        return f"{changed} has changed since the template was made" if changed else self._differs(env, self.variables)

    def differs(self, env: Mapping[bytes, bytes]) -> str:
        """Return which variable of an environment is another one than for the template; empty if there is none."""
        made = self.environment_of_make
        variables = self.variables if made is None else _lasting(made)
        if env.keys().isdisjoint(LOCALES) and {*COERCED.items()} <= {*variables}:
            env = {**env, **COERCED}  # the process decides whether a new interpreter would set that
        return self._differs(env, variables)

    def _differs(self, env: Mapping[bytes, bytes], variables: Sequence[Variable]) -> str:
        for name, value in variables:
            if (given := env.get(name)) != value:
                how = "is missing" if given is None else "is new" if value is None else "differs from the template's"
                return f"{os.fsdecode(name)} {how}, and {self._why_it_counts(name)}"
        further = env.keys() - VOLATILE - {name for name, _ in variables} if self.read_all else ()
        return f"{os.fsdecode(min(further))} is new, and {self._why_it_counts(b'')}" if further else ""

    def _why_it_counts(self, name: bytes) -> str:
        if self.environment_of_make is not None:
            return "with make= each variable counts"
        reader = self.readers.get(name)
        return f"{self.read_all} has read all variables" if reader is None else f"{reader} has read it"

    def serves(self, env: Mapping[bytes, bytes]) -> bool:
        """Return whether a template for this environment can be forked from this one."""
        return not (self.unusable() or self.outdated(env))

    def unusable(self) -> str:
        """Return why the template cannot be forked any more; empty if it can."""
        gone = run(why_gone(self.template._link))
        places = [*self.template._link.receiver.places()]
        return gone if gone or [*self.places] == places else "this program has changed sys.path"

    def environment(self, env: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """Return the environment of a program: with the variables that its modules set when they are loaded."""
        changed = dict(env)
        for name, value in self.settings:
            if value is None:
                changed.pop(name, None)
            else:
                changed[name] = value
        return changed


def split_installed(modules: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Return the installed modules with which a list begins, and the others: only these change often."""
    installed = [*takewhile(is_installed, modules)]
    return installed, modules[len(installed) :]


def make(
    modules: Sequence[str],
    watch: Sequence[str] = (),
    *,
    flags: Sequence[str] | None = None,
    env: Mapping[bytes, bytes] | None = None,
    cwd: str | None = None,
    refused: Sequence[str] | None = None,
    distrusted: Collection[str] = (),
    for_programs: bool = False,
    base: Generation | None = None,
) -> Generation:
    """Return a template that has loaded modules, ready. Raises AnyforkError and OSError.

    ``refused`` are modules that must not be loaded. If there is such a list, even an empty one, other modules that
    need them are left out, and those that fail or are not safe in a template.
    ``distrusted`` are source files whose byte code is not used. ``for_programs`` alone, modules are found where a new
    interpreter finds them. ``base`` is one whose template is forked, in place of a new interpreter.
    """
    began = time.time_ns()
    given: Any = {name: value for name, value in (("env", env), ("cwd", cwd)) if value is not None}
    if base is None:
        template = Template.new_exec(python=sys.executable, flags=flags, **given)
    else:
        given["env"] = base.environment(os.environb if env is None else env)
        template = Template._of(fork_present(base.template._link, "fork", given))
    try:
        if for_programs:
            template.prepare(f"{LOADED}:use_path_of_start").preload(RUNNER)
        left_out: dict[str, str] = {}
        if refused is not None:
            left_out = _left_out(template, modules, refused)
            modules = [name for name in modules if name not in left_out]
        template.prepare(f"{NOTING}:begin", sorted(distrusted)).preload(*modules).prepare(f"{NOTING}:end")
        template.ready(MAKING_TIMEOUT)
        return _generation(template, _ask(template, "report"), watch, began, base, left_out)
    except BaseException:  # it may be in the middle of a long import
        template._link.signal_now_or_at_birth(SIGKILL)
        template._link.drop_process()
        raise


def adopt(function: Callable[[], Template], watch: Sequence[str], note: Callable[[Template], None]) -> Generation:
    """Return the template that a function makes, ready. Raises what the function raises, AnyforkError and OSError.

    ``note`` gets the template before it is ready, which it may never be.
    What the function does depends on all variables of this program, as nobody knows which ones it reads.
    """
    began, at = time.time_ns(), time.monotonic()
    environment = dict(os.environb)
    template = function()
    if not isinstance(template, Template):
        raise TypeError(f"make= returned {type(template).__name__}: it has to return a Template")
    note(template)
    try:
        template.ready(MAKING_TIMEOUT)
        seconds = time.monotonic() - at
        told: Report = {} if template._link.session.host else _ask(template, "report")
        told |= {"read": _lasting(environment), "read_all": "make", "seconds": seconds}
        made = _generation(template, told, watch, began)
        own: dict[bytes, bytes] = told.get("environment", environment)
        return replace(made, environment_of_make=own, interpreter=told.get("interpreter", ""))
    except BaseException:
        template.close()
        raise


def _lasting(env: Mapping[bytes, bytes]) -> list[Variable]:
    return [(name, value) for name, value in env.items() if name not in VOLATILE]


def _generation(
    template: Template,
    told: Report,
    watch: Sequence[str],
    began: int,
    base: Generation | None = None,
    left_out: Mapping[str, str] | None = None,
) -> Generation:
    (files, watched), states = expand(watch), told.get("states", {})
    files += [*told.get("files", ()), *states]
    read, changed, wrote = told.get("read", []), told.get("set", []), told.get("wrote", False)
    readers, read_all, seconds = told.get("readers", {}), told.get("read_all", ""), told.get("seconds", 0.0)
    if base is not None:
        set_before = {name for name, _ in base.settings}  # the program's own value is another one
        read = [*base.variables, *(one for one in read if one[0] not in set_before)]
        changed, wrote = [*base.settings, *changed], wrote or base.wrote
        readers, read_all = {**readers, **base.readers}, read_all or base.read_all
        seconds += base.seconds
        left_out = {**base.left_out, **(left_out or {})}
    return Generation(
        template,
        [name for name in told.get("modules", ()) if name.partition(".")[0] != OWN],
        Sources(files, told.get("directories", ()), began, states, None if base is None else base.sources, watched),
        read,
        changed,
        readers,
        read_all,
        seconds,
        time.monotonic(),
        wrote,
        [*template._link.receiver.places()],
        left_out or {},
    )


def settled(attempt: Callable[[], Generation], wait: Callable[[float], object]) -> Generation:
    """Return a generation whose files have not changed while it was made. Raises OSError if they go on changing.

    ``wait`` waits for some seconds; it returns true to give up.
    """
    path = ""
    for _ in range(ATTEMPTS):
        made = attempt()
        late = made.sources.unsettled()
        if late is None:
            return made
        made.template.close()
        path, seconds = late
        if wait(seconds):
            break
    raise OSError(f"{path} has just changed")


def _left_out(template: Template, modules: Sequence[str], refused: Sequence[str]) -> dict[str, str]:
    """Return which modules a template must not load, and why. Raises AnyforkError and OSError."""
    reasons = dict.fromkeys(refused, REWRITTEN_BY)
    output = new_file()
    try:
        while True:  # once more without what is unsafe, as others need it
            attributes = {"stdout": output.fd, "stderr": output.fd, "contain": True}
            failed, unsafe = _ask(template, "try_loading", modules, [*reasons], module=TRIAL, **attributes)
            if unsafe.keys() <= reasons.keys():
                return {**failed, **reasons}
            reasons = {**unsafe, **reasons}
    finally:
        output.close()


def _ask(template: Template, function: str, *args: object, module: str = LOADED, **attributes: Any) -> Any:
    """Return what a function finds out in a fork of a template. Raises AnyforkError and OSError."""
    with template.fork(**attributes).run(f"{module}:{function}", *args, timeout=MAKING_TIMEOUT) as process:
        process.channel.settimeout(MAKING_TIMEOUT)
        data = b""
        while piece := process.channel.recv(1 << 16):
            data += piece
    try:
        return marshal.loads(data)
    except (EOFError, ValueError, TypeError) as error:
        raise OSError(f"the template did not say what it has loaded: {error}") from error

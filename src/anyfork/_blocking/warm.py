"""Warm: a template that is made at its first use, and again when it is stale or has ended."""

from __future__ import annotations

import os
import sys
from _signal import SIGKILL
from _thread import RLock
from copy import copy
from dataclasses import replace
from functools import partial
from time import monotonic, sleep

from .._errors import (
    AnyforkError,
    ArgumentError,
    ForkError,
    HandleError,
    LaunchError,
    NotReadyError,
    PreloadError,
    RemoteTemplateError,
    TemplateError,
)
from .._processes.handles import TemplateSource, check_modules
from .._processes.start import fork_present
from .._status import Record
from .._system import this_process
from .._system.locks import do_locked, try_locked
from .._system.log import INFO, WARNING, logger_for
from .._system.timeouts import NotInTimeError, call_until, deadline, one_wait, remaining
from .generation import WROTE, Generation, NotWarmError, adopt, make, settled, split_installed
from .learned_imports import Learning
from .process import Process
from .sources import Sources, expand, snapshot_after
from .template import Template
from .warm_starts import KINDS, WarmStarts, note_cold

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, Self, TypeVar, Unpack

    from _anyfork_child.wire.descriptors import Owned

    from .._processes.arguments import Argument, Kind
    from .._processes.attributes import Attributes
    from .._processes.handles import ProcessHandle, TemplateHandle
    from .._processes.link import Link
    from .learned_imports import Imports

    Made = TypeVar("Made")

COOL_DOWN = 10.0  # seconds
FIRST = "it was needed for the first time"
NEWS = "programs have imported further modules"


class WarmReport(Record):
    """What a ``Warm`` has loaded and saved until now.

    ``modules`` are those that the template has, ``seconds`` is how long it took to load them (with ``make``, how long
    the function took). A start that needs them all saves that; ``saved`` is how much it is for the ``starts`` that came
    from templates. ``made`` templates were made until now,
    the last one because of ``why_made``. ``cold`` programs have started cold, the last one because of ``why_cold``.
    ``left_out`` are learned modules that are not loaded, because they are not safe in a template, with the reasons.

    For example::

        import anyfork

        with anyfork.Warm("json") as warm:
            warm.run_code("import json").wait()
            report = warm.report()
        assert (report.starts, report.made, report.cold) == (1, 1, 0)
    """

    __match_args__: tuple[str, ...] = (
        "modules", "seconds", "starts", "saved", "made", "why_made", "cold", "why_cold", "left_out",
    )  # fmt: skip
    __slots__ = __match_args__
    modules: tuple[str, ...]
    seconds: float
    starts: int
    saved: float
    made: int
    why_made: str
    cold: int
    why_cold: str
    left_out: tuple[tuple[str, str], ...]

    def __init__(
        self,
        modules: tuple[str, ...],
        seconds: float,
        starts: int,
        saved: float,
        made: int,
        why_made: str,
        cold: int,
        why_cold: str,
        left_out: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self._set(modules, seconds, starts, saved, made, why_made, cold, why_cold, left_out)

    def __str__(self) -> str:
        lines = [
            f"{len(self.modules)} modules are loaded; a start that needs them saves {self.seconds:.3f} s",
            f"{self.starts} starts were warm, and have saved up to {self.saved:.3f} s",
        ]
        if self.made:
            lines.append(f"{self.made} templates were made, the last one because {self.why_made}")
        if self.cold:
            lines.append(f"{self.cold} programs started cold, the last one because {self.why_cold}")
        lines += [f"{name} is left out: {why}" for name, why in self.left_out]
        return "\n".join(lines)


class Warm(TemplateSource):
    """A template that takes care of itself: give it wherever a template is taken.

    It loads the modules ``preload`` when it is first needed; name installed packages first, which stay loaded when only
    the project's own modules change. It is made again when it has ended, and when it is stale:
    a file of a loaded module has changed, a new file hides one, the interpreter, its installed packages, this program's
    module path or an environment variable that a module has read have changed, or a path of ``watch``: a file, or a
    directory with all below it. This is checked at each start, and code that is older than the files at the time of the
    call never runs. With ``make``, a function makes the template; its ``watch`` and the files of its modules count, and
    each environment variable of this program. The files of a template on another machine are not looked at.

    With ``learn``, programs of ``run_module``, ``run_script``, ``run_code`` and ``anyfork.subprocess`` tell at their
    end which installed modules they have imported. The file of this path keeps that, and the next template loads them,
    as does that of the next program that uses the file. Modules that are not safe in a template are left out.

    If the template cannot be made, ``run_module``, ``run_script``, ``run_code`` and ``anyfork.subprocess`` start their
    programs cold; the log says why. Everything else raises the error. It is tried again after ``cool_down`` seconds, or
    when a file of the last template, one that the traceback of the error names or a path of ``watch`` has changed.
    With ``make``, they run in the interpreter of the last template, or in ``python`` until there was one: name it if
    the function makes templates of another interpreter. Every method may be used from any thread.
    Raises ArgumentError.

    For example::

        import anyfork

        with anyfork.Warm("calendar") as warm:
            warm.run_module("calendar", "2027", "1", stdout=anyfork.DEVNULL).wait()
            assert anyfork.call(pow, 2, 10, template=warm) == 1024
    """

    def __init__(
        self,
        *preload: str,
        make: Callable[[], Template] | None = None,
        python: str | os.PathLike[str] | None = None,
        watch: Iterable[str | os.PathLike[str]] = (),
        cool_down: float = COOL_DOWN,
        learn: str | os.PathLike[str] | None = None,
    ) -> None:
        check_modules("Warm", preload)
        if make is not None and (preload or not callable(make)):
            raise ArgumentError("Warm() needs names of modules, or make= with a function that returns a template")
        if make is not None and learn is not None:
            raise ArgumentError("Warm() has learn= for modules that it loads itself, not together with make=")
        if make is None and python is not None:
            raise ArgumentError("Warm() has python= for the interpreter that make= names, not without make=")
        if isinstance(watch, str | bytes):
            raise ArgumentError(f"Warm() needs watch= as a list of paths, not {watch!r}")
        self._preload = preload
        self._recipe = make
        self._python = python  # for cold starts; None for that of this program
        self._is_remote = False  # whether the last template that ``make`` has returned is on another machine
        self._watch = [os.path.abspath(os.fspath(path)) for path in watch]
        self._cool_down = cool_down
        self._learning = None if learn is None else Learning(os.path.abspath(os.fspath(learn)))
        self._left_out: dict[str, str] = {}  # learned modules that could be tried, but not loaded
        self._lock = RLock()  # reentrant: a signal handler may use it in the middle of a making
        self._owner = os.getpid()
        self._closed = False
        self._generation: Generation | None = None
        self._base: Generation | None = None  # with the installed modules alone, if there are others
        self._loaded: tuple[tuple[str, ...], float] = (), 0.0  # by the last one: modules, and seconds
        self._sources = Sources((), (), 0)  # of the last one, or what is known before there is one
        self._distrusted: set[str] = set()  # files that have changed, whose byte code may be older
        self._failure: BaseException | None = None
        self._not_before = 0.0
        self._told: set[str] = set()  # reasons that were logged since the last template was made
        self._starts = self._made = self._cold = 0
        self._begun = WarmStarts()
        self._saved = 0.0
        self._why_made = FIRST
        self._why_cold = ""

    def template(self) -> Template:
        """Return the present template, ready and up to date. It stays with this object: fork it.

        Raises what prevents it from being made.

        For example::

            import anyfork

            with anyfork.Warm("json") as warm:
                assert warm.template() is warm.template()
        """
        return self._current("template").template

    def fork(self, **attributes: Unpack[Attributes]) -> Template:
        """Return a fork of the present template; it takes the attributes of ``Template.fork``.

        It has the environment, the directory and the streams that this program has now, and variables that modules have
        set when they were loaded. With ``make``, it has those of the template. Raises what prevents a template from
        being made.

        For example::

            import anyfork

            with anyfork.Warm("json") as warm, warm.fork(cwd="/").run_code("import json") as process:
                process.wait()
        """
        return self._fork_for("fork", None, attributes)

    def _fork_for(self, call: str, until: float | None, attributes: Attributes) -> Template:
        generation = self._current(call, until)
        made = self._fork_of(generation, attributes)
        self._count(generation)
        return made

    def run_module(
        self, name: str, /, *argv: Argument, timeout: float | None = None, **attributes: Unpack[Attributes]
    ) -> Process:
        """Do what ``python -m name argv...`` does; warm if possible. See ``Template.run_module``.

        The attributes are those of ``Template.fork``.

        For example::

            import anyfork

            with anyfork.Warm("calendar") as warm:
                warm.run_module("calendar", "2027", "1", stdout=anyfork.DEVNULL).wait()
        """
        return self._run("run_module", name, argv, timeout, attributes)

    def run_script(
        self, path: Argument, /, *argv: Argument, timeout: float | None = None, **attributes: Unpack[Attributes]
    ) -> Process:
        """Do what ``python path argv...`` does. See ``run_module``.

        For example::

            import anyfork

            with open("hello.py", "w") as script:
                script.write("print('hello')")
            with anyfork.Warm("json") as warm:
                warm.run_script("hello.py").wait()
        """
        return self._run("run_script", path, argv, timeout, attributes)

    def run_code(
        self, source: str, /, *argv: Argument, timeout: float | None = None, **attributes: Unpack[Attributes]
    ) -> Process:
        """Do what ``python -c source argv...`` does. See ``run_module``.

        For example::

            import anyfork

            with anyfork.Warm("fractions") as warm:
                assert warm.run_code("from fractions import Fraction").wait().code == 0
        """
        return self._run("run_code", source, argv, timeout, attributes)

    def report(self) -> WarmReport:
        """Return what is loaded and what that has saved, why a template was last made, and why a program was cold.

        For example::

            import anyfork

            with anyfork.Warm("json") as warm:
                warm.run_code("import json").wait()
                print(warm.report())
        """
        self._recount()
        modules, seconds = self._loaded
        left_out = tuple(self._generation.left_out.items()) if self._generation is not None else ()
        why = self._why_made if self._made else ""
        saved, cold = self._saved, self._cold
        return WarmReport(modules, seconds, self._starts, saved, self._made, why, cold, self._why_cold, left_out)

    def close(self) -> None:
        """Let the template end; what was forked from it goes on. Closing twice is harmless.

        For example::

            import anyfork

            warm = anyfork.Warm("json")
            process = warm.run_code("import json; print('goes on')")
            warm.close()
            process.wait()
        """
        self._closed = True
        self._drop()
        self._recount()
        self._begun.close()
        if self._learning is not None and self._owner == this_process.pid:
            self._learning.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "ready" if self._generation is not None else "not made"
        what = "".join(f" {name}" for name in self._preload) if self._recipe is None else f" {self._recipe!r}"
        return f"<Warm{what} {state} made={self._made} starts={self._starts}>"

    # --- Generations ---

    def _check(self, call: str) -> None:
        if self._owner != this_process.pid:
            raise HandleError(
                f"{call}() on a Warm in a forked copy of its owner: it does not work there; make a new one"
            )
        if self._closed:
            raise HandleError(f"{call}() on a Warm that was closed: make a new one, or close it later")

    def _current(self, call: str, until: float | None = None) -> Generation:
        """Return the generation that is up to date; make it if there is none. Raises what prevents that.

        Raises NotInTimeError at a deadline, too. The making goes on then, for the next call.
        """
        self._check(call)
        self._recount()
        if until is None:
            return do_locked(self._lock, self._get, call)
        found: list[Generation | None] = []
        # Wait here for a thread that makes a template: one more thread for each call would stay as long as that takes.
        while not try_locked(self._lock, lambda: found.append(self._up_to_date()), one_wait(remaining(until))):
            if monotonic() >= until:
                raise NotInTimeError
        return found[0] or call_until(until, self._current, call)

    def _templates(self, call: str) -> Sequence[Template]:
        return [self._current(call).template]

    def _get(self, call: str) -> Generation:
        self._check(call)
        present = self._up_to_date()
        if present is not None:
            return present
        if self._failure is not None and monotonic() < self._not_before and not self._sources.changed():
            raise _again(self._failure)
        return self._make(call)

    def _up_to_date(self) -> Generation | None:
        """Return the generation if it is up to date; forget it otherwise, and its last user closes it.

        The caller must keep no reference to a stale one: the traceback of a failure may live long.
        """
        now, why = self._generation, self._why_made
        news = self._news(now)
        if now is not None:
            why = news or now.unusable() or now.outdated(os.environb)
            if not why:
                return now
            self._distrusted.update(now.sources.changes())
            self._why_made = why
            self._generation = None
        return None

    def _news(self, now: Generation | None) -> str:
        """Return why programs have taught that the template should be made again; empty if they have not."""
        learning = self._learning
        if learning is None or not learning.take_news():
            return ""
        known = () if now is None else (*now.modules, *now.left_out)
        if {*known}.issuperset(learning.imports.all().modules):
            return ""
        self._base = None  # its last user closes it
        return NEWS

    def _make(self, call: str) -> Generation:
        try:
            made = settled(self._attempt, sleep)
        except Exception as error:  # the user's function may raise anything
            self._fail(error)
            raise
        self._generation, self._sources = made, made.sources
        self._loaded = tuple(made.modules), made.seconds
        self._failure = None
        self._told.clear()
        self._made += 1
        if self._closed:
            self._drop()
        self._check(call)
        return made

    def _attempt(self) -> Generation:
        if self._recipe is not None:
            made = adopt(self._recipe, self._watch, self._note_place)
            self._python = None if made.interpreter == sys.executable else made.interpreter or self._python
            return made
        installed, rest = split_installed(self._preload)
        if self._learning is None and not (installed and rest):
            return make(self._preload, self._watch, distrusted=self._distrusted)
        base = self._base
        if base is None or not base.serves(os.environb):
            base = self._base = settled(partial(self._load, installed), sleep)
        return make(rest, base=base, distrusted=self._distrusted) if rest else base

    def _note_place(self, template: Template) -> None:
        """Note where programs of this template run, which may never get ready."""
        self._is_remote = bool(template._link.session.host)
        self._python = template._link.interpreter or self._python

    def _load(self, names: Sequence[str]) -> Generation:
        made = make(names, self._watch, distrusted=self._distrusted)
        return made if self._learning is None else self._with_learned(made, self._learning.imports.all())

    def _with_learned(self, base: Generation, imports: Imports) -> Generation:
        """Return a generation that has loaded learned modules as well, without those that cannot be loaded."""
        while names := [name for name in imports.modules if name not in self._left_out]:
            try:
                made = make(names, base=base, distrusted=self._distrusted, refused=imports.rewritten)
            except PreloadError as error:
                failed = [error.module] if error.module in names else names
                self._left_out.update(dict.fromkeys(failed, str(error)))
            except (AnyforkError, OSError) as error:
                self._left_out.update(dict.fromkeys(names, str(error)))
            else:
                return replace(made, left_out={**self._left_out, **made.left_out})
        return replace(base, left_out=self._left_out)

    def _fail(self, error: Exception) -> None:
        """Note that no template can be made now."""
        if self._made:
            known = self._sources.again()
        else:
            files, watched = expand(self._watch)
            known = Sources(files, filter(os.path.isdir, sys.path), 0, watched=watched)
        self._sources = snapshot_after(error, known)
        self._failure, self._not_before = _again(error), monotonic() + self._cool_down
        self._tell(WARNING, _why(error))

    def _drop(self) -> None:
        present, self._generation, self._base = (self._generation, self._base), None, None
        for one in present:
            if one is not None and self._owner == this_process.pid:
                one.template.close()

    def _fork_of(self, generation: Generation, attributes: Any) -> Template:
        """Return what ``fork`` returns, of this generation."""
        if self._recipe is not None:
            return generation.template.fork(**attributes)
        given = {"env": generation.environment(os.environb), **attributes}
        return Template._of(fork_present(generation.template._link, "fork", given))

    def _present(self, call: str) -> tuple[Template, dict[bytes, bytes] | None]:
        """Return the present template, and the environment of a process of it; None for that of the template."""
        generation = self._current(call)
        self._count(generation)
        return generation.template, None if self._recipe is not None else generation.environment(os.environb)

    # --- Programs ---

    def _run(
        self, call: str, target: Argument, argv: Sequence[Argument], timeout: float | None, attributes: Any
    ) -> Process:
        until = deadline(timeout)
        try:
            made, generation = self._begin(call, attributes, until)
            process, report = self._take_over(made, Process._of, call, target, argv)
            process._ready_or_gone(remaining(until))
        except RemoteTemplateError:  # it was to run there
            raise
        except NotInTimeError:
            raise NotReadyError(f"{call}() was not done within {timeout} s: its template is still being made") from None
        except (NotWarmError, TemplateError, ForkError) as error:
            why = self._why_not(error)
        else:
            self._note_start(process, generation, report)
            return process
        cold: Process = getattr(Template.new_exec(python=self._python, **attributes), call)(
            target, *argv, timeout=remaining(until)
        )
        note_cold(cold, why)
        return cold

    def _why_not(self, error: Exception) -> str:
        """Return why a program starts cold, after it was counted. Raises the error if it must not."""
        why = str(error)
        if not isinstance(error, NotWarmError):  # otherwise it is counted
            if not self._may_start_cold(error):
                raise error
            self._note_cold(why)
        return why

    def _may_start_cold(self, error: Exception) -> bool:
        """Return whether a program may start cold: not for another machine, nor for an interpreter that is not known.

        With ``make``, a LaunchError before there was a template means that the function has named an interpreter.
        """
        unknown = self._recipe is not None and self._python is None and not self._made
        return not (self._is_remote or (unknown and isinstance(error, LaunchError)))

    def _take_over(
        self, made: TemplateHandle, make: Callable[[Link], Made], call: str, target: Argument, argv: Sequence[Argument]
    ) -> tuple[Made, Owned | None]:
        """Let a program take over a process; return its handle, and the pipe over which it reports how it begins."""
        return self._begun.begin(made, make, call, target, argv, self._imports_to(KINDS[call], os.fsdecode(target)))

    def _imports_to(self, kind: Kind, target: str) -> str:
        """Return the address where a program tells what it has imported; empty if nothing is learned."""
        return "" if self._learning is None else self._learning.new_address(kind, target)

    def _note_start(self, process: ProcessHandle, generation: Generation, report: Owned | None) -> None:
        """Count a start; it may still turn out to be a cold one."""
        try:
            self._count(generation)
            self._begun.await_report(process, report, generation)
        except BaseException:  # an interrupt: nobody gets the handle
            process._link.signal_now_or_at_birth(SIGKILL)
            raise

    def _recount(self) -> None:
        """Count programs as cold that have reported that a new interpreter runs them."""
        for generation, why in self._begun.cold():
            self._starts -= 1
            self._saved -= generation.seconds
            self._note_cold(why)

    def _begin(self, call: str, attributes: Any, until: float | None = None) -> tuple[Template, Generation]:
        """Return a fork for a program, and the generation that it is of. Raises NotWarmError, and that of a fork."""
        generation, env = self._for_program(call, attributes.get("env"), until)
        return self._fork_of(generation, attributes if env is None else {**attributes, "env": env}), generation

    def _for_program(self, call: str, env: Any, until: float | None = None) -> tuple[Generation, Any]:
        """Return the generation for a program, and the environment given for it, with what modules have set.

        Raises NotWarmError, HandleError, RemoteTemplateError, and NotInTimeError at the deadline.
        """
        self._check(call)
        try:
            generation = self._current(call, until)
        except (HandleError, RemoteTemplateError, NotInTimeError):
            raise
        except Exception as error:  # as in _make
            if not self._may_start_cold(error):
                raise
            self._note_cold(_why(error))
            raise NotWarmError(_why(error)) from error
        given = None if env is None or self._is_remote else _encoded(env)
        why = WROTE if generation.wrote else "" if given is None else generation.differs(given)
        if why:
            self._note_cold(why)
            raise NotWarmError(why)
        return generation, env if given is None else generation.environment(given)

    def _note_cold(self, why: str) -> None:
        self._cold += 1
        self._why_cold = why
        self._tell(INFO, why)

    def _tell(self, level: int, why: str) -> None:
        """Log why programs start cold, once until there is another template."""
        log = logger_for(level) if why not in self._told else None
        if log is not None:  # otherwise it may be asked for later
            self._told.add(why)
            log("programs of %r start cold: %s", self, why)

    def _count(self, generation: Generation, why_cold: str = "") -> None:
        """Count a start from this generation; if a new interpreter has run the program nevertheless, that is why."""
        if why_cold:
            self._cold, self._why_cold = self._cold + 1, why_cold
            return
        self._starts += 1
        self._saved += generation.seconds


def _why(error: BaseException) -> str:
    return f"the template cannot be made: {error}"


def _again(error: BaseException) -> BaseException:
    """Return an error for another caller, with a traceback of its own if possible."""
    return copy(error) if isinstance(error, AnyforkError) else error


def _encoded(env: Any) -> dict[bytes, bytes] | None:
    """Return an environment as bytes; None for anything else, which the start refuses."""
    try:
        return {os.fsencode(name): os.fsencode(text) for name, text in env.items()}
    except (AttributeError, TypeError, ValueError):
        return None

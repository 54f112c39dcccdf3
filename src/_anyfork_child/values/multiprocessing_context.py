"""The classes of the multiprocessing context.

Both sides use them, because Process objects travel by pickle, with their class by its name. The owner starts processes
(anyfork._multiprocessing.popen); _anyfork_child.multiprocessing.process is the beginning of a process.
"""

from __future__ import annotations

import warnings
from multiprocessing import context, process

from .decode import find_function

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from multiprocessing.pool import Pool
    from typing import Any, ClassVar, Literal


class _StartMethod(str):
    """The name of the start method, which imports this module where it is unpickled and is thus known there.

    Processes of other contexts get it, too, as the start method that their program has set.
    """

    __slots__ = ()

    def __reduce__(self) -> tuple[object, ...]:
        return start_method, ()


def start_method() -> str:
    """Return the name of the start method. Importing this module has registered it."""
    return NAME


NAME = _StartMethod("anyfork")


class _ProcessClass(type):
    """The metaclass of process classes that belong to one context, and of their subclasses (see reduce_class)."""


class AnyforkProcess(process.BaseProcess):
    """A multiprocessing.Process that is forked from a template."""

    _start_method = NAME
    _template: ClassVar[Any] = None  # the template of the context; None is the default template

    @classmethod
    def _Popen(cls, process_obj: process.BaseProcess) -> Any:  # noqa: N802  # multiprocessing's name
        # A process of this context may start processes itself. It is their owner then, and needs the owner's modules.
        return find_function("anyfork._multiprocessing.popen:Popen")(process_obj, cls._template)

    def close(self) -> None:
        """Close the Process object. Raises ValueError while the process runs."""
        popen: Any = self._popen  # type: ignore[has-type]  # of the base class
        if popen is not None and not self._closed:  # type: ignore[has-type]  # as above
            code = popen.poll()
            if code is None:
                raise ValueError("cannot close a process that is still running: first call its join() or terminate()")
            popen.close()
            self._popen = _Ended(popen.pid, code)
            del self._sentinel  # type: ignore[attr-defined]  # of the base class
            process._children.discard(self)  # type: ignore[attr-defined]  # as the base class does
        self._closed = True


class _Ended:
    """A stand-in for the Popen object of a closed process.

    Before CPython 3.11.4, another thread that looks for ended processes polls it even then.
    """

    def __init__(self, pid: int, returncode: int) -> None:
        self.pid = pid
        self.returncode = returncode

    def poll(self) -> int:
        """Return the exit code."""
        return self.returncode


class AnyforkContext(context.BaseContext):
    """A multiprocessing context whose processes are forked from a template.

    ``anyfork.get_context`` makes one. In another process, a context arrives as the context of the default template
    there.
    """

    _name = NAME
    Process: type[AnyforkProcess] = AnyforkProcess

    def __init__(self, template: Any = None) -> None:
        if template is not None:
            members = {"_template": template, "__module__": __name__}
            name = AnyforkProcess.__name__
            self.Process = _ProcessClass(name, (AnyforkProcess,), members)  # type: ignore[assignment]  # it is one

    def Pool(  # noqa: N802  # multiprocessing's name
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
    ) -> Pool:
        """Return a multiprocessing Pool, by default with one process for each CPU that this program may use.

        Raises StartError in a program whose threads are greenlets of gevent or eventlet.
        """
        find_function("anyfork._system.polling:check_threads")("Pool")
        usable_cpus: Callable[[], int] = find_function("anyfork._system.cpus:usable_cpus")  # type: ignore[assignment]  # it is
        return super().Pool(usable_cpus() if processes is None else processes, initializer, initargs, maxtasksperchild)

    def set_forkserver_preload(
        self, module_names: list[str], *, on_error: Literal["ignore", "warn", "fail"] = "ignore"
    ) -> None:
        """Import modules in the template.

        ``on_error`` decides whether an ImportError is ignored, is a warning on the template's standard error, or fails
        the processes that are started afterwards. Raises ValueError if the context uses the default template instead of
        its own, and for any other ``on_error``; TypeError for names that are not strings.
        """
        if not all(type(name) is str for name in module_names):
            raise TypeError("set_forkserver_preload(): module_names must be a list of strings")
        if on_error not in ("ignore", "warn", "fail"):
            raise ValueError(f"set_forkserver_preload(): on_error must be 'ignore', 'warn' or 'fail', not {on_error!r}")
        template = self.Process._template
        if template is None:
            raise ValueError(
                "the default template stays as it is: preload modules in one of your own, "
                "get_context(Template().preload(...))"
            )
        if on_error == "fail":
            template.preload(*module_names)
        else:
            template.prepare(f"{__name__}:preload_found", list(module_names), on_error == "warn")

    def __reduce__(self) -> tuple[object, ...]:
        return default_context, ()

    def __repr__(self) -> str:
        template = self.Process._template
        return f"<AnyforkContext {'of the default template' if template is None else template}>"


def preload_found(names: list[str], warns: bool) -> None:
    """Import those of these modules that can be imported. Runs in the template."""
    for name in names:
        try:
            __import__(name)
        except ImportError as error:
            if warns:
                warnings.warn(f"cannot preload module {name!r}: {error}", ImportWarning, stacklevel=2)


def default_context() -> AnyforkContext:
    """Return the context of this process's default template, which multiprocessing has under the name of the method."""
    return context._concrete_contexts[NAME]  # type: ignore[attr-defined, no-any-return]  # not for everybody


def process_class() -> type[AnyforkProcess]:
    """Return the class of processes for a process that has no handle of the template."""
    return AnyforkProcess


def reduce_class(cls: _ProcessClass) -> tuple[object, ...] | None:
    """Return how the process class of a context with its own template travels, or None for subclasses, as usual."""
    return (process_class, ()) if "_template" in vars(cls) else None


REDUCERS: dict[type, Any] = {_ProcessClass: reduce_class}
# There is no other way to add a start method, and Process._bootstrap looks here for the method of its class.
context._concrete_contexts.setdefault(NAME, AnyforkContext())  # type: ignore[attr-defined]

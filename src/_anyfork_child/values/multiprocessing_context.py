"""The classes of the multiprocessing context.

Both sides use them, because Process objects travel by pickle, with their class by its name. The owner starts processes
(anyfork._blocking.multiprocessing.popen); _anyfork_child.multiprocessing.process is the beginning of a process.
"""

from __future__ import annotations

import warnings
from multiprocessing import context, process

from .decode import find_function

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from multiprocessing.pool import Pool
    from typing import Any, ClassVar, Literal, TypeAlias

    MainRule: TypeAlias = Literal["import"] | None  # what a process does with the program's __main__


class _StartMethod(str):
    """The name of a start method of ours, which is known wherever it is unpickled.

    Processes of other contexts get it, too, as the start method that their program has set.
    """

    main: MainRule = None

    def __reduce__(self) -> tuple[object, ...]:
        return start_method, (str(self), self.main)


def start_method(name: str, main: MainRule = None) -> str:
    """Return the name of a start method, and see to it that processes under this name come from a template."""
    return known_context(name, main).get_start_method()


NAME = _StartMethod("anyfork")


class _ProcessClass(type):
    """The metaclass of process classes that belong to one context, and of their subclasses (see reduce_class)."""


class AnyforkProcess(process.BaseProcess):
    """A multiprocessing.Process that is forked from a template.

    For example::

        import anyfork

        process = anyfork.get_context().Process(target=print, args=("hello",))
        process.start()
        process.join()
        assert process.exitcode == 0
    """

    _start_method: ClassVar[_StartMethod] = NAME
    _template: ClassVar[Any] = None  # the template of the context; None is the default template
    _main: ClassVar[MainRule] = None

    @classmethod
    def _Popen(cls, process_obj: process.BaseProcess) -> Any:  # noqa: N802  # multiprocessing's name
        # A process of this context may start processes itself. It is their owner then, and needs the owner's modules.
        return find_function("anyfork._blocking.multiprocessing.popen:Popen")(process_obj, cls)

    def close(self) -> None:
        """Close the Process object. Raises ValueError while the process runs.

        For example::

            import anyfork

            process = anyfork.get_context().Process(target=print, args=("hello",))
            process.start()
            process.join()
            process.close()
        """
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

    For example::

        import anyfork

        context = anyfork.get_context()
        queue = context.Queue()
        process = context.Process(target=lambda: queue.put(7))
        process.start()
        assert queue.get() == 7
        process.join()
    """

    _name = NAME
    Process: type[AnyforkProcess] = AnyforkProcess

    def __init__(self, template: Any = None, *, name: str = NAME, main: MainRule = None) -> None:
        if template is not None or name != NAME or main is not None:
            self._name = _StartMethod(name)
            self._name.main = main
            members = {"_template": template, "_start_method": self._name, "_main": main, "__module__": __name__}
            self.Process = _ProcessClass(AnyforkProcess.__name__, (AnyforkProcess,), members)  # type: ignore[assignment]  # it is one

    def Pool(  # noqa: N802  # multiprocessing's name
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
    ) -> Pool:
        """Return a multiprocessing Pool, by default with one process for each CPU that this program may use.

        Raises StartError in a program whose threads are greenlets of gevent or eventlet.

        For example::

            import anyfork

            with anyfork.get_context().Pool(1) as pool:
                assert pool.map(abs, [-1, -2]) == [1, 2]
        """
        find_function("anyfork._system.polling:check_threads")("Pool")
        usable_cpus: Callable[[], int] = find_function("anyfork._system.limits:usable_cpus")  # type: ignore[assignment]  # it is
        return super().Pool(usable_cpus() if processes is None else processes, initializer, initargs, maxtasksperchild)

    def set_forkserver_preload(
        self, module_names: list[str], *, on_error: Literal["ignore", "warn", "fail"] = "ignore"
    ) -> None:
        """Import modules in the template.

        ``on_error`` decides whether an ImportError is ignored, is a warning on the template's standard error, or fails
        the processes that are started afterwards. Raises ValueError if the context uses the default template instead of
        its own, and for any other ``on_error``; TypeError for names that are not strings.

        For example::

            import anyfork

            context = anyfork.get_context(anyfork.Template())
            context.set_forkserver_preload(["json"], on_error="fail")
        """
        if not all(type(name) is str for name in module_names):
            raise TypeError("set_forkserver_preload(): module_names must be a list of strings")
        if on_error not in ("ignore", "warn", "fail"):
            raise ValueError(f"set_forkserver_preload(): on_error must be 'ignore', 'warn' or 'fail', not {on_error!r}")
        template = self.Process._template
        if template is not None and not hasattr(template, "preload"):
            raise ValueError(
                "set_forkserver_preload(): a Warm loads the modules that it was made with: name them there"
            )
        if template is not None and on_error == "fail":
            template.preload(*module_names)
        elif template is not None:
            template.prepare(f"{__name__}:preload_found", list(module_names), on_error == "warn")
        elif on_error == "fail":
            raise ValueError(
                "set_forkserver_preload(): on_error='fail' would fail everything else that uses the default template: "
                "give the context a template of its own, get_context(Template().preload(...))"
            )
        else:
            find_function("anyfork._blocking.multiprocessing.popen:preload_by_default")(
                list(module_names), on_error == "warn"
            )

    def __reduce__(self) -> tuple[object, ...]:
        return known_context, (str(self._name), self._name.main)

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


def known_context(name: str = NAME, main: MainRule = None) -> AnyforkContext:
    """Return the context that multiprocessing has in this process under the name of one of our start methods.

    A name that is not ours here yet becomes ours.
    """
    found: object = _contexts.get(name)
    return found if isinstance(found, AnyforkContext) else install(AnyforkContext(name=name, main=main))


def install(ctx: AnyforkContext) -> AnyforkContext:
    """Let multiprocessing use a context wherever its name, or the default that has this name, is used."""
    replaced = _contexts.get(ctx._name)
    _contexts[str(ctx._name)] = ctx
    default: Any = context._default_context
    if default._default_context is replaced:
        default._default_context = ctx
    if default._actual_context is replaced:
        default._actual_context = ctx
    if ctx._name == "forkserver":
        from multiprocessing import forkserver  # only now: it loads sockets and selectors

        # The functions of the module multiprocessing call this one, whatever the default context is.
        forkserver.set_forkserver_preload = ctx.set_forkserver_preload  # type: ignore[assignment]  # that of 3.15
    return ctx


def make_default(ctx: AnyforkContext) -> None:
    """Let multiprocessing use a context unless the program sets a start method, as if its method were the default."""
    default: Any = context._default_context
    default._default_context = ctx


def process_class(name: str, main: MainRule) -> type[AnyforkProcess]:
    """Return the class of processes for a process that has no handle of the template."""
    return known_context(name, main).Process


def reduce_class(cls: _ProcessClass) -> tuple[object, ...] | None:
    """Return how the process class of a context of its own travels, or None for subclasses, as usual."""
    if "_template" not in vars(cls):
        return None
    name: _StartMethod = cls._start_method  # type: ignore[attr-defined]  # the class of such processes
    return process_class, (str(name), name.main)


REDUCERS: dict[type, Any] = {_ProcessClass: reduce_class}
# There is no other way to add a start method, and Process._bootstrap looks here for the method of its class.
_contexts: dict[str, Any] = context._concrete_contexts  # type: ignore[attr-defined]
_contexts.setdefault(NAME, AnyforkContext())

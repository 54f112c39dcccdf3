"""The multiprocessing context: its classes.

Both sides use them, because Process objects travel by pickle, with their class by its name. What starts a process is
the owner's part (anyfork._popen); how one begins is in _context_process.
"""

from __future__ import annotations

from multiprocessing import context, process

from ._values import find_function

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar


class _StartMethod(str):
    """The name of the start method, which is known wherever it comes to: processes of others get it, too, as the one
    that their program has set."""

    __slots__ = ()

    def __reduce__(self) -> tuple[object, ...]:
        return start_method, ()


def start_method() -> str:
    """The name. Importing this module has made it known."""
    return NAME


NAME = _StartMethod("anyfork")


class _ProcessClass(type):
    """The class of process classes that belong to one context, and of their subclasses (see reduce_class)."""


class AnyforkProcess(process.BaseProcess):
    """A multiprocessing.Process that is forked from a template."""

    _start_method = NAME
    _template: ClassVar[Any] = None  # of the context; None is the default template

    @classmethod
    def _Popen(cls, process_obj: process.BaseProcess) -> Any:  # noqa: N802  # multiprocessing's name
        # A process of this context may start processes itself. It is their owner then, and so needs what owners have.
        return find_function("anyfork._popen:Popen")(process_obj, cls._template)


class AnyforkContext(context.BaseContext):
    """What multiprocessing offers, with processes that are forked from a template.

    ``anyfork.get_context`` makes one. In another process a context arrives as that of the default template there.
    """

    _name = NAME
    Process: type[AnyforkProcess] = AnyforkProcess

    def __init__(self, template: Any = None) -> None:
        if template is not None:
            members = {"_template": template, "__module__": __name__}
            name = AnyforkProcess.__name__
            self.Process = _ProcessClass(name, (AnyforkProcess,), members)  # type: ignore[assignment]  # it is one

    def set_forkserver_preload(self, module_names: list[str]) -> None:
        """Import modules in the template, as its ``preload``. Raises ValueError where it is not this context's own."""
        template = self.Process._template
        if template is None:
            raise ValueError(
                "the default template stays as it is: preload modules in one of your own, "
                "get_context(Template().preload(...))"
            )
        template.preload(*module_names)

    def __reduce__(self) -> tuple[object, ...]:
        return default_context, ()

    def __repr__(self) -> str:
        template = self.Process._template
        return f"<AnyforkContext {'of the default template' if template is None else template}>"


def default_context() -> AnyforkContext:
    """The context of this process's default template: the one that multiprocessing knows by its name."""
    return context._concrete_contexts[NAME]  # type: ignore[attr-defined, no-any-return]  # not for everybody


def process_class() -> type[AnyforkProcess]:
    """The class of processes in a process that has no handle of the template."""
    return AnyforkProcess


def reduce_class(cls: _ProcessClass) -> tuple[object, ...] | None:
    """How the process class of a context with a template of its own travels; None for subclasses, as other classes."""
    return (process_class, ()) if "_template" in vars(cls) else None


REDUCERS: dict[type, Any] = {_ProcessClass: reduce_class}
# The names of start methods cannot be extended otherwise, and Process._bootstrap looks there for that of its class.
context._concrete_contexts.setdefault(NAME, AnyforkContext())  # type: ignore[attr-defined]

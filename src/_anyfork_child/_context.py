"""The multiprocessing context: its classes, and how one of its processes begins.

Both sides use these classes, because Process objects travel by pickle, with their class by its name. What starts a
process is the owner's part (anyfork._popen).
"""

from __future__ import annotations

import _socket
import atexit
import os
import sys
from multiprocessing import context, process, resource_tracker, spawn, util
from multiprocessing import queues as queues  # most processes get one: a template has what that needs

from ._definitions import ask_owner
from ._values import Descriptor, find_function, load_values

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence
    from typing import Any, ClassVar, NoReturn


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


def main(
    channel: socket.socket,
    preparation: dict[str, Any],
    environment: dict[bytes, bytes] | None,
    tracker: Descriptor,
    questions: Descriptor,
    body: bytes,
    descriptors: Sequence[Descriptor],
) -> NoReturn:
    """Be one process of a context, as multiprocessing.spawn._main is one of forkserver, without its ``__main__``.

    Nothing is said on the channel. The end of this side tells the parent process that all that is inherited is here,
    and the end of the other side that the parent process has ended.
    """
    atexit.register(util._exit_function)  # type: ignore[attr-defined]  # the template's are not ours
    _share_tracker(tracker.detach())
    ask_owner(questions.detach())
    if environment is not None and environment != os.environb:
        os.environb.clear()
        os.environb.update(environment)
    current: Any = process.current_process()
    current._inheriting = True
    try:
        spawn.prepare(preparation)
        (started,) = load_values(body, -1, [descriptor.detach() for descriptor in descriptors], ())
    finally:
        del current._inheriting
    try:
        channel.shutdown(_socket.SHUT_WR)
    except OSError:  # the parent process has closed its side
        pass
    sys.exit(started._bootstrap(parent_sentinel=channel.detach()))


def _share_tracker(fd: int) -> None:
    """Have resources tracked where the parent process has them tracked. A tracker of the template's is its own."""
    tracker: Any = resource_tracker._resource_tracker
    tracker._fd, tracker._pid = fd, None

"""The compiled part of a template: whether it is used or its twin in Python, and its loop.

It is there if a C compiler was when anyfork was built. ANYFORK_COMPILED=0 in the environment of a template forbids it;
ANYFORK_COMPILED=1 demands it.

Its loop is the twin of template.fork_loop, which goes on wherever this stops: it returns to Python for everything but
the usual start and end. In a new process the compiled part also does what template.entry and birth.exit do, for a usual
start, and calls the functions of this module for the rest.
"""

from __future__ import annotations

import _signal
import os
from _io import BufferedWriter, FileIO, TextIOWrapper
from _pickle import loads
from _thread import _count as count_threads
from atexit import _ncallbacks as count_handlers
from os import _exit, close, getpid

from ..birth.exit import end_copy, fail_call, flush, take_result, wind_up
from ..birth.preparation import function_name
from ..values.decode import CHECKED
from ..wire.channel import wait_for_memory
from ..wire.failure import Failure
from ..wire.frames import DETACHED
from . import shutdown
from .entry import enter as enter_in_python
from .entry import refuse_start
from .fork_check import refuse as refuse_fork
from .fork_hooks import choose_fork, find_lists
from .heap import SEVERAL
from .template import children_class

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType
    from typing import Any, NoReturn

    from .state import TemplateState
    from .template import Template

INTERFACE = 7  # of the compiled part that fits this module: one of another state of the sources may lie beside it
VARIABLE = "ANYFORK_COMPILED"


def use_compiled(template: Template) -> None:
    """Have the compiled part serve this template, if it is there and finds the interpreter's lists of its hooks.

    Raises ImportError if it is demanded and cannot be used.
    """
    fast = _load()
    template.hooks = lists = find_lists()
    if fast is None:
        return
    if lists is not None:
        fast.align_arenas()  # for template.heap
        template.choose_fork = lambda: choose_fork(fast, lists)
        template.compiled = CompiledLoop(fast)
        template.new_children = children_class(fast.ChildTable)
    elif os.environ.get(VARIABLE) == "1":
        raise ImportError(f"{VARIABLE}=1, but this interpreter does not show its lists of fork hooks: unset {VARIABLE}")


def _load() -> ModuleType | None:
    """Return the compiled part, or None if it is not there, does not fit, or is forbidden.

    Raises ImportError if it is demanded and cannot be used.
    """
    wish = os.environ.get(VARIABLE)
    if wish == "0":
        return None
    try:
        from . import _fast
    except ImportError as error:
        if wish == "1":
            raise ImportError(f"{VARIABLE}=1, but anyfork was built without its compiled part: {error}") from error
        return None
    if _fast.INTERFACE == INTERFACE:
        return _fast
    if wish == "1":
        raise ImportError(f"{VARIABLE}=1, but {_fast.__file__} is of another version: build anyfork anew")
    return None


class CompiledLoop:
    """The loop of one template, and of the processes that are forked from it."""

    __slots__ = ("_fast", "collapse", "make_immortal")

    def __init__(self, fast: ModuleType) -> None:
        self._fast = fast
        self.collapse = fast.collapse
        self.make_immortal = getattr(fast, "make_immortal", None)  # since Python 3.12

    def fits(self, template: TemplateState) -> bool:
        """Return whether the compiled loop can serve this template, which has just been settled.

        If it can, note what births need.
        """
        fast, children = self._fast, template.children
        if template.fork is not fast.fork or fast.runs_hooks_in_parent() or template.signals:
            return False
        if type(getattr(children, "by_pidfd", None)) is not fast.ChildTable or not children.dense:  # type: ignore[union-attr]
            return False
        fast.prepare_births(_parts(fast, template))
        return True

    def serve(self, template: TemplateState) -> list[Any] | None:
        """Serve a settled template until something unusual has been dealt with, or a process is born.

        Return the call if a function takes over this process, else None. The functions of most processes run in here.
        """
        children: Any = template.children
        channel = template.channel
        own = (channel.fd, template.lifeline, template.reports, children.epoll.fileno(), children.first, children.high)
        unusual = template.arguments or template.stdio or template.changed or template.flags & DETACHED
        usual = template.failure is None and not unusual
        renews = bool(template.resets) or self._fast.runs_hooks_in_child()
        what, children.high, forks, details = self._fast.serve(
            template,
            channel.sock,
            children.by_pidfd,
            own,
            (usual, renews, template.shows_function),
            max(SEVERAL - template.forks, 0) if template.collapses else -1,
            template.title.place(),
        )
        if what == self._fast.BORN_HERE:
            return None
        template.forks += forks
        return self._deal_with(template, what, details)

    def _deal_with(self, template: TemplateState, what: int, details: Any) -> list[Any] | None:
        fast, children = self._fast, template.children
        assert children is not None
        if what == fast.FRAME:
            return template.hear(*details)
        if what == fast.LIFELINE or (what == fast.WAIT and template.lifeline in children.wait(0)):
            shutdown.owner_gone(template)
        if what == fast.ENDED:
            children.tell_end(*details)
        elif what == fast.FORKED:
            _finish_fork(template, *details)
        elif what == fast.FAILED:
            _judge(template, details)
        elif what == fast.CHILDLESS:
            template.collapse_heap()
        return None


# --- In a new process --------------------------------------------------------------------------------------------


def _parts(fast: ModuleType, template: TemplateState) -> dict[str, Any]:
    """Return what the compiled part calls in a new process, by the names that it has there."""

    def be_born(template: TemplateState, flags: int) -> bool:
        """Complete the birth, with all that differs from the template; return whether it may start as usual."""
        template.forking = True
        fast.run_hooks_in_child()
        template.forking = False
        _note_birth(template, flags, getpid())  # not before: until now, SIGTERM ends a process that is not complete
        template.keep_signals()
        if template.resets or template.hook_errors:
            template.differ(b"", ())
        return template.failure is None and not template.changed

    return {
        "be_born": be_born,
        "refuse": _refuse,
        "enter": _enter,
        "loads": loads,
        "CHECKED": CHECKED,
        "find_function": template.find_function,
        "function_name": function_name,
        "end_copy": end_copy,
        "signal": _signal.signal,
        "SIG_DFL": _signal.SIG_DFL,
        "default_int_handler": _signal.default_int_handler,
        "take_result": take_result,
        "fail_call": fail_call,
        "wind_up": wind_up,
        "flush": flush,
        "_exit": _exit,
        "count_threads": count_threads,
        "count_handlers": count_handlers,
        "TextIOWrapper": TextIOWrapper,
        "BufferedWriter": BufferedWriter,
        "FileIO": FileIO,
        "SIGTERM": _signal.SIGTERM,
        "SIGINT": _signal.SIGINT,
        "SIGCHLD": _signal.SIGCHLD,
        "ignored": tuple(template.ignored),  # see entry.ignore_no_more
    }


def _note_birth(template: TemplateState, flags: int, pid: int) -> None:
    """Make the Template object that of a new process, whose descriptors are right already."""
    template.children = None
    template.settled = template.titled = False
    template.pid = pid
    template.flags = flags
    template.generation = 1
    template.forks = 0


def _refuse(template: TemplateState, flags: int, pid: int, error: BaseException) -> NoReturn:
    """Refuse a start of the process ``pid`` whose function or arguments cannot be decoded."""
    _note_birth(template, flags, pid)
    try:
        raise error  # its traceback gets a frame of ours, which the report leaves out
    except BaseException as raised:
        refuse_start(template, raised)


def _enter(template: TemplateState, flags: int, function: Callable[..., Any], name: bytes) -> None:
    """Enter a function whose owner does not listen, if it still may be entered."""
    _note_birth(template, flags, getpid())
    enter_in_python(template, [function], name)


# --- What the compiled part leaves to Python ---------------------------------------------------------------------


def _finish_fork(template: TemplateState, pid: int, fds: Sequence[int], reports: Sequence[int], flags: int) -> None:
    """Keep a process just forked that the compiled part could not keep: in another way, or not at all."""
    children = template.children
    assert children is not None
    if children.add(pid, fds[1], reports[0], flags):
        close(fds[0])
        close(fds[2])
        close(reports[1])
    else:
        refuse_fork(template, (*fds, *reports), template.forks - 1, Failure("fork", "", children.lost))
    template.forking = False
    if template.told_to_end:
        shutdown.terminated(template, template.told_to_end)


def _judge(template: TemplateState, number: int) -> None:
    """Judge an error of reading the control socket by its number: the owner has ended, or memory is short."""
    error = OSError(number, "the control socket cannot be read")
    if isinstance(error, ConnectionResetError):
        shutdown.owner_gone(template)
    wait_for_memory(error)

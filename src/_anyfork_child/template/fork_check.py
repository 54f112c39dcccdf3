"""The check before a fork: finds reasons why a template cannot fork, and makes its forks safe and cheap.

Runs in templates, before the first fork after user code has run.
"""

from __future__ import annotations

import _signal
import _socket
import atexit
import gc
import os
import sys
from _thread import _count as count_threads  # Python threads beside the main one; threading need not be loaded
from fcntl import F_DUPFD_CLOEXEC, fcntl

from ..birth.exit import fence_copies, flush_stdio
from ..birth.last_words import PARENT, report
from ..birth.randomness import numpy_reset
from ..values.decode import DescriptorsLostError
from ..wire.channel import Channel, close_all, is_patched, public_socket
from ..wire.failure import Failure, failure_of
from ..wire.frames import EXECUTES, FAILED, LOST, LOST_DESCRIPTOR, NOTED, SPARE, Frame
from ..wire.signals import default_actions, handled_signals, still_ignored
from ..wire.threads import ignore_warnings, subinterpreters, unsafe_threads
from .heap import has_large_heap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from .state import TemplateState

CHILDREN_DESCRIPTORS = 8  # at least the number of descriptors of Children
FROM_THE_START = (
    "the interpreter itself has started threads in the template, by sitecustomize, a .pth file or an option, and a "
    'fork does not copy them; use Template.new_exec(flags=["-S"]) or ["-I"], which keeps them away'
)

started_with = 0  # threads beside the main one that ran before any code of anyfork


def may_fork(template: TemplateState, fds: list[int], number: int, flags: int) -> bool:
    """Prepare this template for the fork of a FORK frame; return False, and tell the owner why, if it cannot fork."""
    failure = obstacle(template, fds, flags & EXECUTES)
    if failure is None and flags & SPARE and template.collapses and not len(template.children or ()):
        template.collapse_heap()  # spares are kept: there may never again be a moment without a process
        failure = obstacle(template, fds, flags & EXECUTES)
    if failure is None:
        return True
    told = template.told or not flags & SPARE  # nobody may ever read why a spare was refused
    refuse(template, fds, number, failure)
    template.told = told
    return False


def obstacle(template: TemplateState, fds: list[int], executes: int) -> Failure | None:
    """Prepare this template for forks if necessary; return the reason why it cannot fork, or None.

    ``fds`` are the descriptors of the request; they get other numbers if they are in the way. A fork that ``executes``
    an interpreter at once may leave threads and devices behind.
    """
    if LOST_DESCRIPTOR in fds:
        return Failure("fork", "", DescriptorsLostError())
    if template.failure is None and not template.settled:
        try:
            _prepare(template, fds)
        except OSError as error:
            return Failure("fork", "", error)
        except Failure as failure:
            template.failure = failure
        except Exception as error:  # a module of the program may hide one that is needed here
            template.failure = failure_of("prepare", "the first fork", error)
    if template.failure is not None and template.failure.category in ("threads", "devices") and executes:
        return _gather_children(template, fds)
    return template.failure


def _gather_children(template: TemplateState, fds: list[int]) -> Failure | None:
    """Prepare only the children object for a fork; return the reason why that is impossible, or None."""
    try:
        if template.children is None:
            _make_children(template, fds)
        template.children.gather(fds)  # type: ignore[union-attr]  # made above
    except OSError as error:
        return Failure("fork", "", error)
    return None


def refuse(template: TemplateState, fds: Sequence[int], number: int, failure: Failure) -> None:
    """Report that a fork failed: on the new process's socket, or on the template's own if that did not arrive."""
    template.told = True
    if fds[0] < 0:
        template.send(Frame(LOST, number, failure.pack()))
    else:
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, fds[0])
        try:
            Channel(sock).send(Frame(FAILED, 0, failure.pack()))
        except ConnectionError:
            pass
        sock.detach()
    close_all(fds)


def _prepare(template: TemplateState, fds: list[int]) -> None:
    """Prepare a process for its first fork, and again for the next fork after any other request."""
    if template.children is None:
        _make_children(template, fds)
    elif not (len(template.children) or template.children.gather(fds)):
        template.past.pop()  # the last entry is the current children object
        template.children.close()
        _make_children(template, fds)
    if template.changed:
        _settle_changed(template)
    template.children.gather(fds)  # type: ignore[union-attr]  # made above
    compiled = template.compiled
    if template.note:
        _tell_note(template, fds[1])
    template.loop = compiled if compiled is not None and compiled.fits(template) else None
    template.settled = True


def _tell_note(template: TemplateState, status: int) -> None:
    """Send a note for the owner's log on the status socket of the next process."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, status)
    try:
        Channel(sock).send(Frame(NOTED, template.pid, template.note.encode()))
        template.note = ""
    except OSError:  # the owner has dropped its handle, or memory is short: the next process takes the note
        pass
    finally:
        sock.detach()


def _make_children(template: TemplateState, fds: list[int]) -> None:
    """Make the children object with the lowest free descriptors, so that all later ones lie above (see Children)."""
    above = max(fds) + CHILDREN_DESCRIPTORS
    try:
        moved = [fcntl(fd, F_DUPFD_CLOEXEC, above) for fd in fds]
    except OSError:  # no descriptors left for the move, which is only an optimization
        moved = []
    close_all(fds if moved else ())
    fds[:] = moved or fds
    template.make_children()
    report(template.reports, PARENT)


def _settle_changed(template: TemplateState) -> None:
    channel, children = template.channel, template.children
    assert children is not None
    patched = is_patched()  # loads the socket module: once here instead of in each process
    if type(channel.sock) is _socket.socket and not patched:
        channel.sock = public_socket(channel.sock)  # the form in which every process gets its channel
        template.warm_up()
        template.show_idle()
    children.take_signals()  # the rehearsal has reset them
    needed = _settle(template.immortalize if template.immortal else None)
    template.fork = template.choose_fork()
    template.ignored = still_ignored(template.ignored)
    template.signals = tuple(n for n in handled_signals() if _signal.getsignal(n) != template.handler)
    if template.signals:
        needed.append(lambda: default_actions(template.signals))
    if patched:
        needed.append(lambda: setattr(template, "changed", True))  # the process then makes its channel a public socket
    template.resets = tuple(needed)
    template.user_hook, sys.unraisablehook = sys.unraisablehook, template.unraisable
    template.collapses = has_large_heap()
    template.changed = False


# --- Threads and garbage ------------------------------------------------------------------------------------


def note_threads() -> None:
    """Note the number of threads that this interpreter has started with."""
    global started_with
    started_with = count_threads()


def check_threads() -> None:
    """Raise Failure if a Python thread runs beside the main one: a fork would copy its locks without the thread.

    Raise it also if there is a subinterpreter, with which os.fork does not return.
    """
    count = count_threads()
    if count:
        threading = sys.modules.get("threading")
        others = [t.name for t in threading.enumerate() if t is not threading.main_thread()] if threading else []
        summary = "threads run in the template, and a fork does not copy them"
        raise Failure("threads", ", ".join(others) or "unknown", FROM_THE_START if count <= started_with else summary)
    others = subinterpreters()
    if others:
        raise Failure("threads", ", ".join(others), "the template has subinterpreters, with which it cannot be forked")


def _settle(immortalize: Callable[[], object] | None = None) -> list[Callable[[], object]]:
    """Flush output, collect garbage and freeze the rest; return the resets that each new process must run.

    Call ``immortalize`` when garbage is collected. Raises Failure if a native thread does not stop for a fork.
    """
    flush_stdio()
    ignore_warnings()
    _check_native_threads()
    if atexit._ncallbacks():
        fence_copies()
    gc.collect()
    if immortalize is not None:
        immortalize()
    gc.freeze()
    return resets()


def resets() -> list[Callable[[], object]]:
    """Return the functions that a copy of this process must call to reset state that it must not share.

    Exit handlers are not among it.
    """
    needed: list[Callable[[], object]] = []
    modules = sys.modules
    reseed_numpy = numpy_reset()
    if reseed_numpy is not None:
        needed.append(reseed_numpy)
    if "multiprocessing.process" in modules:
        needed.append(_reset_multiprocessing)
    if "uuid" in modules:
        needed.append(_reset_uuid)
    if "weakref" in modules and modules["weakref"].finalize._registered_with_atexit:
        needed.append(_reset_finalizers)
    wakeup = _signal.set_wakeup_fd(-1)
    if wakeup >= 0:
        _signal.set_wakeup_fd(wakeup)
        needed.append(_reset_wakeup)
    return needed


# --- Native threads ---------------------------------------------------------------------------------------------


def _check_native_threads() -> None:
    names = unsafe_threads()
    if names:
        raise Failure("threads", ", ".join(names), "native threads run in the template and do not stop for a fork")


# --- State that a new process does not keep from its template ---------------------------------------------------


def _reset_wakeup() -> None:
    _signal.set_wakeup_fd(-1)


def _reset_multiprocessing() -> None:
    process: Any = sys.modules["multiprocessing.process"]
    process.current_process().authkey = os.urandom(32)
    process._children = set()  # the children of the template


def _reset_uuid() -> None:
    # The node, the clock sequence and libuuid's own state are the same in every fork; without them uuid1 draws anew.
    uuid: Any = sys.modules["uuid"]
    uuid._node = uuid._last_timestamp = uuid._generate_time_safe = None


def _reset_finalizers() -> None:
    # weakref.finalize registers with atexit once, in the template; and the objects to finalize are the template's.
    finalize = sys.modules["weakref"].finalize
    for info in finalize._registry.values():
        info.atexit = False
    finalize._registered_with_atexit = False

"""The check before a fork: finds reasons why a template cannot fork, and prepares it for forks.

Runs in templates.
"""

from __future__ import annotations

import _signal
import _socket
import sys
from fcntl import F_DUPFD_CLOEXEC, fcntl

from ..birth.last_words import PARENT, report
from ..values.decode import DescriptorsLostError
from ..wire.channel import Channel, close_all, is_patched, public_socket
from ..wire.failure import Failure, failure_of
from ..wire.frames import FAILED, LOST, LOST_DESCRIPTOR, NOTED, Frame
from ..wire.signals import default_actions, handled_signals, still_ignored
from .fork_safety import settle
from .huge_pages import has_large_heap

CHILDREN_DESCRIPTORS = 8  # at least the number of descriptors of Children

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .state import TemplateState


def obstacle(template: TemplateState, fds: list[int], executes: int) -> Failure | None:
    """Prepare this template for forks if necessary; return the reason why it cannot fork, or None.

    ``fds`` are the descriptors of the request; they get other numbers if they are in the way. A fork that ``executes``
    an interpreter at once may leave threads and devices behind.
    """
    if LOST_DESCRIPTOR in fds:
        return Failure("fork", "", DescriptorsLostError())
    if template.failure is None and not template.settled:
        try:
            _settle(template, fds)
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


def _settle(template: TemplateState, fds: list[int]) -> None:
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
    resets = settle(template.immortalize if template.immortal else None)
    template.fork = template.choose_fork()
    template.ignored = still_ignored(template.ignored)
    template.signals = tuple(n for n in handled_signals() if _signal.getsignal(n) != template.handler)
    if template.signals:
        resets.append(lambda: default_actions(template.signals))
    if patched:
        resets.append(lambda: setattr(template, "changed", True))  # the process then makes its channel a public socket
    template.resets = tuple(resets)
    template.user_hook, sys.unraisablehook = sys.unraisablehook, template.unraisable
    template.collapses = has_large_heap()
    template.changed = False

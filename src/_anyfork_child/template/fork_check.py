"""Why a template cannot fork just now, and what has to be done before it can.

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
from ..wire.frames import FAILED, LOST, LOST_DESCRIPTOR, Frame
from ..wire.signals import default_actions, handled_signals
from .fork_safety import settle

CHILDREN_DESCRIPTORS = 8  # at least as many as Children has

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .template import Template


def obstacle(template: Template, fds: list[int], executes: int) -> Failure | None:
    """Prepare this template for forks where it is not; return why it cannot be forked.

    ``fds`` are the descriptors of the request. They get other numbers where they are in the way. A fork that
    ``executes`` an interpreter at once may leave threads behind.
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
        except Exception as error:  # a module of the program may hide one that this needs
            template.failure = failure_of("prepare", "the first fork", error)
    if template.failure is not None and template.failure.category == "threads" and executes:
        return _gather_children(template, fds)
    return template.failure


def _gather_children(template: Template, fds: list[int]) -> Failure | None:
    """Be able to fork, and no more; return why that is not possible."""
    try:
        if template.children is None:
            _make_children(template, fds)
        template.children.gather(fds)  # type: ignore[union-attr]  # made above
    except OSError as error:
        return Failure("fork", "", error)
    return None


def refuse(template: Template, fds: Sequence[int], number: int, failure: Failure) -> None:
    """Answer in the place of a process that could not be made; without its socket, on the template's own."""
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


def _settle(template: Template, fds: list[int]) -> None:
    """Before the first fork of a process, and before the next one after anything else was asked of it."""
    if template.children is None:
        _make_children(template, fds)
    elif not (len(template.children) or template.children.gather(fds)):
        template.past.pop()  # in the last place: itself
        template.children.close()
        _make_children(template, fds)
    if template.changed:
        _settle_changed(template)
    template.children.gather(fds)  # type: ignore[union-attr]  # made above
    template.settled = True


def _make_children(template: Template, fds: list[int]) -> None:
    """Make them with the lowest numbers there are: what comes later then lies above (see Children)."""
    above = max(fds) + CHILDREN_DESCRIPTORS
    try:
        moved = [fcntl(fd, F_DUPFD_CLOEXEC, above) for fd in fds]
    except OSError:  # no room for that: it is no more than convenient
        moved = []
    close_all(fds if moved else ())
    fds[:] = moved or fds
    template.make_children()
    report(template.reports, PARENT)


def _settle_changed(template: Template) -> None:
    channel, children = template.channel, template.children
    assert children is not None
    patched = is_patched()  # which loads the socket module: once here instead of in each process
    if type(channel.sock) is _socket.socket and not patched:
        channel.sock = public_socket(channel.sock)  # as every process gets its channel
        from .warm_up import rehearse

        rehearse(template.title)
        template.show_idle()
    children.take_signals()  # the rehearsal has given them up
    resets = settle()
    template.signals = tuple(n for n in handled_signals() if _signal.getsignal(n) != template.handler)
    if template.signals:
        resets.append(lambda: default_actions(template.signals))
    if patched:
        resets.append(lambda: setattr(template, "changed", True))  # so that it makes its channel a public socket
    template.resets = tuple(resets)
    template.user_hook, sys.unraisablehook = sys.unraisablehook, template.unraisable
    template.changed = False

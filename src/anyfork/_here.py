"""The running program as a template: a copy of it that never goes on in the program's own frames.

What is copied, and what the copy does about it, is in _anyfork_child._copy; whether it may be done at all, in _audit.
"""

from __future__ import annotations

import _signal
import _socket
import io
import os
import sys

from _anyfork_child._main import defined

from ._audit import Audit, take_audit
from ._errors import ArgumentError, ForkError, UnsafeTemplateError
from ._lifeline import open_lifeline
from ._link import Link
from ._offspring import offspring
from ._survey import instances
from ._template import Template

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NoReturn

    from _anyfork_child._main import Names

    from ._attributes import HasFileno
    from ._audit import OpenDescriptor


class UnsafeForkWarning(RuntimeWarning):
    """Something in the running program may not work in a template that is a copy of it."""


def fork_here(
    *, close_fds: bool | Iterable[int | HasFileno] = False, keep_fds: Iterable[int | HasFileno] = ()
) -> Template:
    """Return the running program, as it is at this line, as a template.

    Its modules, functions and data are there without any import; what comes later is not. Nothing of the program goes
    on in it: no ``finally``, exit handler or destructor runs twice. All descriptors of the program are open there too,
    except those of ``close_fds`` (descriptors or objects around them; True for all but the standard streams and those
    of ``keep_fds``). Threads, loops and locks are not copied, so call it early.

    Raises UnsafeTemplateError, naming the culprit, while threads or an event loop run, in a subinterpreter and at the
    interpreter's end. Warns with UnsafeForkWarning of native threads, of modules that do not survive a fork, and of
    open sockets that are in neither ``close_fds`` nor ``keep_fds``. Raises ForkError where the system refuses.
    """
    return Template._of(copy_program(close_fds, keep_fds))


def copy_program(close_fds: bool | Iterable[int | HasFileno] = False, keep_fds: Iterable[int | HasFileno] = ()) -> Link:
    """Fork this process into a template. Raises as fork_here."""
    offspring.reap()
    audit = take_audit()
    if audit.obstacles:
        reasons = "; ".join(audit.obstacles)
        threads = ", ".join(audit.threads)
        raise UnsafeTemplateError(f"this program cannot become a template: {reasons}", threads=threads)
    kept = _numbers("keep_fds", keep_fds, audit)
    closed = _closed(close_fds, kept, audit)
    _warn(audit, kept | closed)
    return _fork(closed | {one.fd for one in audit.descriptors if one.own})


# --- Descriptors ------------------------------------------------------------------------------------------------


def _closed(close_fds: bool | Iterable[int | HasFileno], kept: set[int], audit: Audit) -> set[int]:
    if close_fds is False:
        return set()
    if close_fds is True:
        return {one.fd for one in audit.descriptors if one.fd > 2} - kept
    closed = _numbers("close_fds", close_fds, audit)
    for fd in closed:
        if fd <= 2:
            raise ArgumentError(f"close_fds= has {fd}, a standard stream: give one to a fork with stdin= and the like")
        if fd in kept:
            raise ArgumentError(f"{fd} is in close_fds= and in keep_fds=")
    return closed


def _numbers(name: str, descriptors: Iterable[int | HasFileno], audit: Audit) -> set[int]:
    known = {one.fd for one in audit.descriptors}
    numbers = set()
    for one in descriptors:
        try:
            number = one if isinstance(one, int) else one.fileno()
        except (AttributeError, OSError, ValueError) as error:
            raise ArgumentError(f"{name}= has {one!r}, which has no descriptor: {error}") from error
        if number not in known:
            raise ArgumentError(f"{name}= has {one!r}, and descriptor {number} is not open")
        numbers.add(number)
    return numbers


def _warn(audit: Audit, decided: set[int]) -> None:
    """Warn of what may go wrong; of sockets only where nothing was said about them."""
    rest: list[OpenDescriptor] = [one for one in audit.descriptors if one.fd not in decided]
    hazards = Audit(audit.pid, (), audit.native_threads, descriptors=rest, modules=audit.modules).hazards
    if hazards:
        import warnings

        for hazard in hazards:
            warnings.warn(f"the template is a copy of this program, and {hazard}", UnsafeForkWarning, stacklevel=4)


# --- The fork ---------------------------------------------------------------------------------------------------


def _fork(unwanted: set[int]) -> Link:
    _flush_files()
    control, far = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
    link = Link(control, None, None)
    link.is_copy, link.main = True, defined()
    try:
        line, flags = open_lifeline()
        try:
            pid = _copy(far.fileno(), line, flags, link, unwanted)
        finally:
            os.close(line)
    except OSError as error:
        link.let_go()
        failure = ForkError(f"the system refused a copy of this program: {error}")
        failure.errno = error.errno
        raise failure from error
    finally:
        far.close()
    link.session.pid = link.child = pid
    link.session.forks = 1  # what takes it over is a clone of it: only a template can reap for others
    return link


def _copy(far: int, line: int, flags: int, link: Link, unwanted: set[int]) -> int:
    owner, main = os.getpid(), link.main
    unwanted = {*unwanted, *link.descriptors()} - {-1}
    mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _become_template(far, line, flags, owner, main, unwanted)
    finally:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
    return pid


def _become_template(far: int, line: int, flags: int, owner: int, main: Names, unwanted: set[int]) -> NoReturn:
    """Runs in the copy. Whatever happens, the program's own frames must not go on in it."""
    try:
        from _anyfork_child._copy import become_template  # only now: the program has no use for a template's code

        become_template(far, line, flags, owner, main, unwanted)
    except BaseException:
        sys.__excepthook__(*sys.exc_info())
    finally:
        os._exit(1)


def _flush_files() -> None:
    """Write out what files of the program have buffered: a copy has those buffers too."""
    for kind in (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom):  # those of text go to those of bytes
        for file in instances(kind):
            try:
                file.flush()
            except (OSError, ValueError):  # closed, or it fails when the program writes it, too
                pass

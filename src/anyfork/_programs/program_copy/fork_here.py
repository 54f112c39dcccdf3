"""The running program as a template: a copy of it in which the program's own frames never go on.

_anyfork_child.template.program_copy says what is copied, and what the copy does about it; audit decides
whether the program may be copied.
"""

from __future__ import annotations

import _signal
import gc
import io
import os
import sys

from _anyfork_child.values.functions_by_value import Receiver
from _anyfork_child.values.objects_of_main import common
from _anyfork_child.wire.descriptors import Owned, duplicates, socket_pair
from _anyfork_child.wire.own_imports import import_own
from _anyfork_child.wire.platform import has_pidfds
from _anyfork_child.wire.threads import Unwarned
from _anyfork_child.wire.unsafe_modules import unsafe_modules

from ..._blocking.template import Template
from ..._errors import ArgumentError, ForkError, UnsafeTemplateError
from ..._processes.link import Link
from ..._system.import_path import is_importable, later_places, place_of
from ..._system.lifeline import open_lifeline
from ..._system.link_socket import quiet
from ..._system.this_process import reaper
from . import survey
from .audit import hazards, list_descriptors, obstacles

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Iterable
    from typing import Any, NoReturn

    from _anyfork_child.values.objects_of_main import SharedMain

    from ..._processes.attributes import HasFileno
    from .audit import OpenDescriptor


class UnsafeForkWarning(RuntimeWarning):
    """A part of the running program may not work in a template that is a copy of the program.

    For example::

        import warnings
        import anyfork

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", anyfork.UnsafeForkWarning)
            anyfork.fork_here().close()
    """

    __module__ = "anyfork"


def fork_here(
    *, close_fds: bool | Iterable[int | HasFileno] = False, keep_fds: Iterable[int | HasFileno] = ()
) -> Template:
    """Return the running program, as it is at this line, as a template.

    Its modules, functions and data are there without any import; later changes to the program are not. Nothing of the
    program goes on in the template: no ``finally``, exit handler or destructor runs twice. All descriptors of the
    program are open there too, except those in ``close_fds`` (descriptors or objects around them; True for all but the
    standard streams and those in ``keep_fds``). Threads and loops are not copied, and locks are copied as they are:
    call fork_here early, and with no lock held.

    Raises UnsafeTemplateError, naming the culprit, while threads or an event loop run, in a subinterpreter and at the
    interpreter's end. Warns with UnsafeForkWarning of native threads, of modules that do not survive a fork, of open
    GPUs, and of sockets that are in neither ``close_fds`` nor ``keep_fds``. Raises ArgumentError for descriptors that
    are not open, and ForkError where the system refuses.

    For example::

        import anyfork

        table = {number: number**2 for number in range(1000)}

        def look_up(channel, number):
            with channel:
                channel.sendall(b"%d" % table[number])

        with anyfork.fork_here() as template, template.fork().run(look_up, 30) as process:
            assert process.channel.recv(100) == b"900"
    """
    return Template._of(copy_program(close_fds, keep_fds))


def copy_program(close_fds: bool | Iterable[int | HasFileno] = False, keep_fds: Iterable[int | HasFileno] = ()) -> Link:
    """Fork this process into a template. Raises the errors of fork_here."""
    reaper.reap()
    _check()
    descriptors = list_descriptors()
    kept = _numbers("keep_fds", keep_fds, descriptors)
    closed = _closed(close_fds, kept, descriptors)
    sockets = [one for one in descriptors if one.is_foreign_socket and one.fd not in kept | closed]
    _warn(hazards(survey.native_threads(), sockets, unsafe_modules(), survey.gpus()))
    return _fork(closed | {one.fd for one in descriptors if one.own})


def _check() -> None:
    threads = survey.python_threads()
    reasons = obstacles(
        threads, survey.running_loops(), survey.in_main_interpreter(), sys.is_finalizing(), survey.subinterpreters()
    )
    if reasons:
        text = f"this program cannot become a template: {'; '.join(reasons)}"
        raise UnsafeTemplateError(text, threads=", ".join(threads))


def _warn(found: Iterable[str]) -> None:
    for hazard in found:
        import warnings  # only now: most programs cause no warning, and it may not be loaded yet

        warnings.warn(f"the template is a copy of this program, and {hazard}", UnsafeForkWarning, stacklevel=4)


# --- Descriptors ------------------------------------------------------------------------------------------------


def _closed(
    close_fds: bool | Iterable[int | HasFileno], kept: set[int], descriptors: Iterable[OpenDescriptor]
) -> set[int]:
    if close_fds is False:
        return set()
    if close_fds is True:
        return {one.fd for one in descriptors if one.fd > 2} - kept
    closed = _numbers("close_fds", close_fds, descriptors)
    for fd in closed:
        if fd <= 2:
            raise ArgumentError(f"close_fds= has {fd}, a standard stream: give one to a fork with stdin= and the like")
        if fd in kept:
            raise ArgumentError(f"{fd} is in close_fds= and in keep_fds=")
    return closed


def _numbers(name: str, given: Iterable[int | HasFileno], descriptors: Iterable[OpenDescriptor]) -> set[int]:
    known = {one.fd: one for one in descriptors}
    try:
        asked = list(given)
    except TypeError as error:
        raise ArgumentError(f"{name}= must be descriptors, or objects that have some, in a list: {error}") from error
    numbers = set()
    for one in asked:
        try:
            number = one if isinstance(one, int) else one.fileno()
        except (AttributeError, OSError, ValueError) as error:
            raise ArgumentError(f"{name}= has {one!r}, which has no descriptor: {error}") from error
        if number not in known:
            raise ArgumentError(f"{name}= has {one!r}, and descriptor {number} is not open")
        if known[number].own:
            raise ArgumentError(f"{name}= has {one!r}, which belongs to a handle of anyfork: no template gets it")
        numbers.add(number)
    return numbers


# --- The fork ---------------------------------------------------------------------------------------------------


def _fork(unwanted: set[int]) -> Link:
    _flush_files()
    main = common()
    ends: list[_socket.socket] = []
    link: Link | None = None
    try:
        ends += socket_pair()
        ends[0] = quiet(ends[0])
        line, flags = open_lifeline()
        link = Link(ends[0], None, None)
        link.receiver = Receiver(is_importable, main, place_of=place_of, places=later_places)
        try:
            _copy(link, main, ends[1].fileno(), line.fds[0], flags, unwanted | {ends[0].fileno()})
        finally:
            line.close()
        return link
    except BaseException as error:
        if link is not None:
            link.close_template()
        raise _why(error) from error
    finally:
        for end in ends if link is None else ends[1:]:
            end.close()


def _why(error: BaseException) -> BaseException:
    """Return the exception to raise instead of this one."""
    if isinstance(error, RuntimeError):  # raised by CPython, which does not fork at the interpreter's end
        return UnsafeTemplateError("this program cannot become a template: the interpreter is ending", threads="")
    if not isinstance(error, OSError):
        return error
    failure = ForkError(f"fork failed in this program: {error}")
    failure.errno = error.errno
    return failure


def _copy(link: Link, main: SharedMain, far: int, line: int, flags: int, unwanted: set[int]) -> None:
    """Fork with signals blocked, because no handler may run in between, and without garbage collection, because the
    garbage of this process must not be finalized in the copy too.
    """
    owner, collects = os.getpid(), gc.isenabled()
    mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
    gc.disable()
    try:
        with Unwarned():
            pid = os.fork()
        if pid == 0:
            _become_template(far, line, flags, owner, main, unwanted, collects)
        _take_charge(link, pid)
    finally:
        if collects:
            gc.enable()
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)


def _take_charge(link: Link, pid: int) -> None:
    session = link.session
    session.pid = link.child = pid
    session.status_ended = True  # no template reports its end
    try:
        if has_pidfds():
            opened = Owned(map(os.pidfd_open, (pid,)))
            [session.pidfd] = duplicates(opened.fds)
    except OSError:  # out of descriptors: then the exit status stays unknown
        pass


def _become_template(
    far: int, line: int, flags: int, owner: int, main: SharedMain, unwanted: set[int], collects: bool
) -> NoReturn:
    """Turn the copy into a template. Runs in the copy. In no case may the program's own frames go on in it."""
    try:
        # Imported only now: the program has no use for a template's code.
        copy: Any = import_own("_anyfork_child.template.program_copy")
        copy.become_template(far, line, flags, owner, main, unwanted, collects)
    except BaseException:
        sys.__excepthook__(*sys.exc_info())
    finally:
        os._exit(1)


def _flush_files() -> None:
    """Flush the program's files: a copy has their buffers too."""
    found = survey.instances(io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)
    for file in (sys.stdout, sys.stderr, *found):  # text files come first: they flush into binary files
        try:
            file.flush()
        except Exception:  # it is closed, or the user's file raises anything, as it does when the program flushes it
            pass

"""The flows of waiting: what each question to a handle waits for, and in which order.

A flow is a generator without I/O of its own: it yields what it needs, a face waits for it in its own way
(_blocking.waiting, aio) and sends back whether it came in time. So the faces decide nothing, and both behave the same.
"""

from __future__ import annotations

from _signal import SIGKILL

from _anyfork_child import __version__

from .._errors import HandleError, LaunchError, NotReadyError
from .._status import ExitStatus
from .._system.interpreter import OTHER_PARTS, TOO_OLD
from .._system.log import DEBUG, INFO, logger_for
from .._system.polling import is_ready
from .._system.timeouts import seconds
from .session import CLOSED, GONE, MOVED, PREPARING
from .start import add_next_spare, add_spares

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Generator
    from typing import TypeAlias, TypeVar

    from .._errors import AnyforkError
    from .endpoints import Source
    from .link import Link
    from .session import Report, Session

    Result = TypeVar("Result")
    Moved = TypeVar("Moved", bound=socket.socket)
    # The link whose sockets bring the event; whether it has come; its source; how many seconds to wait at most.
    Need: TypeAlias = tuple[Link, Callable[[], bool], Callable[[], Source | None], float | None]
    Flow: TypeAlias = Generator[Need, bool, Result]

NAME = "name another one with python= or in ANYFORK_PYTHON"
NEEDED = "anyfork needs a Python 3.11 or newer there, named with python= or in ANYFORK_PYTHON"
USE = {CLOSED: "do that before you close the handle", MOVED: "use the handle that it was moved to"}
imports_told: dict[str, object] = {}  # the modules of which the log of this program says that processes import them
# Seconds to learn how a template whose forks failed has ended: it is reaped at once, or was killed too.
TEMPLATE_END_TIMEOUT = 1.0


# --- Templates --------------------------------------------------------------------------------------------------


def prepare(link: Link, timeout: float | None) -> Flow[None]:
    """Wait until a template has done what it was asked. Raises its failure, or TimeoutError; it goes on then."""
    link.check("ready")
    limit = seconds(timeout)
    number = link.ask()

    def answered() -> bool:
        return link.session.answers >= number or link.answered() or not link.preparing()

    if not (yield link, answered, link.answer_source, limit):
        raise TimeoutError(
            f"template {link.session.pid or ''} was not ready within {timeout} seconds; it goes on: wait again"
        )
    link.check("ready")
    if not link.session.succeeded_at(number):
        raise (yield from explain(link))
    if link.spares is not None:
        add_spares(link)
    _log_part(link.session)
    _log_note(link.session)


def _log_part(session: Session) -> None:
    """Log whether the compiled part serves a template that is ready."""
    log = logger_for(DEBUG)
    if log is not None:
        server = "the compiled part" if session.compiled else "Python code"
        log("template %s is ready; %s serves it", session.pid, server)


def hand_over(link: Link, kind: type[Moved]) -> Flow[Moved]:
    """Wait until everything queued is delivered, and status socket and pidfd are left with the template for its next
    owner.

    Return the control socket as a socket of the class ``kind``. Raises an error that says what became of the template.
    """
    link.check("detach")
    if link.remote:
        raise HandleError(
            f"detach() on a template on {link.session.host}: its connection belongs to this process; make another there"
        )
    yield from birth(link)
    status, pidfd = link.status, link.session.pidfd
    if status is None or link.session.status is not None:
        raise (yield from explain(link))
    try:
        link.begin_detaching([status.fd, pidfd] if pidfd >= 0 else [status.fd])
        yield link, link.delivered, link.nothing, None
        moved = link.detach_control(kind)
    except BaseException:  # the wait was broken off: the handle stays usable
        link.stop_detaching()
        raise
    link.let_go()
    return moved


# --- Processes --------------------------------------------------------------------------------------------------


def check(link: Link, use: str) -> None:
    """Raise HandleError for the handle of a process that must not be used any more. ``use`` is "wait()" or another."""
    if link.foreign:
        raise HandleError(
            f"{use} on a process handle in a forked copy of its owner: handles do not work there; ask the owner"
        )
    if link.session.phase in (CLOSED, MOVED):
        raise HandleError(f"{use} on a process handle that was {link.session.phase.value}: {USE[link.session.phase]}")


def enter(link: Link, timeout: float | None, use: str = "ready()") -> Flow[None]:
    """Wait until a process has entered its function. Raises why it has not; after the timeout it is killed and never
    will.
    """
    check(link, use)
    limit, link.unclaimed = seconds(timeout), False  # who waits here ends the process after an interrupt
    if not (yield link, link.answered_or_used_up, link.answer_source, limit):
        if link.revoke():
            text = f"the process did not enter its function within {timeout} seconds; it was killed"
            if link.remote:
                text += f"; on {link.session.host} it may have entered it meanwhile"
            raise NotReadyError(text, may_have_run=link.remote)
        return
    check(link, use)
    if not link.session.succeeded:
        raise (yield from explain(link))
    if link.session.imported is not None:
        _log_import(*link.session.imported)


def _log_import(module: str, duration: float) -> None:
    """Log, once for each module, that a process had to import the module of its function."""
    log, this_time = logger_for(INFO), object()
    if log is not None and imports_told.setdefault(module, this_time) is this_time:
        log(
            "run(): the process had to import %s for its function, which took %.1f ms, and each further one has to; "
            "have its template do that once: template.preload(%r)",
            module,
            duration * 1e3,
            module,
        )


def entered(link: Link, timeout: float | None) -> Flow[bool]:
    """Return whether the timeout suffices to learn if a process has entered its function; it goes on otherwise."""
    check(link, "ready()")
    return (yield link, link.answered_or_used_up, link.answer_source, timeout)


def birth(link: Link) -> Flow[None]:
    """Wait until the template has forked the process, or never will."""
    link.release()
    if link.origin is not None:
        add_next_spare(link)
    if link.status is None:
        yield from _ends(link)
    if not link.read_news(link.born_or_not):
        yield link, link.born_or_used_up, link.status_source, None


def end(link: Link, timeout: float | None) -> Flow[ExitStatus]:
    """Wait until a process has ended and return its exit status. Raises TimeoutError."""
    check(link, "wait()")
    limit = seconds(timeout)
    if link.origin is not None:
        add_next_spare(link)
    if link.status is None:
        yield from _ends(link)
    if not link.read_news(link.ended) and not (yield link, link.ended_or_used_up, link.status_source, limit):
        waiting = _channel_state(link)
        raise TimeoutError(f"process {link.session.pid} has not ended within {timeout} seconds{waiting}")
    if link.session.status is None:
        check(link, "wait()")
    yield from _learn_why(link)
    status = link.session.status
    assert status is not None
    _log_note(link.session)
    return status


def _log_note(session: Session) -> None:
    """Log what a template has said with its latest process, once."""
    note, session.note = session.note, ""
    log = logger_for(INFO) if note else None
    if log is not None:
        log(note)


def _channel_state(link: Link) -> str:
    """Say how the channel may be the reason why a process does not end."""
    unread = link.unread()
    if unread:
        return f"; {unread} bytes of it are unread in the channel: read them, or close the channel"
    if unread == 0:
        return "; the channel is still open here: close it if the process reads until its end"
    return ""


def leave(link: Link) -> Flow[None]:
    """Close the control socket, which nobody has requested as a channel, so that the function sees its end."""
    yield link, link.answered_or_used_up, link.answer_source, None
    link.close_control()


def put_down(link: Link) -> Flow[None]:
    """Kill a process and wait until it has ended; wait a short time for its status: its template may be stopped."""
    link.signal_now_or_at_birth(SIGKILL)
    pidfd = link.session.pidfd
    if pidfd >= 0:
        yield link, lambda: link.ended() or _readable(pidfd), lambda: (pidfd, lambda: None), None
    yield link, link.ended, link.status_source, TEMPLATE_END_TIMEOUT


def look(link: Link, use: str = "poll()") -> Flow[None]:
    """Learn whether a process has ended. If its pidfd says so, wait a moment for the template to report how."""
    check(link, use)
    if link.origin is not None:
        add_next_spare(link)
    yield from _ends(link)
    ended = link.read_news(link.ended) or (yield link, link.ended, link.status_source, 0.0)
    if not ended and _readable(link.session.pidfd):
        yield link, link.ended, link.status_source, TEMPLATE_END_TIMEOUT
    yield from _learn_why(link)
    _log_note(link.session)


def why_gone(link: Link) -> Flow[str]:
    """Return why a template can never be forked again; empty if it can."""
    if link.session.phase is PREPARING:  # asked here, as its handle may be closed while an async face begins the flow
        yield from look(link)
    if link.session.phase is not PREPARING:
        return "the handle of the template was closed"
    return "" if link.session.status is None else f"the template has ended ({link.session.status})"


def _learn_why(link: Link) -> Flow[None]:
    """Add the reason to the status of a process that was never forked."""
    session = link.session
    status = session.status
    if session.born or session.pid is not None or status is None or status.known or status.error is not None:
        return
    if not link.closed and session.expects_control:
        yield link, link.answered, link.answer_source, TEMPLATE_END_TIMEOUT
    if not (session.born or session.pidfd >= 0 or link.child):
        session.status = ExitStatus(error=str((yield from explain(link))))


def _readable(fd: int) -> bool:
    return fd >= 0 and is_ready(fd)


def signal(link: Link, number: int, use: str) -> Flow[None]:
    """Send the process a signal, after waiting for its birth."""
    check(link, use)
    yield from birth(link)
    link.signal(number)


def end_descriptor(link: Link) -> Flow[int]:
    """Return the pidfd; if there is none, the status socket, which brings the report of the end."""
    check(link, "fileno()")
    yield from birth(link)
    session = link.session
    if session.status is not None or (session.status_ended and session.pidfd < 0):
        raise HandleError("fileno() on a process that has ended: its descriptor is closed; ask poll() or wait() before")
    return session.pidfd if session.pidfd >= 0 or link.status is None else link.status.fd


def _ends(link: Link) -> Flow[None]:
    """Wait for the first answer to a handle from another process, which brings its status socket and pidfd."""
    if link.status is None and not link.session.answers and link.session.status is None:
        yield link, link.answered_or_used_up, link.answer_source, None


# --- Reasons for a failed answer --------------------------------------------------------------------------------


def explain(link: Link) -> Flow[AnyforkError]:
    """Return the error that says what became of a process, or of the template that should have forked it."""
    session = link.session
    if (yield from _failed_to_boot(link)):
        return _launch_error(link)
    if link.child and session.pidfd >= 0:
        yield link, link.ended, link.status_source, TEMPLATE_END_TIMEOUT
    parent = link.parent
    if parent is None or session.born or session.report is not None:
        return session.why("", _output(link))
    lost = yield from _find_lost(parent, link.number)
    if lost is not None:
        return lost.error()
    if (yield from _failed_to_boot(parent)):
        return _launch_error(parent)
    refusal = _refused_above(link)
    if refusal is not None:
        return refusal
    fate = GONE if link.remote and not parent.remote else (yield from _fate(parent))  # the fate of a relay says nothing
    return session.why(fate, _output(link))


def _output(link: Link) -> str:
    return link.output.tail() if link.output is not None else ""


def _failed_to_boot(link: Link) -> Flow[bool]:
    session = link.session
    if link.interpreter and link.status is None and not session.answers:  # the default template, which is never asked
        yield link, link.heard, link.control_source, TEMPLATE_END_TIMEOUT
    return bool(link.interpreter) and not session.answers and session.control_ended and session.report is None


def _launch_error(link: Link) -> LaunchError:
    said = _output(link)
    version = said.rpartition(TOO_OLD)[2].strip()
    if version != said.strip() and version.replace(".", "").isdigit():
        text = f"the interpreter {link.interpreter!r} is Python {version}, and anyfork needs 3.11 or newer: {NAME}"
        return LaunchError(text, stderr=said)
    if OTHER_PARTS in said:
        other, _, place = said.rpartition(OTHER_PARTS)[2].strip().partition("|")
        text = (
            f"the interpreter {link.interpreter!r} has anyfork {other} in {place}, and this program has {__version__}: "
            "install the same version there, or none"
        )
        return LaunchError(text, stderr=said)
    how = f" ({link.session.status})" if link.session.status else ""
    text = f"the interpreter {link.interpreter!r} did not come up as a template{how}; {NEEDED}"
    return LaunchError(f"{text}; it said:\n{said}" if said else text, stderr=said)


def _find_lost(template: Link, number: int) -> Flow[Report | None]:
    """Return a template's report, on its own socket, about a fork that did not even get its socket.

    The template sends it right after that fork's socket has come to its end, if it still can.
    """

    def known() -> bool:
        while number not in template.session.lost and template.overhear():
            pass
        return number in template.session.lost or template.session.control_ended or template.closed

    yield template, known, template.control_source, TEMPLATE_END_TIMEOUT
    return template.session.lost.get(number)


def _refused_above(link: Link) -> AnyforkError | None:
    """Return why the template of this process was never born, if that is why this process was not born either."""
    parent, session = link.parent, link.session
    if parent is None or session.born or session.report is not None or parent.session.born:
        return None
    parent.learn_refusal()
    return _refused_above(parent) if parent.session.report is None else parent.session.report.error()


def _fate(template: Link) -> Flow[str]:
    session = template.session
    if session.status is None and (template.status is not None or session.pidfd >= 0):
        yield template, template.ended, template.status_source, TEMPLATE_END_TIMEOUT
    return str(session.status) if session.status is not None and session.status.known else GONE

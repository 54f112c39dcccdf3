"""The start of templates, and their takeover by a function: requests of both faces to a link, without waiting."""

from __future__ import annotations

import _socket
import os
import sys
from functools import partial
from time import monotonic

from _anyfork_child.values.decode import change_places, file_name
from _anyfork_child.values.encode import INLINE, Encoded, pickle_into
from _anyfork_child.wire.descriptors import FIRST, Owned, lift, socket_pair
from _anyfork_child.wire.frames import (
    ADOPT,
    DETACHED,
    EXECUTES,
    FORK,
    MAX_BODY,
    PREPARE,
    PROGRAM,
    SPARE,
    START,
    STDIO,
    Frame,
)
from _anyfork_child.wire.memfd import new_file, write_stepwise
from _anyfork_child.wire.own_imports import warm
from _anyfork_child.wire.resource_tracker import MODULE
from _anyfork_child.wire.signals import comes_from_outside

from .._errors import AnyforkError, ArgumentError
from .._system.import_path import changes
from .._system.lifeline import open_lifeline
from .._system.link_socket import quiet
from .._system.locks import do_locked, try_locked
from .._system.log import DEBUG, logger_for
from .._system.pipes import streams_of
from .._system.stderr import StderrTail
from .arguments import encode_call
from .default_template import default_template
from .launch import initialise
from .link import Link
from .resource_tracker import share_tracker
from .session import PREPARING
from .spares import Spares

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence

PAIR = (_socket.AF_UNIX, _socket.SOCK_STREAM)
NOTHING, NO_FILE = Encoded(), Owned()
# Attributes with which a template can start a program without a fork of itself. It cannot with an environment, which
# may contain secrets: they must not stay in its memory.
FOR_PROGRAMS = frozenset((*STDIO, "cwd", "umask", "new_session", "detached", "title"))


def fork(parent: Link, attributes: Mapping[str, object], encoded: Encoded, more: int = 0) -> Link:
    """Ask a template for a fork: make two socketpairs and a lifeline, and send the far ends in one frame; await
    nothing.

    ``more`` are further bits of the frame's value. Raises ArgumentError for attributes that cannot travel.
    """
    _tell_news(parent)
    if parent.spares is not None:
        return _fork_with_spares(parent, parent.spares, attributes, encoded, more)
    return _fork_now(parent, attributes, encoded, more)


def _fork_now(parent: Link, attributes: Mapping[str, object], encoded: Encoded, more: int) -> Link:
    body, file = _body(parent, encoded)
    try:
        return _fork(parent, attributes, body, (*encoded.fds, *file.fds), more)
    finally:
        file.close()


def _fork_with_spares(
    parent: Link, spares: Spares[Link], attributes: Mapping[str, object], encoded: Encoded, more: int
) -> Link:
    """Return a spare if there is one and no attributes are asked for; else ask for a fork."""
    if spares.maximum is None:
        spares.note_start(monotonic())
    link = spares.take(parent) if encoded is NOTHING else None
    if link is None:
        link = _fork_now(parent, attributes, encoded, more)
    link.origin = parent
    return link


def keep_spares(template: Link, maximum: int | None) -> None:
    """Have a template keep so many spares from now on; None: as many as its starts ask for."""
    if template.spares is None:
        if maximum == 0:
            return
        template.spares = Spares()
    template.spares.maximum = maximum
    template.spares.end(template.spares.wanted(template.session.forks))
    add_spares(template)


def add_spares(template: Link) -> None:
    """Have a template make the spares that are missing, unless another thread is using its link: then later."""
    spares = template.spares
    if spares is not None and len(spares) < spares.wanted(template.session.forks) and not template.foreign:
        try_locked(template.lock, partial(_add_spares, template, spares))


def _add_spares(template: Link, spares: Spares[Link]) -> None:
    if not template.remote and spares.scarce():
        spares.end()
        return
    wanted = spares.wanted(template.session.forks)
    while len(spares) < wanted and template.session.phase is PREPARING and not template.outbox.broken:
        _tell_news(template)  # first: what it is told makes the spares before stale
        changes = spares.changes
        try:
            spare = _fork(template, {}, b"", (), SPARE)
        except OSError as error:
            if comes_from_outside(error):
                raise
            _log_failure(template, error)
            return
        spares.add(spare, changes)


def _log_failure(template: Link, error: OSError) -> None:
    """Log why a spare could not be asked for: starts go on without."""
    log = logger_for(DEBUG)
    if log is not None:
        log("template %s has no spare now: %s", template.session.pid, error)


def add_next_spare(process: Link) -> None:
    """Have the template of a process make the spare for the next one.

    Not while somebody waits until this one has entered its function: at the next use of its handle.
    """
    origin, process.origin = process.origin, None
    if origin is not None:
        add_spares(origin)


def fork_contained(parent: Link, attributes: Mapping[str, object], encoded: Encoded, more: int = 0) -> Link:
    """Ask a template for a fork in a container; the arguments are those of ``fork``."""
    return _fork_guarded(fork(parent, _detached(attributes), _container()), attributes, encoded, more)


def _fork_guarded(guard: Link, attributes: Mapping[str, object], encoded: Encoded, more: int) -> Link:
    """Ask a container for another one, and that for the fork: each of them ends everything if the other is killed."""
    container = _fork_in(guard, _detached(attributes), _container(), 0)
    return _fork_in(container, attributes, encoded, more)


def _detached(attributes: Mapping[str, object]) -> Mapping[str, object]:
    return {"detached": attributes.get("detached")}


def _container() -> Encoded:
    """Return the attributes of a container: see _anyfork_child.birth.container."""
    encoded = Encoded()
    pickle_into(encoded, {"contain": True})
    return encoded


def _fork_in(container: Link, attributes: Mapping[str, object], encoded: Encoded, more: int) -> Link:
    """Ask a container for its only fork. It ends after that."""
    try:
        return fork(container, attributes, encoded, more)
    finally:
        container.close_template()


def _body(parent: Link, encoded: Encoded) -> tuple[bytes, Owned]:
    """Return the frame's body, and the owner of no descriptor. If the attributes are large, write them into a file, and
    return its index among the descriptors, pickled, and its owner.
    """
    if encoded.size <= INLINE or (parent.remote and encoded.size <= MAX_BODY):
        return b"".join(encoded.pieces), NO_FILE
    if parent.remote:
        raise ArgumentError(
            f"fork() cannot take attributes of {encoded.size} bytes to {parent.session.host}: "
            f"at most {MAX_BODY} travel to another machine; give a smaller env"
        )
    file = new_file()
    for _ in write_stepwise(file.fd, encoded.pieces, MAX_BODY):
        pass
    index = Encoded()
    pickle_into(index, len(encoded.fds))
    return b"".join(index.pieces), file


def _fork(parent: Link, attributes: Mapping[str, object], body: bytes, given: Sequence[int], more: int) -> Link:
    control, far_control, status, far_status = two_pairs()
    try:
        line, flags = open_lifeline()
    except BaseException:
        for end in (control, far_control, status, far_status):
            end.close()
        raise
    link = Link(control, status, parent)
    link.session.host = parent.session.host
    link.outbox.piecewise = parent.outbox.piecewise
    link.receiver = parent.receiver
    link.places = parent.places
    link.tracker = parent.tracker
    if attributes.get("detached"):
        flags |= DETACHED
    fds = (far_control.fileno(), far_status.fileno(), *line.fds, *given)
    hold_back = parent.runs_programs and not (more or parent.remote) and FOR_PROGRAMS.issuperset(attributes)
    parent.send_fork(Frame(FORK, flags | more, body, fds), link, (far_control, far_status, line), hold_back)
    if parent.held is not None:
        parent.release()
    return link


def two_pairs() -> list[_socket.socket]:
    """Return the near and the far end of a control socket, then those of a status socket. Raises OSError."""
    ends = [*socket_pair()]
    try:
        control, far_control, status, far_status = *ends, *socket_pair()
        return [quiet(control), far_control, quiet(status), far_status]
    except BaseException:
        for end in ends:
            end.close()
        raise


def fork_default(attributes: Mapping[str, object], encoded: Encoded, more: int = 0) -> Link:
    """Fork the default template; if it is gone, start a new one and fork that. Raises LaunchError."""
    if attributes.get("contain"):
        return _fork_guarded(fork_default(_detached(attributes), _container()), attributes, encoded, more)
    template = default_template.get()
    link = fork(template, attributes, encoded, more)
    if link.held is not None and template.has_news():  # it may have ended
        link.release()
    if template.outbox.broken:
        link.let_go()
        default_template.discard(template)
        link = fork(default_template.get(), attributes, encoded, more)
    return link


def fork_exec(
    python: str | os.PathLike[str] | None, flags: Sequence[str] | None, attributes: Mapping[str, object]
) -> Link:
    """Start a fresh interpreter: a fork of the default template that executes one. Raises ArgumentError and
    LaunchError.

    If the default template is a pristine copy of the program, fork that instead, unless an interpreter is asked for.
    """
    if python is None and flags is None and default_template.is_copy:
        return _fork_pristine(attributes)
    from .launch import exec_attributes  # only now: few programs start interpreters of their own

    encoded, interpreter, output = exec_attributes(python, flags, attributes)
    try:
        link = fork_default(attributes, encoded, EXECUTES)
    finally:
        encoded.close_made()
    link.streams = streams_of(encoded.pipes)
    link.interpreter = interpreter
    link.tracker = Link.tracker  # it is another program by now, and has nothing of its template
    link.output = StderrTail(output)
    try:
        initialise(link, named=python is not None)
    except BaseException:  # the caller gets no handle of this template
        link.close_template()
        raise
    return link


def _fork_pristine(attributes: Mapping[str, object]) -> Link:
    link = fork_present(None, "new_exec", attributes)
    initialise(link)
    return link


def fork_present(template: Link | None, call: str, attributes: Mapping[str, object]) -> Link:
    """Fork a template, or the default one, with all that a child of this process would inherit. Raises ArgumentError,
    LaunchError and OSError.
    """
    from .launch import present_attributes

    encoded = present_attributes(_absolute(attributes))
    try:
        if template is None:
            link = fork_default(attributes, encoded)
        else:
            template.check_descriptors_stay_here(call, encoded)
            start = fork_contained if attributes.get("contain") else fork
            link = start(template, attributes, encoded)
    finally:
        encoded.close_made()
    link.streams = streams_of(encoded.pipes)
    return link


def _absolute(attributes: Mapping[str, object]) -> Mapping[str, object]:
    """Return attributes with a directory as the template finds it, which is in another one than this process.

    Raises OSError.
    """
    directory = attributes.get("cwd")
    if not isinstance(directory, str | bytes | os.PathLike) or os.path.isabs(directory):
        return attributes
    name = os.fsencode(directory)
    return {**attributes, "cwd": os.path.join(os.getcwdb(), name)} if name else attributes  # "" is no directory


def adopt(sock: socket.socket) -> Link:
    """Take over a template whose handle was given up. Raises ArgumentError for anything but a Unix stream socket."""
    if sock.fileno() < 0 or sock.family != _socket.AF_UNIX or sock.type & 0xF != _socket.SOCK_STREAM:
        raise _unusable(sock)
    link = Link(quiet(_lifted(_plain(sock))), None, None)
    link.session.forks = 1  # the true number is unknown; any but 0 makes take_over keep the template
    link.session.adopting = True
    link.expect_answer()
    line, flags = open_lifeline()
    link.send(Frame(ADOPT, flags, b"", line.fds))
    line.close()
    return link


def _plain(sock: socket.socket) -> _socket.socket:
    """Move a socket into a plain object. No interrupt comes in between, which would lose the descriptor."""
    detach = _socket.socket.detach if isinstance(sock, _socket.socket) else type(sock).detach
    family, kind = PAIR
    try:
        [plain] = map(_socket.socket, (family,), (kind,), (0,), map(detach, (sock,)))
    except ValueError:  # a signal handler has detached it
        raise _unusable(sock) from None
    return plain


def _unusable(sock: socket.socket) -> ArgumentError:
    return ArgumentError(f"from_socket() needs the socket of a detached template, not {sock!r}")


def _lifted(sock: _socket.socket) -> _socket.socket:
    """Return the socket with a number above those of the standard streams."""
    return sock if sock.fileno() >= FIRST else _socket.socket(*PAIR, 0, lift(sock.detach()))


def take_over(link: Link, call: str, kind: int, encoded: Encoded) -> Link:
    """Let a function or a program take a template over; return the link to its process.

    A template that has forked processes stays, because only it can reap them; a clone is taken over instead. Raises
    HandleError.
    """
    link.check(call)
    link.check_descriptors_stay_here(call, encoded)
    if _has_children(link):
        link = _replace_by_clone(link, call)
    parent = link.parent  # which a signal handler that comes in between may forget
    if parent is not None and parent.runs_programs != (kind == PROGRAM):
        parent.runs_programs = kind == PROGRAM
    _inform(link, kind)
    try:
        if not do_locked(link.lock, _post_unless_forked, link, kind, encoded, call):
            link = _replace_by_clone(link, call)
            _inform(link, kind)
            link.post(kind, encoded, call)
        if encoded.by_value:
            warm_parent(link, "cloudpickle.cloudpickle")
        return link
    except AnyforkError:
        raise
    except BaseException:  # the caller gets no handle of this process
        link.abandon()
        raise


def _has_children(template: Link) -> bool:
    return bool(template.session.forks or template.child)


def _post_unless_forked(template: Link, kind: int, encoded: Encoded, call: str) -> bool:
    """Post the frame that takes the template over. Return False if another thread has forked the template meanwhile.

    The caller holds the lock.
    """
    if _has_children(template):
        return False
    template.post(kind, encoded, call)
    return True


def _replace_by_clone(template: Link, call: str) -> Link:
    """Close a template that has children, and return the link to a clone of it.

    Raises HandleError if another thread has closed it meanwhile, or has taken it over.
    """
    clone = fork(template, {}, NOTHING)
    try:
        do_locked(template.lock, _use_up, template, call)
    except BaseException:
        clone.close_template()
        raise
    clone.streams, template.streams = template.streams, None
    return clone


def _use_up(template: Link, call: str) -> None:
    template.check(call)
    template.user = f"{call}()"
    template.close_template()


def _inform(template: Link, kind: int) -> None:
    """Tell a template, before it is taken over, what has changed in this program since it was started."""
    tell_path(template)
    if "pydevd" in sys.modules and kind == START:
        from .debugger import lead_debugger  # only now: few programs run under one

        lead_debugger(template)
    if MODULE in sys.modules and kind == START:
        share_tracker(template)


def _tell_news(template: Link) -> None:
    """Tell a template, before it forks, what has changed in this program since it was started."""
    tell_path(template)
    if MODULE in sys.modules:
        share_tracker(template)


def tell_path(template: Link) -> None:
    """Have a template find modules in the directories that this program has added to its path since, and not in those
    that it has removed.
    """
    later = tuple(template.receiver.places())
    if later != template.places and template.session.phase is PREPARING:
        changed = changes(template.places, later)
        template.places = later
        named = [[*map(file_name, places)] for places in changed]
        template.post(PREPARE, encode_call("prepare", change_places, named))


def warm_parent(link: Link, module: str) -> None:
    """Have the template above import a module that more of its processes will need."""
    above = link.parent or link.origin
    if above is not None:
        warm_template(above, module)


def warm_template(template: Link, module: str) -> None:
    """Have a template import a module, once, that its processes will need: loading it takes a process longer than the
    rest of its start.
    """
    if module not in template.warmed and template.session.phase is PREPARING:
        template.warmed = (*template.warmed, module)
        template.post(PREPARE, encode_call("prepare", warm, (module,)))

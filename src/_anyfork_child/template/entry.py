"""The entry of a function, or of a program, which takes over a process.

Runs in the process. A failure before the function is entered is reported to the owner and ends the process. Every start
runs ``enter``, and it is written for that (see template.fork_loop).
"""

from __future__ import annotations

import os
from _signal import SIG_DFL, SIG_IGN, SIGINT, SIGTERM, default_int_handler, getsignal, signal
from os import getpid
from sys import modules

from ..birth.exit import end_copy, fail_copy
from ..birth.last_words import CHILDLESS, UNTOLD, report
from ..birth.preparation import function_name
from ..values.decode import DescriptorsLostError, FunctionNotFoundError, Payload
from ..wire.channel import public_socket
from ..wire.failure import Failure, failure_of
from ..wire.frames import DETACHED, ENTERED, EXECUTING, HEADER, VERSION, Frame
from ..wire.lifeline import has_ended
from ..wire.platform import NOSIGNAL
from ..wire.signals import default_actions, handled_signals, program_signals, still_ignored, unblock_all
from . import shutdown

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from typing import Any, NoReturn

    from .state import TemplateState

pack = HEADER.pack


def ignore_no_more(template: TemplateState) -> None:
    """Give back the default action of signals that a template ignores: user code runs from now on."""
    if template.changed:
        template.ignored = still_ignored(template.ignored)
    for number in template.ignored:
        if getsignal(number) == SIG_IGN:  # no hook of the fork has set a handler
            signal(number, SIG_DFL)


def start_with_all(template: TemplateState, frame: Frame) -> list[Any]:
    """Decode a call and the arguments sent before it, report that it is entered, and return the call."""
    ignore_no_more(template)
    payload = Payload(frame)
    try:
        _check(template, payload)
        call = payload.load_call(template.find_function)
        call[1:1] = [value for part in template.arguments for value in part.load()]
    except BaseException as error:  # decoding runs code of the values, which may raise anything
        refuse_start(template, error)
    return enter(template, call, payload.name)


def refuse_start(template: TemplateState, error: BaseException) -> NoReturn:
    """Report to the owner why the function cannot be entered, and end the process."""
    if getpid() != template.pid:
        fail_copy(error)
    if isinstance(error, Failure):
        shutdown.fail(template, error)
    category = "function" if isinstance(error, FunctionNotFoundError) else "argument"
    shutdown.fail(template, failure_of(category, "", error))


def enter(template: TemplateState, call: list[Any], name: bytes) -> list[Any]:
    """Turn this template into the process of a call: report it, reset signals; return the call with its channel."""
    if getpid() != template.pid:  # a copy that the decoding of a value has made
        end_copy(0)
    if template.shows_function:
        template.title.show(name or function_name(call[0]).encode("utf-8", "replace"))
    sock = template.channel.sock
    signal(SIGINT, SIG_DFL)  # which the template ignores: from the report on, none of the owner's gets lost
    try:
        sock.send(pack(VERSION, ENTERED, 0, 0, template.pid), NOSIGNAL)
    except ConnectionError:
        _check_revoked(template)
    if template.changed:
        sock = _tidy(template)
    if template.stdio or template.flags & DETACHED:
        _connect(template)
    signal(SIGTERM, SIG_DFL)
    signal(SIGINT, default_int_handler)
    call.insert(1, sock)
    return call


def _tidy(template: TemplateState) -> _socket.socket:
    """Clean up after user code in this template; return the channel as a public socket.

    Restore the signals of a fresh interpreter, close the children object, and connect the debugger, if there is one.
    """
    default_actions(handled_signals())
    unblock_all()
    if template.children is not None:
        template.children.close()
        report(template.reports, CHILDLESS)
    debugging = modules.get("_anyfork_child.birth.debugger")
    if debugging is not None:
        debugging.connect()
    return public_socket(template.channel.sock)


def _connect(template: TemplateState) -> None:
    """Connect the standard streams that become the channel, and drop the lifeline of a detached process."""
    for fd in template.stdio:
        os.dup2(template.channel.fd, fd)
    if template.flags & DETACHED:
        os.close(template.lifeline)


def _check_revoked(template: TemplateState) -> None:
    """End this process if the owner, which does not listen, has revoked the start or ended.

    An owner that has only dropped the handle lets the process go on.
    """
    if template.channel.receive() is not None:
        shutdown.finish(template, 1)  # REVOKE: no other frame can follow START
    if not template.flags & DETACHED and has_ended(template.lifeline):
        shutdown.owner_gone(template)


def _check(template: TemplateState, payload: Payload) -> None:
    if template.failure is not None:
        raise template.failure
    if payload.lost:
        raise Failure("descriptors", "start", DescriptorsLostError())
    if template.children is not None and len(template.children):
        raise Failure("children", "", "it has forked processes and must stay to reap them: start a fork of it")


def start_program(template: TemplateState, frame: Frame) -> NoReturn:
    """Replace this process with another program.

    A pipe shows the owner the outcome: exec closes it, or it carries the failure.
    """
    payload = Payload(frame)
    try:
        _check(template, payload)
        argv = payload.load()
        read, write = os.pipe()
    except Failure as failure:
        shutdown.fail(template, failure)
    except Exception as error:
        shutdown.fail(template, failure_of("program", "", error))
    try:
        template.channel.send(Frame(EXECUTING, template.pid, b"", (read,)))
    except ConnectionError:
        _check_revoked(template)
    _connect(template)
    report(template.reports, UNTOLD)
    program_signals(template.ignored)
    try:
        os.execvp(argv[0], argv)
    except (OSError, ValueError) as error:
        os.write(write, Failure("program", os.fsdecode(argv[0]), error).pack())
    os._exit(127)

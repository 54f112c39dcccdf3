"""The command loop of a template: it is prepared, forked, and at last taken over by a function.

One object per process. A fork goes on in the same loop in both processes: in the template with the next frame, in the
new process as a template of its own on its own control socket. So nothing deepens the stack, however long the line of
ancestors, and user code runs from the top: ``serve`` returns what to run.
"""

from __future__ import annotations

import _signal
import _socket
import gc
import os
import sys
from _signal import SIG_BLOCK, SIG_UNBLOCK
from _signal import pthread_sigmask as sigmask
from os import close, dup2, fork, getpid
from select import select
from time import monotonic

from . import _birth
from ._birth import user_signals
from ._channel import NOSIGNAL, NOWAIT, Channel, close_all, public_socket
from ._children import UNTOLD, Children, answer, kill_now
from ._failure import Failure, failure_of
from ._platform import children_class
from ._steps import STEPS, function_name, run_step
from ._values import DescriptorsLostError, FunctionNotFoundError, Payload, load_call
from ._wire import (
    ADOPT,
    ADOPTED,
    CLOSE,
    DETACH,
    ENTERED,
    EXECUTING,
    FAILED,
    FORK,
    HEADER,
    IN_FILE,
    LOST,
    LOST_DESCRIPTOR,
    PING,
    PROGRAM,
    READY,
    SEND,
    START,
    VERSION,
    Frame,
    ProtocolError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

    from ._owner import Lifeline
    from ._title import Title

# Bound here, because looking through modules costs page faults in every new process.
gc_enable, pack = gc.enable, HEADER.pack
DETACHED = 1  # bit of a FORK frame's value
GRACE = 0.05  # seconds from SIGTERM to SIGKILL after the owner's end, of the 0.1 that everything may take
JUST_BORN = 0.005  # seconds after which a process follows the owner by itself, at the latest when it does anything
PATIENCE = 2.0  # seconds for a template that has answered: its own grace, on a machine that is very busy


class Template:
    """This process, as long as it has not been told what to run.

    ``lifeline`` tells it of the owner's end.
    """

    def __init__(
        self, control: _socket.socket, lifeline: Lifeline, reports: _socket.socket | None, title: Title
    ) -> None:
        self.channel = Channel(control)
        self.lifeline = lifeline
        self.pid = os.getpid()
        self.reports = reports  # where this process's last words go
        self.title = title
        self.titled = False
        self.detached = 0
        self.generation = 0
        self.new_children = children_class()
        self.children: Children | None = None
        self.arguments: list[Payload] = []
        self.attributes: dict[str, Any] = {}
        self.stdio: dict[int, int] = {}
        self.failure: Failure | None = None
        self.relay = False  # tell all processes of the owner's end, because some follow a former owner
        self.told = False  # the owner has been answered since
        self.changed = True  # user code, or our own start, has run since the last settle
        self.gc_enabled = True
        self.resets: list[Callable[[], object]] = []
        self.signals: Sequence[int] = ()  # those with a handler, which must not run in the middle of a birth
        self.hook_errors: list[Any] = []
        self.user_hook = sys.unraisablehook
        self.past: list[object] = []  # objects whose descriptors are closed; they are never taken apart
        self.forks = 0
        self.kept: Sequence[int] = ()
        self.handler = self._terminated  # kept: see _born
        self._take_signals()

    def _take_signals(self) -> None:
        """Have our way with signals, whatever user code has set."""
        _signal.signal(_signal.SIGINT, _signal.SIG_IGN)  # Ctrl-C is for the owner and for running processes
        _signal.signal(_signal.SIGPIPE, _signal.SIG_IGN)  # reports may go to nobody
        _signal.signal(_signal.SIGTERM, self.handler)
        if self.children is not None:
            self.children.take_signals()

    # --- The loop ---

    def serve(self) -> list[Any]:
        """Do what the owner asks until a function takes the process over; end the process when the owner is done."""
        gc.disable()
        while True:
            frame = self._next()
            kind = frame.kind & ~IN_FILE
            if kind == FORK:
                self._fork(frame)
            elif kind == START:
                return self._start(frame)
            elif kind == PROGRAM:
                self._start_program(frame)
            elif kind == PING:
                self._answer()
            elif kind == CLOSE:
                self._close()
            elif kind == DETACH:
                self.kept = frame.fds
            elif kind == ADOPT:
                self._adopt(frame)
            elif kind == SEND:
                self._take(frame)
            elif kind in STEPS:
                self._run_step(kind, frame)
            else:
                self._reject(ProtocolError(f"a frame of kind {kind}, which is not for templates"))

    def _next(self) -> Frame:
        while True:
            try:
                if self.children is not None:
                    self._wait_for_owner(self.children)
                frame = self.channel.receive(NOWAIT)
            except BlockingIOError:
                self._idle()
                continue
            except (ProtocolError, EOFError) as error:
                self._reject(error)
            except ConnectionResetError:  # the owner ended with something of ours unread
                frame = None
            if frame is not None:
                return frame
            self._owner_gone()

    def _idle(self) -> None:
        """Nothing to do for the moment: time for what a process that runs at once need not have."""
        if not self.titled:
            self._show_idle()
        if self.children is None:
            try:
                self.children = self._make_children()
            except OSError:  # no descriptor left: wait without
                if self.lifeline.fd in select([self.channel.fd, self.lifeline.fd], [], [])[0]:
                    self._owner_gone()

    def _show_idle(self) -> None:
        self.titled = True
        if "title" in self.attributes:
            try:
                self.title.set(self.attributes["title"])
            except OSError:  # after setuid it stays as it was set before
                pass
        else:
            self.title.show(b"anyfork" if self.generation else b"anyfork/exec", whole=True)

    def _make_children(self) -> Children:
        children = self.new_children(self.channel.fd, self.lifeline.fd)
        # What forks have no business with they close by number. The objects stay: see _born.
        if self.reports is not None:
            children.own.append(self.reports.fileno())
        self.past.append((children, self.reports))
        return children

    def _wait_for_owner(self, children: Children) -> None:
        """Wait, reaping meanwhile, until the owner has sent something or has ended."""
        while True:
            own = children.wait()
            if self.lifeline.fd in own:
                self._owner_gone()
            if own:
                return

    # --- Preparing ---

    def _run_step(self, kind: int, frame: Frame) -> None:
        """Run user code in the template. Its failure is kept for whoever asks, and for what is forked from now on."""
        if self.failure is not None:
            close_all(frame.fds)
            return
        payload = Payload(frame)
        self._let_user_code()
        try:
            run_step(kind, payload)
            self._end_copy(0)
            _birth.check_threads()
        except Failure as failure:
            self._end_copy(1)
            self.failure = failure
        except SystemExit as stop:
            code = _birth.exit_code(stop)
            self._end_copy(code)
            self._finish(code)
        finally:
            self._take_signals()
            self.gc_enabled = gc.isenabled()
            gc.disable()

    def _end_copy(self, code: int) -> None:
        """User code may fork by itself, and let the copy return too. There is one template: the copy ends."""
        if os.getpid() != self.pid:
            _birth.flush_stdio()
            os._exit(code)

    def _let_user_code(self) -> None:
        """Give the interpreter's state back to user code."""
        if not self.changed:
            sys.unraisablehook = self.user_hook
            self.changed = True
        if self.gc_enabled:
            gc.enable()

    def _take(self, frame: Frame) -> None:
        payload = Payload(frame)
        if payload.lost:
            self.failure = self.failure or Failure("descriptors", "send", DescriptorsLostError())
        self.arguments.append(payload)

    def _answer(self) -> None:
        if self.failure is None:
            self._send(Frame(READY, os.getpid()))
        else:
            self.told = True
            self._send(Frame(FAILED, 0, self.failure.pack()))

    def _send(self, frame: Frame) -> None:
        try:
            self.channel.send(frame)
        except ConnectionError:
            pass  # the owner does not listen any more; the loop will see its end

    # --- Forking ---

    def _fork(self, frame: Frame) -> None:
        if len(frame.fds) < 2:
            self._reject(ProtocolError("a fork without its two sockets"))
        number, self.forks = self.forks, self.forks + 1
        try:
            if LOST_DESCRIPTOR in frame.fds:
                raise DescriptorsLostError
            if self.failure is not None:
                raise self.failure
            if self.children is None:
                self.children = self._make_children()
            if self.changed:
                self._settle()
            self.children.prepare()
        except Failure as failure:
            self.failure = failure
            self._refuse(frame, number, failure)
        except OSError as error:
            self._refuse(frame, number, Failure("fork", "", error))
        else:
            self._fork_now(frame, number)

    def _settle(self) -> None:
        """Before the first fork after user code has run. Here, too, hooks of os.register_at_fork that raise begin to
        fail the new process: Python only prints such an error, by way of sys.unraisablehook."""
        if type(self.channel.sock) is _socket.socket:
            # Every process gets its channel as an object of the socket module: loaded once here instead of in each.
            self.channel.sock = public_socket(self.channel.sock)
            from ._rehearsal import rehearse

            rehearse(self.title)
            self._show_idle()
        self.lifeline.check()
        self.children.take_signals()  # type: ignore[union-attr]  # made in _fork; the rehearsal has given them up
        self.resets, handled = _birth.settle()
        self.signals = [number for number in handled if _signal.getsignal(number) != self._terminated]
        if self.signals:
            self.resets.append(lambda: _birth.default_handlers(self.signals))
        self.user_hook, sys.unraisablehook = sys.unraisablehook, self.hook_errors.append
        self.changed = False

    def _fork_now(self, frame: Frame, number: int) -> None:
        # Handlers of the user's must not run in a process that is not born yet. Our own (_terminated) sees to itself.
        if self.signals:
            sigmask(SIG_BLOCK, self.signals)
        try:
            pid = fork()
        except OSError as error:
            self._refuse(frame, number, Failure("fork", "", error))
        else:
            if pid == 0:
                self._born(frame)
            else:
                self._keep(pid, frame, number)
        if self.signals:
            sigmask(SIG_UNBLOCK, self.signals)

    def _keep(self, pid: int, frame: Frame, number: int) -> None:
        """Runs in the template, after a fork."""
        fds = frame.fds
        try:
            self.children.add(pid, fds[1], frame.value & DETACHED)  # type: ignore[union-attr]  # made in _fork
        except OSError as error:
            kill_now(pid)
            self._refuse(frame, number, Failure("fork", "", error))
            return
        close(fds[0])
        for fd in fds[2:]:
            close(fd)
        while self.hook_errors:
            self.user_hook(self.hook_errors.pop())

    def _refuse(self, frame: Frame, number: int, failure: Failure) -> None:
        """Answer in the place of a process that could not be made; without its socket, on the template's own."""
        control = frame.fds[0]
        self.told = True
        if control < 0:
            self._send(Frame(LOST, number, failure.pack()))
        else:
            sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, control)
            try:
                Channel(sock).send(Frame(FAILED, 0, failure.pack()))
            except ConnectionError:
                pass
            sock.detach()
        close_all(frame.fds)

    def _born(self, frame: Frame) -> None:
        """Runs in the new process, which becomes a template of its own: drop what is the parent's and the siblings'.

        Closes by number and keeps the parent's objects, its channel with another socket under the same number: making
        and taking apart objects would touch, and so copy, their pages.
        """
        fds, children = frame.fds, self.children
        control, status = fds[0], fds[1]
        dup2(control, self.channel.fd, False)
        close(control)
        close(status)
        for fd in children.own:  # type: ignore[union-attr]  # made in _fork
            close(fd)
        if children:
            children.close_siblings()
        self.reports = children.reports.outside  # type: ignore[union-attr]
        self.children = None
        self.pid = pid = getpid()
        self.generation += 1
        self.detached = frame.value
        self.titled = False
        self.forks = 0
        try:
            if not self.detached:
                self.lifeline.follow(pid)
            if self.hook_errors:
                self._fail_hook()
            for reset in self.resets:
                reset()
            if frame.body:
                self._apply(frame.body, fds[2:])
        except Failure as failure:
            self.failure = failure
        except OSError as error:  # no descriptor for the lifeline
            self.failure = Failure("fork", "", error)
        except Exception as error:
            self.failure = failure_of("hook", "reset", error)

    def _fail_hook(self) -> None:
        error = self.hook_errors[0]
        raise failure_of("hook", str(error.object), error.exc_value, 0)

    def _apply(self, body: bytes, fds: Sequence[int]) -> None:
        attributes = Payload(Frame(FORK, 0, body)).load()
        self.keep(attributes)
        try:
            _birth.apply(attributes, fds, self.title)
            if "user" in attributes or "group" in attributes:
                self.lifeline.check()
            if "user" in attributes or "group" in attributes:
                self.lifeline.check()
            if "exec" in attributes:
                self._become_interpreter(attributes["exec"], fds)
        finally:
            close_all(fds)

    def keep(self, attributes: dict[str, Any]) -> None:
        """Note the attributes that matter later: a title, and streams that become the channel. Forks inherit them."""
        self.attributes = {**self.attributes, **attributes}
        self.stdio = {fd: 0 for fd, name in enumerate(_birth.STDIO) if self.attributes.get(name) == _birth.CHANNEL}

    def _become_interpreter(self, command: list[bytes], fds: Sequence[int]) -> None:
        """Replace this process by a fresh interpreter, which goes on as a template on the same sockets."""
        stderr = os.dup(2)
        os.dup2(fds[-1], 2)  # a file of the owner's, for what an interpreter that cannot start says
        keep = [self.channel.fd, self.lifeline.fd, self.reports.fileno() if self.reports else -1, stderr]
        for fd in keep:
            if fd >= 0:
                os.set_inheritable(fd, True)
        try:
            _birth.program_signals()
            os.execv(command[0], [*command, *(str(n).encode() for n in keep), *self._later()])
        except OSError as error:
            os.dup2(stderr, 2)
            os.close(stderr)
            raise Failure("interpreter", os.fsdecode(command[0]), error) from error

    def _later(self) -> list[bytes]:
        """The attributes that a fresh interpreter has to be told again, as they matter only later."""
        streams = [f"{_birth.STDIO[fd]}={_birth.CHANNEL}" for fd in self.stdio]
        title = [f"title={self.attributes['title']}"] if "title" in self.attributes else []
        return [text.encode("utf-8", "replace") for text in (*streams, *title)]

    # --- Being taken over ---

    def _start(self, frame: Frame) -> list[Any]:
        """Decode the function and its arguments, say so, and return what to enter."""
        try:
            if frame.fds or self.arguments or self.failure is not None or self.children is not None:
                call = self._load_call(frame)
            else:
                call = load_call(frame.body, frame.value)
        except Failure as failure:
            self._fail(failure)
        except FunctionNotFoundError as error:
            self._fail(failure_of("function", "", error))
        except BaseException as error:  # decoding runs code of the values, which may raise anything
            self._fail(failure_of("argument", "", error))
        if "title" not in self.attributes:
            self.title.show(frame.body[: frame.value] or function_name(call[0]).encode("utf-8", "replace"))
        self._enter(ENTERED)
        user_signals(self.changed)
        sock = self.channel.sock
        call.insert(1, sock if type(sock) is not _socket.socket else public_socket(sock))
        return call

    def _load_call(self, frame: Frame) -> list[Any]:
        """The call with what was sent before, where anything but the call itself is to be looked at."""
        payload = Payload(frame)
        self._check_start(payload)
        call = payload.load_call()
        call[1:1] = [value for part in self.arguments for value in part.load()]
        return call

    def _enter(self, kind: int, fds: Sequence[int] = ()) -> None:
        """Stop being a template, report it, and connect what the channel was asked for."""
        if self.children is not None:
            self._leave_children(self.children)
        try:
            if fds:
                self.channel.send(Frame(kind, os.getpid(), b"", fds))
            else:
                self.channel.sock.send(pack(VERSION, kind, 0, 0, self.pid), NOSIGNAL)
        except ConnectionError:
            self._check_revoked()
        if self.detached:
            close(self.lifeline.fd)
        if not self.changed:
            sys.unraisablehook = self.user_hook
        if self.gc_enabled:
            gc_enable()
        for fd in self.stdio:
            os.dup2(self.channel.fd, fd)

    def _leave_children(self, children: Children) -> None:
        """This process has none, and will be no template any more."""
        mine = self.reports.fileno() if self.reports else -1
        close_all(fd for fd in children.own if fd != mine)
        close(children.reports.outside.fileno())
        self.children = None

    def _check_revoked(self) -> None:
        """The owner does not listen. It may have dropped the handle, then go on; or given up waiting; or ended."""
        if self.channel.receive() is not None:
            self._finish(1)  # REVOKE: nothing else can stand behind START
        if not self.detached and self.lifeline.over():
            self._owner_gone()

    def _start_program(self, frame: Frame) -> None:
        """Become another program. Whether that worked shows on a pipe: it ends with exec, or brings the failure."""
        payload = Payload(frame)
        try:
            self._check_start(payload)
            argv = payload.load()
            read, write = os.pipe()
        except Failure as failure:
            self._fail(failure)
        except OSError as error:
            self._fail(Failure("program", "", error))
        self._enter(EXECUTING, (read,))
        answer(self.reports, UNTOLD)
        _birth.program_signals()
        try:
            os.execvp(argv[0], argv)
        except (OSError, ValueError) as error:
            os.write(write, Failure("program", os.fsdecode(argv[0]), error).pack())
        os._exit(127)

    def _check_start(self, payload: Payload) -> None:
        if self.failure is not None:
            raise self.failure
        if payload.lost:
            raise Failure("descriptors", "start", DescriptorsLostError())
        if self.children is not None and len(self.children):
            raise Failure("children", "", "it has forked processes and must stay to reap them: start a fork of it")

    def _fail(self, failure: Failure) -> NoReturn:
        self._send(Frame(FAILED, 0, failure.pack()))
        self._finish(1)

    # --- Ends. What each of them leaves running is decided here. ---

    def _finish(self, code: int) -> NoReturn:
        """Accept nothing more and end with the last process forked from here: somebody must reap it."""
        if self.children is not None:
            self.children.forget(self.channel.fd)
            self.channel.close()
            while len(self.children):
                if self.lifeline.fd in self.children.wait():
                    self._owner_gone()
        _birth.end(code)

    def _close(self) -> NoReturn:
        """The handle is gone. What failed and nobody has asked for is said where the owner's errors go."""
        if self.failure is not None and not self.told:
            print(f"anyfork: a template that nobody waited for failed: {self.failure.summary}", file=sys.stderr)
        self._finish(0)

    def _reject(self, error: Exception) -> NoReturn:
        """What came is no frame: nothing after it can be understood."""
        failure = Failure("protocol", "", error)
        print(f"anyfork: this template ends, its owner sent {failure.summary}", file=sys.stderr)
        self._fail(failure)

    def _owner_gone(self) -> NoReturn:
        """The owner has ended, however: end all processes forked from here that are not detached, and this one."""
        self._end_children()
        _birth.end(0)

    def _terminated(self, number: int, _frame: object) -> None:
        """SIGTERM is how an owner's end reaches a template in the middle of a long step: pass it on, and die of it."""
        _signal.signal(number, _signal.SIG_IGN)  # a second one must not begin anew in the middle of this
        if os.getpid() == self.pid:  # not in a new process before it has become itself
            self._end_children()
        _signal.signal(number, _signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def _end_children(self) -> None:
        """SIGTERM at once, SIGKILL after the grace; but a template that has answered is ending its own meanwhile, and
        if it were killed nobody would."""
        children = self.children
        if children is None or not children.any_attached():
            return
        everybody = self.relay or not self.lifeline.followed
        children.kill_attached(_signal.SIGTERM, spare=() if everybody else children.followers(monotonic() - JUST_BORN))
        answer(self.reports)
        children.forget_own()
        self._wait_for_ends(children, GRACE)
        if children.kill_attached(_signal.SIGKILL, spare=children.reports.who_said(b"")):
            self._wait_for_ends(children, PATIENCE)
            children.kill_attached(_signal.SIGKILL)

    @staticmethod
    def _wait_for_ends(children: Children, seconds: float) -> None:
        now = monotonic()
        deadline = now + seconds
        while now < deadline and children.any_attached():
            children.wait(deadline - now)
            now = monotonic()

    # --- Moving to another owner ---

    def _adopt(self, frame: Frame) -> None:
        """Another process holds the handle now: it gets the ends that its predecessor left, and its life counts."""
        if len(frame.fds) != 1:
            self._reject(ProtocolError("an adoption without its lifeline"))
        (lifeline,) = frame.fds
        if lifeline < 0:
            self.failure = self.failure or Failure("descriptors", "from_socket", DescriptorsLostError())
        else:
            if self.children is not None:
                self.children.forget(self.lifeline.fd)
                self.children.watch(lifeline)
            os.close(self.lifeline.fd)
            self.lifeline.move(lifeline)
            self.relay = True  # what was forked before follows the former owner
        self._send(Frame(ADOPTED, os.getpid(), b"", self.kept))
        close_all(self.kept)
        self.kept = ()

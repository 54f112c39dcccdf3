"""The lookup of functions and classes of this program's ``__main__`` for processes of the multiprocessing context.

A process asks when a queue or a pipe brings it a name of ``__main__`` (see _anyfork_child.multiprocessing.main_lookup).
One thread answers all processes. It is started with the first process, ends with the last one, and belongs to this
process alone.
"""

from __future__ import annotations

import _socket
import os
import sys
import threading
from _thread import RLock
from select import POLLHUP, POLLIN
from types import ModuleType

from _anyfork_child.wire.channel import NOWAIT, ROOM, Channel, close_all, unpack_descriptors, wait_for_memory
from _anyfork_child.wire.descriptors import socket_pair
from _anyfork_child.wire.failure import MISSING, UNSENT, Failure
from _anyfork_child.wire.frames import FAILED, SEND, Frame
from _anyfork_child.wire.memfd import write_stepwise
from _anyfork_child.wire.platform import CLOEXEC

from ..._processes.multiprocessing_inheritance import encode_inherited
from ..._system.import_path import is_importable
from ..._system.locks import do_locked
from ..._system.polling import new_epoll, wait_for
from ..._system.threads import start_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    import select

LONGEST = 4096  # bytes of a name
STEP = 1 << 20  # bytes of a large answer to write at once
MOMENT = 1.0  # seconds: a thread without processes ends at once, but may have a large answer to write before


class MainLookup:
    """The sockets of the processes that may ask, one each, and the thread that answers while there are any."""

    def __init__(self) -> None:
        self.lock = RLock()  # reentrant: a destructor or a signal handler may start a process while the lock is held
        self._asked: dict[int, _socket.socket] = {}  # by descriptor
        self._events: select.epoll | None = None
        self._thread: threading.Thread | None = None  # the one that answers, or answers soon
        self._answers = False  # whether a thread does

    def open(self) -> _socket.socket:
        """Return the socket that a new process asks on. Raises OSError, and RuntimeError if no thread can start."""
        return do_locked(self.lock, self._open)

    def _open(self) -> _socket.socket:
        asked, asking = socket_pair(_socket.SOCK_SEQPACKET)
        try:
            self._listen(asked)
        except BaseException:  # the thread that answers sees this end closed, and closes the other one
            asking.close()
            raise
        return asking

    def _listen(self, asked: _socket.socket) -> None:
        if self._events is None:
            self._events = new_epoll()
        self._events.register(asked, POLLIN)
        self._asked[asked.fileno()] = asked
        if not self._answers:  # also after a start that has failed; an interrupted one may end the new thread
            self._thread = threading.Thread(target=self._serve, name="anyfork definitions", daemon=True)
            start_thread(self._thread)

    def _serve(self) -> None:
        """Answer until the last process has ended, unless another thread does. Runs in a thread of its own."""
        if not do_locked(self.lock, self._begin):
            return
        try:
            while not do_locked(self.lock, self._finish):
                self._step()
        except BaseException:  # processes that ask see the end of the stream, and the next process gets a new thread
            do_locked(self.lock, self.forget)
            raise

    def _begin(self) -> bool:
        if self._answers or self._events is None:
            return False
        self._answers, self._thread = True, threading.current_thread()  # not one that was started meanwhile
        return True

    def _step(self) -> None:
        events = self._events
        assert events is not None
        for fd, _ in wait_for(events, None):
            asked = self._asked.get(fd)
            if asked is not None and not _hear(asked):
                self._asked.pop(fd)
                asked.close()

    def _finish(self) -> bool:
        """Close everything if no process is left that may ask; return whether that is so."""
        if self._asked:
            return False
        self.forget()
        return True

    def join(self, moment: float = MOMENT) -> None:
        """Wait for the end of the thread if all processes have ended, so that whoever looks sees no thread of ours.

        Never wait in the middle of another step of this thread, which a signal handler has interrupted.
        """
        if self.lock._is_owned():  # type: ignore[attr-defined]  # as in ``do_locked``. The other thread needs the lock
            return
        thread = do_locked(self.lock, self._ending)
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join(moment)

    def _ending(self) -> threading.Thread | None:
        if self._events is None:
            return self._thread  # which has done all and is about to end
        ended = {fd for fd, mask in self._events.poll(0) if mask & POLLHUP}  # also those that the thread closes now
        return self._thread if ended >= self._asked.keys() else None

    def forget(self) -> None:
        """Close everything. Also runs in a forked copy of the owner, where no thread answers."""
        for end in self._asked.values():
            end.close()
        self._asked.clear()
        if self._events is not None:
            self._events.close()
        self._events = None
        self._answers = False


def _hear(asked: _socket.socket) -> bool:
    """Answer a question; return whether there may be more."""
    try:
        name, ancillary, _, _ = asked.recvmsg(LONGEST, ROOM, CLOEXEC | NOWAIT)
    except BlockingIOError:
        return True
    except ConnectionError:
        return False
    except OSError as error:
        wait_for_memory(error)
        return True
    fds = unpack_descriptors(ancillary[0][2]) if ancillary else ()
    if len(fds) != 1:  # the descriptor could not be received: the sender sees that it is closed
        close_all(fds)
        return bool(name)
    reply = Channel(_socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, fds[0]))
    try:
        _answer(reply, name.decode())
    except OSError:  # the process has ended meanwhile, or there is no room for a file: it sees the end of the stream
        pass
    finally:
        reply.close()
    return True


def _answer(reply: Channel, name: str) -> None:
    """Send the answer without ever waiting for the other side: a large answer travels in a file."""
    found: object = None
    try:
        found = _find(name)
        encoded = encode_inherited((found,))
    except Failure as failure:
        reply.send(Frame(FAILED, 0, failure.pack()))
        return
    except Exception as error:  # pickling runs code of the value's class, which may raise anything
        module, _, of_it = name.rpartition(":")
        text = f"{of_it!r} of {module} cannot travel to another process: {type(error).__name__}: {error}"
        reply.send(Frame(FAILED, 0, Failure(UNSENT if callable(found) else MISSING, name, text).pack()))
        return
    frame, made, pieces = encoded.frame(SEND)
    try:
        for _ in write_stepwise(frame.fds[-1], pieces, STEP) if pieces else ():
            pass
        reply.send(frame)
    finally:
        for owner in made:
            owner.close()


def _find(question: str) -> object:
    module_name, _, name = question.rpartition(":")
    module = sys.modules.get(module_name)
    if module is None or (module_name != "__main__" and is_importable(module_name)):
        raise Failure(MISSING, question, "no module that only this program has")
    if not name:
        return True
    found = getattr(module, name, module)
    if isinstance(found, ModuleType):
        raise Failure(MISSING, question, "nothing, or a module")
    return found


def _forget() -> None:
    """Forget all sockets and renew the lock. Runs in a forked copy of the owner."""
    lookup.lock = RLock()
    lookup.forget()


lookup = MainLookup()
os.register_at_fork(after_in_child=_forget)

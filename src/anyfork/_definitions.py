"""Functions and classes of this program's ``__main__``, for the processes of the multiprocessing context that ask.

They ask when a queue or a pipe brings them a name of it (see _anyfork_child._definitions). One thread answers all of
them; it is started with the first process, and belongs to this process alone.
"""

from __future__ import annotations

import _socket
import os
import sys
import threading
from _thread import RLock
from select import POLLIN
from types import ModuleType

from _anyfork_child._channel import CLOEXEC, ROOM, Channel, close_all, unpack_descriptors
from _anyfork_child._definitions import MISSING, UNSENT
from _anyfork_child._descriptors import socket_pair
from _anyfork_child._failure import Failure
from _anyfork_child._files import write_stepwise
from _anyfork_child._wire import FAILED, SEND, Frame

from ._decision_lock import locked
from ._inherited import encode_inherited
from ._modules import is_importable
from ._polling import new_poll

LONGEST = 4096  # bytes of a name
STEP = 1 << 20  # bytes of a large answer to write at once


class Definitions:
    """Holds the socket that processes ask on, once there are any."""

    def __init__(self) -> None:
        self.lock = RLock()  # reentrant: a destructor or a signal handler may start a process in the middle of this
        self._asking: _socket.socket | None = None
        self._asked: _socket.socket | None = None

    def socket(self) -> int:
        """Return the descriptor that a new process asks on."""
        return locked(self.lock, self._open)

    def _open(self) -> int:
        if self._asking is None:
            asked, asking = socket_pair(_socket.SOCK_DGRAM)
            if self._asking is not None:  # what has come in the middle was quicker
                asked.close()
                asking.close()
                return self._asking.fileno()
            self._asked, self._asking = asked, asking
            try:
                threading.Thread(target=_serve, args=(asked,), name="anyfork definitions", daemon=True).start()
            except RuntimeError:  # there can be no thread now: the next process tries again
                self._asked = self._asking = None
                raise
        return self._asking.fileno()

    def forget(self) -> None:
        """Runs in a forked copy of the owner, where no thread answers."""
        self.lock = RLock()
        for end in (self._asking, self._asked):
            if end is not None:
                end.close()
        self._asking = self._asked = None


def _serve(asked: _socket.socket) -> None:
    while True:
        poller = new_poll()
        poller.register(asked, POLLIN)
        poller.poll()
        name, ancillary, _, _ = asked.recvmsg(LONGEST, ROOM, CLOEXEC)
        fds = unpack_descriptors(ancillary[0][2]) if ancillary else ()
        if len(fds) != 1:  # there was no room for it here: its sender sees that it is closed
            close_all(fds)
            continue
        reply = Channel(_socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, fds[0]))
        try:
            _answer(reply, name.decode())
        except OSError:  # it has ended meanwhile, or there is no room for a file: it sees the end
            pass
        finally:
            reply.close()


def _answer(reply: Channel, name: str) -> None:
    """Never waits for the other side: what is large travels in a file."""
    found: object = None
    try:
        found = _find(name)
        encoded = encode_inherited((found,))
    except Failure as failure:
        reply.send(Frame(FAILED, 0, failure.pack()))
        return
    except Exception as error:  # pickling runs code of the values, which may raise anything
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
        close_all(made)


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


definitions = Definitions()
os.register_at_fork(after_in_child=definitions.forget)

"""What a process lacks of its owner's ``__main__``: it asks for it, by name, and gets it by value.

multiprocessing sends functions and classes through queues and pipes by their names, and a process of a context finds
those of the owner's ``__main__`` under the same name in its own: there they come from here, when they are first looked
for. So ``__main__`` is never run again, and what is defined after the start of a process is found as well.

A question is one datagram, the name with one end of a socket pair; the answer is one frame on that pair. The owner's
side is anyfork._definitions.
"""

from __future__ import annotations

import _socket
import sys
from _pickle import UnpicklingError
from _thread import RLock

from ._channel import RIGHTS, Channel, pack_descriptors
from ._failure import unpack_texts
from ._values import Payload
from ._wire import FAILED

MISSING = "missing"  # the category of a failure: there is no such function or class
UNSENT = "unsent"  # it cannot travel


class _Definitions:
    """Stands behind the ``__main__`` of this process."""

    def __init__(self, questions: _socket.socket) -> None:
        self._questions = questions
        self._lock = RLock()
        self._awaited: set[str] = set()

    def find(self, name: str) -> object:
        """As ``__getattr__`` of the module. Raises UnpicklingError for what is there and cannot travel."""
        found = vars(sys.modules["__main__"])
        with self._lock:
            if name not in found:
                if name.startswith("__") or name in self._awaited:
                    raise _no_attribute(name)
                self._awaited.add(name)
                try:
                    found[name] = self._ask(name)
                finally:
                    self._awaited.discard(name)
            return found[name]

    def _ask(self, name: str) -> object:
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
        channel = Channel(ours)
        try:
            self._questions.sendmsg([name.encode()], [(*RIGHTS, pack_descriptors([theirs.fileno()]))])
            theirs.close()
            answer = channel.receive()
        finally:
            theirs.close()
            channel.close()
        if answer is None:
            raise UnpicklingError(f"the owner of this process does not answer what {name!r} in its __main__ is")
        if answer.kind == FAILED:
            category, _, _, reason, _ = unpack_texts(answer.body)
            raise _no_attribute(name) if category == MISSING else UnpicklingError(reason)
        (value,) = Payload(answer).load()
        return value


def _no_attribute(name: str) -> AttributeError:
    return AttributeError(f"module '__main__' has no attribute {name!r}, and that of its owner none that could be sent")


def ask_owner(fd: int) -> None:
    """Let this process's ``__main__`` ask its owner, on this socket, for what it has not."""
    questions = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM, 0, fd)
    sys.modules["__main__"].__getattr__ = _Definitions(questions).find  # type: ignore[method-assign]

"""The lookup of definitions that a process lacks of its owner's ``__main__``: by name at the owner, which sends values.

multiprocessing sends functions and classes through queues and pipes by their names. A process of a context finds those
of the owner's ``__main__`` under the same name in its own ``__main__``: this module requests them at their first
lookup. So ``__main__`` is never run again, and definitions that are made after the start of a process are found, too.

The same holds for modules that only the owner has, because it has loaded them by their path or made them itself.

A question is one message, "module:name", or "module:" to ask whether there is such a module, with one end of a socket
pair; the answer is one frame on that pair. The owner's side is anyfork._blocking.multiprocessing.main_lookup.
"""

from __future__ import annotations

import _socket
import sys
from _pickle import UnpicklingError
from _thread import RLock
from importlib.machinery import ModuleSpec

from ..values.decode import Payload, keep_shared_data
from ..wire.channel import RIGHTS, Channel, pack_descriptors
from ..wire.failure import MISSING, unpack_texts
from ..wire.frames import FAILED
from ..wire.platform import NOSIGNAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import NoReturn


class Unavailable:
    """A stand-in for a function or class of the owner that cannot travel; calling it raises the reason.

    So the error belongs to the task that needs it, not to the process that has decoded its name.
    """

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def __call__(self, *_: object, **__: object) -> NoReturn:
        raise UnpicklingError(self._reason)


class OwnerLookup:
    """The source of missing names for ``__main__`` of this process, and for modules that only its owner has.

    It is a finder and a loader of modules, for ``sys.meta_path``.
    """

    def __init__(self, questions: _socket.socket) -> None:
        self._questions = questions
        self._lock = RLock()
        self._awaited: set[str] = set()

    def answer_for(self, module: ModuleType) -> None:
        """Let a module look up here the names that it lacks."""
        module.__getattr__ = lambda name: self._find(module, name)  # type: ignore[method-assign]  # as PEP 562 has it

    def _find(self, module: ModuleType, name: str) -> object:
        """Request the object of a name that a module lacks from the owner; serves as ``__getattr__`` of the module."""
        found = vars(module)
        question = f"{module.__name__}:{name}"
        with self._lock:
            if name not in found:
                if name.startswith("__") or question in self._awaited:
                    raise _no_attribute(module.__name__, name)
                self._awaited.add(question)
                try:
                    found[name] = self._ask(question)
                except _MissingError:
                    raise _no_attribute(module.__name__, name) from None
                finally:
                    self._awaited.discard(question)
            return found[name]

    # --- Modules that only the owner has ---

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        """Return how to load a module that nothing else finds, if the owner has it."""
        try:
            self._ask(f"{name}:")
        except (_MissingError, UnpicklingError, OSError):
            return None
        return ModuleSpec(name, self, origin="the owner of this process", is_package=True)  # type: ignore[arg-type]

    def create_module(self, _spec: ModuleSpec) -> ModuleType | None:
        """Return None: the import system creates the module as usual."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Leave a module empty, and let it look up its names at the owner."""
        self.answer_for(module)

    def _ask(self, question: str) -> object:
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
        channel = Channel(ours)
        try:
            self._questions.sendmsg([question.encode()], [(*RIGHTS, pack_descriptors([theirs.fileno()]))], NOSIGNAL)
            theirs.close()
            answer = channel.receive()
        finally:
            theirs.close()
            channel.close()
        if answer is None:
            raise UnpicklingError(f"the owner of this process does not answer what {question!r} is")
        if answer.kind == FAILED:
            category, _, _, reason, _ = unpack_texts(answer.body)
            if category == MISSING:
                raise _MissingError
            return Unavailable(reason)
        (value,) = Payload(answer).load()
        keep_shared_data()
        return value


class _MissingError(Exception):
    """Raised when the owner has no object of that name, or one that is not callable and cannot travel."""


def _no_attribute(module: str, name: str) -> AttributeError:
    return AttributeError(f"module {module!r} has no attribute {name!r}, and its owner's has none that can be sent")


def ask_owner(fd: int) -> None:
    """Let this process ask its owner, on this socket, for names that ``__main__`` lacks and modules it cannot find."""
    lookup = OwnerLookup(_socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd))
    lookup.answer_for(sys.modules["__main__"])
    sys.meta_path.append(lookup)

"""The survey of this process: what runs, is open and is loaded, as far as it matters to a fork. It judges nothing."""

from __future__ import annotations

import _signal
import _socket
import gc
import os
import stat
import sys
from _thread import _count as count_threads

from _anyfork_child.wire import emitter
from _anyfork_child.wire.gpu_devices import GpuDevices
from _anyfork_child.wire.threads import subinterpreters as subinterpreters
from _anyfork_child.wire.threads import unsafe_threads

from ..._processes.link import held_back, open_links
from ..._system.lifeline import lifeline_descriptors
from ..._system.polling import patched_by

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

FROZEN_AT_START = 1000  # objects: CPython 3.12 freezes some hundreds by itself
FAMILIES = {int(getattr(_socket, name)): name.removeprefix("AF_").lower() for name in dir(_socket) if name[:3] == "AF_"}
KINDS = {_socket.SOCK_STREAM: "stream", _socket.SOCK_DGRAM: "datagram", _socket.SOCK_RAW: "raw"}


def instances(*kinds: type) -> list[Any]:
    """Return all objects of these classes that the garbage collector knows, one class after the other.

    No object is asked for its class, because proxies would answer for other objects. The types are checked instead,
    each once, because there may be millions of objects. If the program has frozen its objects, they are unfrozen for
    the search, and garbage is collected before all are frozen again: otherwise it never would be collected.
    """
    frozen = gc.get_freeze_count() > FROZEN_AT_START
    if frozen:
        gc.unfreeze()
    objects = gc.get_objects()
    wanted = {kind: {one for one in set(map(type, objects)) if issubclass(one, kind)} for kind in kinds}
    found = [value for matching in wanted.values() for value in objects if type(value) in matching]
    if frozen:
        gc.collect()
        gc.freeze()
    return found


def python_threads() -> list[str]:
    """Return the names of the Python threads beside this one."""
    count = count_threads()
    threading = sys.modules.get("threading")
    if threading is None:
        return ["a thread without a name"] * count
    others = [thread.name for thread in threading.enumerate() if thread is not threading.current_thread()]
    return others + ["a thread without a name"] * (count - len(others))


def gpus() -> list[str]:
    """Return the GPU devices that this process has open."""
    return sorted(GpuDevices().paths)


def native_threads() -> list[str]:
    """Return the names of threads that Python does not know and that do not stop for a fork; none while other Python
    threads run, because then these are the obstacle.
    """
    return [] if count_threads() else unsafe_threads()


def running_loops() -> list[str]:
    """Return the event loops that run in this thread."""
    loops = []
    asyncio, trio = sys.modules.get("asyncio.events"), sys.modules.get("trio.lowlevel")
    loop: Any = asyncio._get_running_loop() if asyncio is not None else None
    if loop is not None:
        loops.append("uvloop" if type(loop).__module__ == "uvloop" else "asyncio")
    if trio is not None and trio.in_trio_run():
        loops.append("trio")
    library = patched_by()
    return [*loops, f"{library}, which has patched the program"] if library else loops


def in_main_interpreter() -> bool:
    """Return False in a subinterpreter, and in any thread but the main one."""
    try:
        _signal.signal(0, _signal.SIG_DFL)  # CPython checks the thread before the number, so the error text tells which
    except ValueError as error:
        return "main" not in str(error)
    return True


def generators() -> list[str]:
    """Return random generators that have been seeded: all forks begin with the same numbers. Generators that are
    reseeded in a fork are not listed.
    """
    random, numpy = sys.modules.get("random"), sys.modules.get("numpy.random")
    reseeded = [id(random._inst)] if random is not None else []
    kinds: list[type[Any]] = [random.Random] if random is not None else []
    if numpy is not None:
        reseeded.append(id(numpy.mtrand._rand))
        kinds += [numpy.Generator, numpy.RandomState]
    made = [type(value) for value in instances(*kinds) if id(value) not in reseeded] if kinds else []
    found = [f"{made.count(kind)} of {kind.__module__}.{kind.__qualname__}" for kind in kinds if kind in made]
    return [*found, "the generator of torch"] if "torch" in sys.modules else found


# --- Descriptors ------------------------------------------------------------------------------------------------


def own_descriptors() -> set[int]:
    """Return the descriptors that belong to anyfork in this program. A copy of the program cannot use them."""
    fds = {fd for held in [*open_links] for link in held.line() for fd in link.descriptors()}
    fds.update(fd for link in [*held_back] if link.held is not None for fd in link.held.fds)
    template = sys.modules.get("_anyfork_child.template.template")  # loaded in processes that anyfork has started
    if template is not None:
        fds.update(template.held)
    if emitter.current is not None:
        fds.add(emitter.current.sock.fileno())
    return fds.union(lifeline_descriptors()) - {-1}


def open_descriptors() -> Iterator[tuple[int, str, str]]:
    """Yield the number, the kind, and the name or address of each open descriptor."""
    for fd in _numbers():
        try:
            mode = os.fstat(fd).st_mode
        except OSError:  # it was the descriptor of the directory listing
            continue
        yield fd, *_describe(fd, mode)


def _numbers() -> list[int]:
    for directory in ("/proc/self/fd", "/dev/fd"):
        try:
            return sorted(map(int, os.listdir(directory)))
        except OSError:
            continue
    return list(range(1024))


def _describe(fd: int, mode: int) -> tuple[str, str]:
    if stat.S_ISSOCK(mode):
        return "socket", _address(fd)
    try:
        target = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        target = ""
    for kind, test in (("file", stat.S_ISREG), ("directory", stat.S_ISDIR), ("pipe", stat.S_ISFIFO)):
        if test(mode):
            return kind, target if kind != "pipe" else ""
    if os.isatty(fd):
        return "terminal", target
    name = target.removeprefix("anon_inode:").strip("[]")
    return ("device", target) if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else (name or "other", "")


def _address(fd: int) -> str:
    try:
        sock = _socket.socket(fileno=os.dup(fd))
    except OSError:  # out of descriptors, or another thread has closed it
        return ""
    try:
        names = [FAMILIES.get(sock.family, str(sock.family)), KINDS.get(sock.type, str(sock.type))]
        if _accepts(sock):
            names.append("listening")
        for preposition, ask in (("on", sock.getsockname), ("to", sock.getpeername)):
            try:
                name = _name(ask())
            except OSError:  # the socket is not connected
                continue
            names += [preposition, name] if name else []
        return " ".join(names)
    finally:
        sock.close()


def _accepts(sock: _socket.socket) -> bool:
    try:
        return bool(sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN))
    except OSError:  # another kind of socket
        return False


def _name(address: object) -> str:
    if isinstance(address, tuple) and len(address) >= 2 and isinstance(address[0], str):
        return f"{address[0]}:{address[1]}"
    return os.fsdecode(address).replace("\0", "@") if isinstance(address, str | bytes) else str(address)

"""What a template has loaded, and what that depends on: for those who must know when the template is stale."""

from __future__ import annotations

import marshal
import os
import sys
from _frozen_importlib_external import ExtensionFileLoader, SourceFileLoader

from ..template import template as templates
from ..wire.program_reports import REWRITTEN
from .noting import noted, set_data

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Iterable, Iterator, Sequence

    from .noting import Noting

LINE = 4096  # bytes: as much as the kernel writes into a pipe in one piece
# The first two want to come before what they patch, the last one before the objects that it looks for.
BEFORE_OTHERS = {"gevent.monkey", "eventlet.patcher", "hypothesis"}


class ChangesNoted(dict[bytes, bytes]):
    """The data of os.environ that notes whether a variable was set or deleted."""

    changed = False

    def __setitem__(self, name: bytes, value: bytes) -> None:
        self.changed = True
        super().__setitem__(name, value)

    def __delitem__(self, name: bytes) -> None:
        self.changed = True
        super().__delitem__(name)


def note_changes() -> None:
    """Note from now on whether the program changes its environment."""
    set_data(ChangesNoted(os.environb._data))  # type: ignore[attr-defined]  # as below


def use_path_of_start() -> None:
    """Find modules where programs find them. The owner's path may have other places, such as its own directory."""
    sys.path[:] = templates.this.start_path


def report(channel: _socket.socket) -> None:
    """Send what this process has loaded: modules, files, directories, its interpreter, and its template's environment.

    Send what was noted meanwhile, too: states of source files, variables that were read and that were set, which
    modules have read each and all of them, whether it wrote something, and how long it took.
    """
    environment: dict[bytes, bytes] = templates.this.attributes.get("env", templates.this.start_environment)
    told: dict[str, object] = {
        "interpreter": sys.executable,
        "environment": environment,
        "modules": sorted(sys.modules),
        "files": sorted(_files()),
        "directories": sorted(_directories()),
    }
    if noted:
        told |= _notes(noted[0])
    channel.sendall(marshal.dumps(told))


def _notes(noting: Noting) -> dict[str, object]:
    before, now = noting.variables.at_first, noting.variables.plain()
    return {
        "states": noting.states,
        "read": [(name, before.get(name)) for name in noting.variables.read()],
        "set": [(name, now.get(name)) for name in before.keys() | now.keys() if now.get(name) != before.get(name)],
        "readers": noting.variables.readers,
        "read_all": noting.variables.whole,
        "wrote": noting.wrote,
        "seconds": noting.seconds,
    }


def _files() -> set[str]:
    """Return the files that loaded modules come from, those that are mapped into memory, and the interpreter's own."""
    found = {sys.executable, os.path.join(sys.prefix, "pyvenv.cfg")}
    for module in [*sys.modules.values()]:
        for origin in (getattr(module, "__file__", None), getattr(getattr(module, "__spec__", None), "origin", None)):
            if isinstance(origin, str) and os.path.isabs(origin):
                found.add(_existing(origin))
    for place in filter(os.path.isdir, sys.path):
        found.update(os.path.join(place, name) for name in os.listdir(place) if name.endswith(".pth"))
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as file:
        mapped = {line.split(maxsplit=5)[5].rstrip("\n") for line in file if line.count("/")}
    return found | {path for path in mapped if path.startswith("/") and os.path.isfile(path)}


def _existing(path: str) -> str:
    """Return a file, or the archive that it is in."""
    above = path
    while not os.path.exists(above):
        above = os.path.dirname(above)
    return above if os.path.isfile(above) else path


def _directories() -> set[str]:
    """Return the directories where a new file may hide a loaded module."""
    found = {place for place in sys.path if os.path.isabs(place)}
    for module in [*sys.modules.values()]:
        places = getattr(module, "__path__", ())
        try:
            found.update(place for place in places if isinstance(place, str) and os.path.isabs(place))
        except Exception:  # a module may put any object there, whose code runs
            continue
    return found


def tell_installed(address: str, start_path: Sequence[str]) -> None:
    """Tell the names of the loaded modules that are installed with this interpreter, in the order of their import.

    Tell none if the program may have prepared the interpreter for them, so that they must not be loaded before it
    runs: it has changed its environment, if only for the time of an import, or functions of the standard library.
    """
    data = os.environb._data  # type: ignore[attr-defined]  # as above
    if type(data) is not ChangesNoted or data.changed or not BEFORE_OTHERS.isdisjoint(sys.modules):
        return
    places = installed_places(start_path)
    found = [*sys.modules.items()]
    rewritten = [REWRITTEN + name for name, module in found if _is_rewritten(module)]
    names = [name for name, module in found if comes_from(places, name, module)]
    tell(address, [*names, *rewritten])


def tell(address: str, names: Sequence[str]) -> None:
    """Write names into the pipe at an address. Raises OSError if nobody listens there any more."""
    *place, number = address.split("/")
    with open(_open_pipe(*place), "wb", 0) as pipe:
        for line in _lines(number.encode(), map(str.encode, names)):
            pipe.write(line)


def _open_pipe(pid: str, fd: str, device: str, inode: str) -> int:
    """Open the pipe of another process. Raises OSError if it is not there any more, or not for this user.

    It is opened for reading as well: so a write raises no SIGPIPE when the other process closes it.
    """
    place = os.open(f"/proc/{pid}/fd/{fd}", os.O_PATH | os.O_CLOEXEC)  # nothing that stands there now is opened yet
    try:
        found = os.fstat(place)
        if (found.st_dev, found.st_ino) != (int(device), int(inode)):
            raise FileNotFoundError(f"descriptor {fd} of process {pid} is another file by now")
        return os.open(f"/proc/self/fd/{place}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(place)


def _lines(number: bytes, names: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines of names that are short enough to arrive whole, beside those of other programs."""
    line = number
    for name in names:
        if len(line) + len(name) + 2 > LINE:
            yield line + b"\n"
            line = number
        line += b" " + name
    yield line + b"\n"


def installed_places(start_path: Sequence[str]) -> tuple[str, ...]:
    """Return the directories of the module path where this interpreter's packages are installed."""
    prefixes = tuple({f"{prefix}{os.sep}" for prefix in (sys.prefix, sys.base_prefix)})
    return tuple(f"{place}{os.sep}" for place in start_path if _is_installed(place, prefixes))


def _is_installed(place: str, prefixes: tuple[str, ...]) -> bool:
    return os.path.isabs(place) and (place.startswith(prefixes) or place.endswith("-packages"))


def comes_from(places: tuple[str, ...], name: str, module: object) -> bool:
    """Return whether a module that can be imported by its name lies in one of some directories."""
    spec = getattr(module, "__spec__", None)
    origin = getattr(spec, "origin", None)
    if not isinstance(origin, str) or getattr(spec, "name", "") != name or not origin.startswith(places):
        return False
    if _is_rewritten(module):
        return False
    parts = name.split(".")
    own = parts[0] in ("anyfork", "_anyfork_child", "_anyfork_client")
    return not own and "__main__" not in parts and all(part.isidentifier() for part in parts)


def _is_rewritten(module: object) -> bool:
    """Return whether a hook of the program has loaded a module from its file, and may have changed its code."""
    spec = getattr(module, "__spec__", None)
    loader, origin = getattr(spec, "loader", None), getattr(spec, "origin", None)
    return (
        isinstance(origin, str)
        and os.path.isabs(origin)
        and type(loader) not in (SourceFileLoader, ExtensionFileLoader)
    )

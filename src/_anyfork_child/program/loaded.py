"""What a template has loaded, and what that depends on: for those who must know when the template is stale."""

from __future__ import annotations

import marshal
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Iterator

VOLATILE = {b"_", b"PWD", b"OLDPWD", b"SHLVL"}  # shells change them; who reads all variables means no single one


class NotingDict(dict[bytes, bytes]):
    """The data of os.environ that notes which variables were read."""

    def __init__(self, data: dict[bytes, bytes]) -> None:
        super().__init__(data)
        self.at_first = dict(data)
        self.read: set[bytes] = set()

    def __getitem__(self, name: bytes) -> bytes:
        self.read.add(name)
        return super().__getitem__(name)

    def __iter__(self) -> Iterator[bytes]:
        self.read.update(self.at_first.keys() - VOLATILE)
        return super().__iter__()


_noted: list[NotingDict] = []  # of this template


def note_variables() -> None:
    """Note the environment variables that are read from now on. Runs in the template."""
    _noted[:] = [NotingDict(os.environ._data)]  # type: ignore[attr-defined]  # its own data, of both its views
    _set_data(_noted[0])


def stop_noting() -> None:
    """Read the environment as ever from now on."""
    _set_data(dict.copy(_noted[0]))


def _set_data(data: dict[bytes, bytes]) -> None:
    os.environ._data = os.environb._data = data  # type: ignore[attr-defined]  # as above


def report(channel: _socket.socket) -> None:
    """Send what this process has loaded: modules, files and directories, variables that were read and that were set."""
    noted = _noted[0]
    before, now = noted.at_first, dict.copy(noted)
    read = [(name, before.get(name)) for name in noted.read]
    changed = [(name, now.get(name)) for name in before.keys() | now.keys() if now.get(name) != before.get(name)]
    channel.sendall(marshal.dumps((sorted(sys.modules), sorted(_files()), sorted(_directories()), read, changed)))


def _files() -> set[str]:
    """Return the files that loaded modules come from, those that are mapped into memory, and the interpreter's own."""
    found = {sys.executable, os.path.join(sys.prefix, "pyvenv.cfg")}
    for module in [*sys.modules.values()]:
        for origin in (getattr(module, "__file__", None), getattr(getattr(module, "__spec__", None), "origin", None)):
            if isinstance(origin, str) and os.path.isabs(origin):
                found.add(_existing(origin))
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

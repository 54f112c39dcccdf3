"""The control groups that this process is in, of version 1 and 2."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PROC = "/proc/self"


def group_directories(controller: str, proc: str = PROC) -> Iterator[str]:
    """Yield the directories of this process's groups of a controller, and of the groups above them.

    There are only those that this process can see.
    """
    try:
        with open(f"{proc}/cgroup") as cgroup, open(f"{proc}/mountinfo") as mountinfo:
            groups = dict(_groups(cgroup.read(), controller))
            mounts = list(_mounts(mountinfo.read(), controller))
    except OSError:  # no /proc: there are no control groups either
        return
    for version, root, mount in mounts:
        path = groups.get(version, "")
        if path:
            parts = [part for part in _below(path, root).split("/") if part not in ("", "..")]
            yield from ("/".join((mount, *parts[:depth])) for depth in range(len(parts) + 1))


def _groups(text: str, controller: str) -> Iterator[tuple[str, str]]:
    """Yield the controller ("" for version 2) and the path of each control group in /proc/PID/cgroup."""
    for line in text.splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            yield "", path
        elif controller in controllers.split(","):
            yield controller, path


def _mounts(text: str, controller: str) -> Iterator[tuple[str, str, str]]:
    """Yield the controller, the group at the root, and the directory of each mount in /proc/PID/mountinfo."""
    for line in text.splitlines():
        here, _, kind = line.partition(" - ")
        kind, _, options = kind.split(" ", 2)
        if kind == "cgroup2" or (kind == "cgroup" and controller in options.split(",")):
            root, directory = here.split(" ")[3:5]
            yield "" if kind == "cgroup2" else controller, root, directory.replace("\\040", " ")


def _below(path: str, root: str) -> str:
    """Return the path of a group below the root of a mount, or the root's if the group is outside of it."""
    if root == "/":
        return path.strip("/")
    return path.removeprefix(root).strip("/") if f"{path}/".startswith(f"{root}/") else ""

"""The place of a keeper: a directory of the user's own, and a name that stands for everything its programs share.

What a program inherits from the process that starts it is collected here, too: a part of it is in the name.
"""

from __future__ import annotations

import os
import resource
import sys
from _imp import source_hash
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM, socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]
# Variables that only the start of a process reads, or C code: those of _anyfork_child.program.cold, as a test says.
START_VARIABLES = (
    "PYTHON", "LD_", "MALLOC_", "GLIBC_TUNABLES", "LC_", "LANG",
    "OMP_", "OPENBLAS_", "MKL_", "NUMEXPR_", "BLIS_", "COVERAGE_", "SETUPTOOLS_",
)  # fmt: skip
# Lines of /proc/self/status that a program cannot be given by another process.
RIGHTS = (
    "Uid:", "Gid:", "Groups:", "CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:", "NoNewPrivs:", "Seccomp:"
)  # fmt: skip
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
SUFFIX = ".socket"
SEED = 1  # of the hash, which need not resist anybody: the keeper compares the whole key
O_PATH = getattr(os, "O_PATH", 0)  # some builds of Python do not know it
PATH = O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def inheritance(status: dict[str, str]) -> dict[str, Any]:
    """Return the attributes of this process that its programs have too. ``status`` is that of /proc/self/status."""
    return {
        "env": dict(os.environb),
        "umask": int(status["Umask:"], 8),
        "limits": {number: resource.getrlimit(number) for number in LIMITS},
        "priority": os.getpriority(os.PRIO_PROCESS, 0),
        "affinity": [*os.sched_getaffinity(0)],
        "ignored": _numbers(status["SigIgn:"]),
        "blocked": _numbers(status["SigBlk:"]),
    }


def _numbers(mask: str) -> list[int]:
    """Return the signals of a mask, a hexadecimal number."""
    bits = int(mask, 16)
    return [at + 1 for at in range(bits.bit_length()) if bits >> at & 1]


class UnusableError(Exception):
    """Raised when this process cannot have a keeper, or not reach it; the text says why."""


def read_status() -> dict[str, str]:
    """Return the lines of /proc/self/status: their values by name, with the colon."""
    with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
        return dict(line.rstrip("\n").split("\t", 1) for line in file)


def key(options: Sequence[str], status: dict[str, str], inherited: dict[str, Any]) -> str:
    """Return all that this process and the keeper must have in common, as text.

    That is what only the start of a process sets, and what only a privileged process can change back.
    """
    hard = [(number, limits[1]) for number, limits in inherited["limits"].items()]
    variables = sorted(item for item in os.environ.items() if item[0].startswith(START_VARIABLES))
    rights = [status.get(name, "") for name in RIGHTS]
    files = [_identity(path) for path in (sys.executable, "/", os.path.dirname(os.path.abspath(__file__)))]
    interpreter = sys.version, sys.executable, sys.prefix, [*options]
    return repr((interpreter, variables, rights, hard, inherited["priority"], _scheduling(), files, _namespaces()))


def _scheduling() -> tuple[list[str], str]:
    """Return the priority and the policy of the scheduler, and how willingly the kernel ends this process."""
    with open("/proc/self/stat", encoding="utf-8", errors="replace") as stat, open("/proc/self/oom_score_adj") as score:
        return stat.read().rpartition(")")[2].split()[37:39], score.read()


def _identity(path: str) -> tuple[object, ...]:
    found = os.stat(path)
    return path, found.st_dev, found.st_ino, found.st_mtime_ns if path != "/" else 0


def _namespaces() -> list[str]:
    return [os.readlink(f"/proc/self/ns/{name}") for name in NAMESPACES if os.path.lexists(f"/proc/self/ns/{name}")]


def name(of: str) -> str:
    """Return the file name for a key, without its suffix."""
    return source_hash(SEED, of.encode("utf-8", "surrogateescape")).hex()


def open_directory() -> int:
    """Return a descriptor of the user's own directory of keepers, which is made if needed. Raises UnusableError."""
    user = os.geteuid()
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    own = f"{runtime}/anyfork" if runtime.startswith("/") and _belongs_to(user, runtime) else f"/tmp/anyfork-{user}"
    try:
        try:
            os.mkdir(own, 0o700)
        except FileExistsError:
            pass
        fd = os.open(own, PATH)
    except OSError as error:
        raise UnusableError(f"the directory {own} cannot be used: {error.strerror}") from error
    found = os.fstat(fd)
    if found.st_uid != user or found.st_mode & 0o077:
        os.close(fd)
        raise UnusableError(f"the directory {own} is not private: it must belong to user {user}, with mode 0700")
    return fd


def _belongs_to(user: int, directory: str) -> bool:
    try:
        return os.stat(directory).st_uid == user
    except OSError:
        return False


def file_in(directory: int, name: str) -> str:
    """Return the path of a file in a directory that is open; short enough for a socket, and always that directory."""
    return f"/proc/self/fd/{directory}/{name}"


def connect(directory: int, name: str, timeout: float) -> socket:
    """Return a connection to a keeper. Raises OSError."""
    sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    try:
        sock.settimeout(timeout)
        sock.connect(file_in(directory, name + SUFFIX))
    except BaseException:
        sock.close()
        raise
    return sock

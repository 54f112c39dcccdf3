"""What works on this machine, and what keeps a program from starting warm."""

from __future__ import annotations

import os
import platform
import resource
import sys
import time

from _anyfork_client.arguments import interpreter_options
from _anyfork_client.place import UnusableError, open_directory

from .. import PIPE, AnyforkError, Template
from .._system.interpreter import find_python

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    Finding: TypeAlias = tuple[bool, str]

READY_TIMEOUT = 30.0  # seconds


def run() -> None:
    """Print a line for each thing that was tried. Raises SystemExit with status 1 if programs cannot start warm."""
    failed = False
    for name, check, is_needed in CHECKS:
        works, text = check()
        failed |= is_needed and not works
        print(f"{'ok' if works else 'FAILS' if is_needed else 'no':5} {name}: {text}")
    raise SystemExit(1 if failed else 0)


def _python() -> Finding:
    version = f"{platform.python_implementation()} {platform.python_version()}"
    options = " ".join(interpreter_options())
    return sys.implementation.name == "cpython", f"{version}, {sys.executable} {options}".rstrip()


def _system() -> Finding:
    return sys.platform == "linux", f"{platform.system()} {platform.release()}"


def _interpreter() -> Finding:
    try:
        return True, f"templates run {find_python()}"
    except AnyforkError as error:
        return False, str(error)


def _template() -> Finding:
    begun = time.monotonic()
    try:
        with Template().ready(READY_TIMEOUT) as template:
            made = time.monotonic()
            code = template.fork().run_code("pass").wait(READY_TIMEOUT).code
    except (AnyforkError, OSError) as error:
        return False, f"none can be made: {error}"
    milliseconds = (made - begun) * 1000, (time.monotonic() - made) * 1000
    return code == 0, "made in {:.0f} ms; a program ran in {:.0f} ms".format(*milliseconds)


def _compiled() -> Finding:
    try:
        with Template().ready(READY_TIMEOUT) as template:
            is_used = "compiled=True" in repr(template)
    except (AnyforkError, OSError) as error:
        return False, str(error)
    return is_used, "is used" if is_used else "is not used: starts take about twice as long"


def _pidfd() -> Finding:
    return _try_call(lambda: os.pidfd_open(os.getpid()), "processes are known by descriptors, not by their numbers")


def _memfd() -> Finding:
    return _try_call(lambda: os.memfd_create("anyfork"), "large values travel in files in memory")


def _try_call(call: Callable[[], int], meaning: str) -> Finding:
    try:
        os.close(call())
    except (OSError, AttributeError) as error:
        return False, str(error)
    return True, meaning


def _limits() -> Finding:
    files, processes = (resource.getrlimit(number)[0] for number in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC))
    shown = ["unlimited" if limit == resource.RLIM_INFINITY else str(limit) for limit in (files, processes)]
    return True, f"{shown[0]} open files, {shown[1]} processes of this user"


def _control_groups() -> Finding:
    show = "print(open('/proc/self/cgroup').read())"
    try:
        with Template().fork(contain=True, stdout=PIPE).run_code(show) as process:
            groups = process.communicate(timeout=READY_TIMEOUT)[0]
    except (AnyforkError, OSError) as error:
        return False, f"contain=True does not work: {error}"
    if groups is not None and b"/anyfork-" in groups:
        return True, "contain=True uses one"
    return False, "contain=True adopts orphans instead: this user may make none (of version 2, since Linux 5.14)"


def _keepers() -> Finding:
    try:
        directory = open_directory()
    except UnusableError as error:
        return False, str(error)
    place = os.readlink(f"/proc/self/fd/{directory}")
    os.close(directory)
    return True, f"have the directory {place}"


def _warm() -> Finding:
    reasons = [*_reasons()]
    return not reasons, "; ".join(reasons) or "nothing keeps `anyfork run` from starting them"


def _reasons() -> Iterator[str]:
    """Yield what keeps every program of this environment from starting warm."""
    if os.environ.get("PYTHONINSPECT"):
        yield "PYTHONINSPECT is set, so they start cold"
    places = os.environ.get("PYTHONPATH") or "/"
    if not all(map(os.path.isabs, places.split(os.pathsep))):
        yield "PYTHONPATH has relative directories, so they start cold in other directories than the template"


def _others() -> Finding:
    found: dict[str, str] = {}
    for directory in os.get_exec_path():
        for minor in range(11, 16):
            path = os.path.join(directory, f"python3.{minor}")
            if os.access(path, os.X_OK):
                found.setdefault(os.path.realpath(path), path)
    return bool(found), ", ".join(found.values()) or "none on the PATH"


# What is tried, how, and whether programs need it to start warm.
CHECKS: list[tuple[str, Callable[[], Finding], bool]] = [
    ("Python", _python, True),
    ("system", _system, True),
    ("interpreter", _interpreter, True),
    ("template", _template, True),
    ("compiled part", _compiled, False),
    ("pidfd", _pidfd, False),
    ("memfd", _memfd, False),
    ("limits", _limits, False),
    ("control groups", _control_groups, False),
    ("keepers", _keepers, True),
    ("warm programs", _warm, True),
    ("interpreters", _others, False),
]

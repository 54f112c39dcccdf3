"""What the contract and unit tests need as an owner: kinds of templates, questions to processes, and other owners."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faces
import pytest
from asking import ask as ask
from asking import ended as ended
from asking import read_all as read_all
from asking import result_of as result_of
from deadlines import DEADLINE
from early_program import early_program

import anyfork
from anyfork import aio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType

    from anyfork import Template


# Leads to another Python here, for which this program is on another machine. It finds the modules of the tests.
HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = ["env", f"PYTHONPATH={HERE}:{HERE}/contract:{HERE}/calls", sys.executable, "-"]


def environment(place: Path) -> tuple[Path, Path]:
    """Make a virtual environment without any package; return its interpreter and the directory of its packages."""
    home = Path(sys.executable).resolve()
    python, packages = place / "bin" / "python", place / "lib" / "python{}.{}".format(*sys.version_info)
    for directory in (python.parent, packages / "site-packages"):
        directory.mkdir(parents=True)
    python.symlink_to(home)
    (place / "pyvenv.cfg").write_text(f"home = {home.parent}\n")
    return python, packages / "site-packages"


# The contract holds for templates of every kind: what makes one of each.
KINDS: dict[str, Callable[[], Template]] = {
    "forked": lambda: anyfork.Template(),
    "execed": lambda: anyfork.Template.new_exec(),
    "twice_forked": lambda: anyfork.Template().fork().fork(),
    "early": lambda: early_program().template().fork(),
    "asyncio": lambda: faces.Template.make("asyncio", aio.Template),
    "trio": lambda: faces.Template.make("trio", lambda: aio.Template().fork()),
    "uvloop": lambda: faces.Template.make("uvloop", aio.Template),
    "remote": lambda: connected("remote").fork(),
    "remote_async": lambda: connected("remote_async").fork(),
}
# Templates on other machines, as far as this program knows: what connects. Each connection serves all tests.
REMOTE: dict[str, Callable[[], Template]] = {
    "remote": lambda: anyfork.RemoteTemplate(PYTHON),
    "remote_async": lambda: faces.Template.make("asyncio", lambda: aio.RemoteTemplate(PYTHON)),
}
_connections: dict[str, Template] = {}


def owner_of(new_template: Callable[[], Template]) -> int:
    """Return the pid of the program whose template this makes a fork of, as ps shows it."""
    return early_program().pid if new_template is KINDS["early"] else os.getpid()


def interrupted_at(function: Callable[..., object], action: Callable[[], object]) -> BaseException:
    """Let an interrupt come when a function begins, in the middle of an action. Return it, with its traceback."""

    def trace(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code is function.__code__:
            sys.settrace(before)
            raise KeyboardInterrupt

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with pytest.raises(KeyboardInterrupt) as raised:
            action()
    finally:
        sys.settrace(before)
    return raised.value


# For what concerns the blocking face alone.
blocking_only = pytest.mark.parametrize("new_template", ["forked", "execed", "twice_forked", "early"], indirect=True)


def forked_template() -> Iterator[Template]:
    """Yield a template: the fixture of tests for which one kind stands for all."""
    with anyfork.Template() as template:
        yield template


def connected(kind: str) -> Template:
    """Return the template at the other end of a connection; connect at the first need, and again where it is gone."""
    try:
        return _connections[kind].ready()
    except (KeyError, anyfork.TemplateError):  # another test has ended the default template, and so our relays
        _connections[kind] = REMOTE[kind]()
        return _connections[kind].ready()


def disconnect() -> None:
    """Close those connections, when all tests have run."""
    while _connections:
        _connections.popitem()[1].close()


def run_python(
    *args: str, text: str = "", env: Mapping[str, str] | None = None, timeout: float = DEADLINE, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run an interpreter, as another owner that inherits nothing."""
    return subprocess.run(
        [sys.executable, *args],
        input=text,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=None if env is None else dict(env),
        check=False,
        **options,
    )


def output_of(*args: str, text: str = "", env: Mapping[str, str] | None = None, **options: Any) -> str:
    """Return what an interpreter prints; it must end well and say nothing on its standard error."""
    done = run_python(*args, text=text, env=env, **options)
    assert (done.returncode, done.stderr) == (0, ""), f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@contextlib.contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """Yield both ends of a pipe; close those still open at the end."""
    read, write = os.pipe()
    identities = {end: os.fstat(end) for end in (read, write)}
    try:
        yield read, write
    finally:
        for end, identity in identities.items():
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(end), identity):
                    os.close(end)


@contextlib.contextmanager
def stopped(pid: int | None) -> Iterator[None]:
    """Stop a process meanwhile: it takes nothing from its sockets."""
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def interrupt_in(function: str) -> Iterator[None]:
    """Raise KeyboardInterrupt once the main thread is inside a function of this name, as Ctrl-C would."""

    def interrupt(_number: int, frame: Any) -> None:
        while frame is not None and frame.f_code.co_name != function:
            frame = frame.f_back
        if frame is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

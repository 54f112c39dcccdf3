"""The interface of the standard library's subprocess, for programs that start warm: in processes of a template.

``run``, ``Popen`` and the other functions take one more argument, ``template``. See ``Popen``.
"""

from __future__ import annotations

import subprocess as _standard
from subprocess import DEVNULL as DEVNULL
from subprocess import PIPE as PIPE
from subprocess import STDOUT as STDOUT
from subprocess import CalledProcessError as CalledProcessError
from subprocess import CompletedProcess as CompletedProcess
from subprocess import SubprocessError as SubprocessError
from subprocess import TimeoutExpired as TimeoutExpired
from subprocess import list2cmdline as list2cmdline
from types import FunctionType as _FunctionType

from ._programs.popen import Popen as Popen
from ._programs.popen import TimedPopen as _TimedPopen
from ._programs.popen import timed as _timed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._blocking.template import Template
    from ._blocking.warm import Warm

    def run(args: Any, *, template: Template | Warm | None = ..., **keywords: Any) -> CompletedProcess[Any]: ...
    def call(args: Any, *, template: Template | Warm | None = ..., **keywords: Any) -> int: ...
    def check_call(args: Any, *, template: Template | Warm | None = ..., **keywords: Any) -> int: ...
    def check_output(args: Any, *, template: Template | Warm | None = ..., **keywords: Any) -> Any: ...
    def getstatusoutput(cmd: Any, *, encoding: str | None = ..., errors: str | None = ...) -> tuple[int, str]: ...
    def getoutput(cmd: Any, *, encoding: str | None = ..., errors: str | None = ...) -> str: ...


__all__ = [name for name in _standard.__all__ if name in globals() or isinstance(vars(_standard)[name], _FunctionType)]

# What each function does, and an example.
_FUNCTIONS = {
    "run": (
        "Run a command, and return a CompletedProcess",
        'done = anyfork.subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True, text=True)',
        'assert (done.returncode, done.stdout) == (0, "1\\n")',
    ),
    "call": (
        "Run a command, and return its exit code",
        'assert anyfork.subprocess.call([sys.executable, "-c", "raise SystemExit(3)"]) == 3',
    ),
    "check_call": (
        "Run a command, and raise CalledProcessError if it fails",
        'anyfork.subprocess.check_call([sys.executable, "-c", "pass"])',
    ),
    "check_output": (
        "Run a command, and return what it writes to standard output. Raise CalledProcessError if it fails",
        'assert anyfork.subprocess.check_output([sys.executable, "-c", "print(1)"]) == b"1\\n"',
    ),
    "getstatusoutput": (
        "Run a command in a shell, and return its exit code and its output",
        'assert anyfork.subprocess.getstatusoutput("echo 1; exit 3") == (3, "1")',
    ),
    "getoutput": (
        "Run a command in a shell, and return its output",
        'assert anyfork.subprocess.getoutput("echo 1") == "1"',
    ),
}


def _document(name: str) -> str:
    what, *example = _FUNCTIONS[name]
    lines = ["import sys", "import anyfork.subprocess", "", *example]
    text = "\n".join(f"    {line}".rstrip() for line in lines)
    return f"{what}.\n\nThe arguments are those of ``subprocess.{name}``. See Popen.\n\nFor example::\n\n{text}\n"


# The functions of the standard module, with a Popen of ours and each other among their globals.
_space = {**vars(_standard), "Popen": _TimedPopen}
for _name in _FUNCTIONS:
    _function = vars(_standard)[_name]
    _ours = _FunctionType(_function.__code__, _space, _name, _function.__defaults__, _function.__closure__)
    _ours.__kwdefaults__, _ours.__doc__ = _function.__kwdefaults__, _document(_name)
    _ours.__module__ = __name__
    globals()[_name] = _space[_name] = _timed(_ours) if _name in ("run", "call") else _ours

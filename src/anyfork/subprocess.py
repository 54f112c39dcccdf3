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

# The functions of the standard module, with a Popen of ours and each other among their globals.
_space = {**vars(_standard), "Popen": Popen}
for _name in ("run", "call", "check_call", "check_output", "getstatusoutput", "getoutput"):
    _function = vars(_standard)[_name]
    _ours = _FunctionType(_function.__code__, _space, _name, _function.__defaults__, _function.__closure__)
    _ours.__kwdefaults__, _ours.__doc__ = _function.__kwdefaults__, _function.__doc__
    _ours.__module__ = __name__
    globals()[_name] = _space[_name] = _ours

"""Start Python processes from templates, which have loaded what the processes need.

A template is a small, clean interpreter. Prepare it once, and fork it as often as you want: a process is ready in
milliseconds and shares the memory of the template.

    import anyfork

    anyfork.call(pow, 2, 10)                          # one result from one new process

    template = anyfork.Template().preload("calendar")
    with template.fork().run_module("calendar", "2027") as process:
        process.wait()                                # python -m calendar 2027, without the imports

    with anyfork.Executor(template, max_workers=4) as executor:
        list(executor.map(abs, [-1, -2, -3]))         # a pool of workers

Processes
    Template      a process that runs nothing yet: prepare it, fork it, and let a function or a program take it over
    Process       a running process: its channel, its signals and its end
    ExitStatus    how a process has ended, and its Usage of resources
    wait          wait for the first of many processes to end
    CHANNEL, DEVNULL, Descriptor    values for the standard streams and for arguments

Calls
    call          one result from one new process
    Executor      a pool of workers, with the interface of concurrent.futures
    Worker        one process that answers many calls; Stream is an iterator over what a generator there yields
    aio           the same under asyncio and trio, and aio.Pool
    emit, retire  for functions in workers: report progress, leave the pool

In place of the standard library
    subprocess    its interface; programs in Python start from a template
    get_context, context    a context for multiprocessing

Templates from elsewhere
    Warm                a template that is made again when its files have changed
    fork_here, audit    a copy of the running program, and a report on what a copy would break
    RemoteTemplate      a template on another machine

All errors are AnyforkError. `python -m anyfork` lists the commands.
"""

import os
import sys

if sys.version_info < (3, 11):  # noqa: UP036  # an installer may not have checked, and the code below needs it
    raise ImportError(
        "anyfork needs Python 3.11 or newer, but {} is Python {}.{}: run the program with a newer one".format(
            sys.executable, *sys.version_info[:2]
        )
    )

from ._errors import AnyforkError as AnyforkError
from ._errors import ArgumentDecodeError as ArgumentDecodeError
from ._errors import ArgumentError as ArgumentError
from ._errors import AttributeRefusedError as AttributeRefusedError
from ._errors import CallCancelledError as CallCancelledError
from ._errors import CallError as CallError
from ._errors import CallTimeoutError as CallTimeoutError
from ._errors import ConnectError as ConnectError
from ._errors import ConnectionLostError as ConnectionLostError
from ._errors import ConnectTimeoutError as ConnectTimeoutError
from ._errors import DiedBeforeReadyError as DiedBeforeReadyError
from ._errors import ExecuteError as ExecuteError
from ._errors import ForkError as ForkError
from ._errors import FunctionNotFoundError as FunctionNotFoundError
from ._errors import HandleError as HandleError
from ._errors import HookError as HookError
from ._errors import InitializerError as InitializerError
from ._errors import LaunchError as LaunchError
from ._errors import NotReadyError as NotReadyError
from ._errors import OutputLimitError as OutputLimitError
from ._errors import PeerError as PeerError
from ._errors import PreloadError as PreloadError
from ._errors import PrepareError as PrepareError
from ._errors import ProgramError as ProgramError
from ._errors import QueueFullError as QueueFullError
from ._errors import RemoteError as RemoteError
from ._errors import RemotePythonError as RemotePythonError
from ._errors import RemoteTemplateError as RemoteTemplateError
from ._errors import ResultError as ResultError
from ._errors import StartError as StartError
from ._errors import StatusUnknownError as StatusUnknownError
from ._errors import TemplateDiedError as TemplateDiedError
from ._errors import TemplateError as TemplateError
from ._errors import UnsafeTemplateError as UnsafeTemplateError
from ._errors import WorkerDiedError as WorkerDiedError
from ._status import ExitStatus as ExitStatus
from ._status import Usage as Usage
from ._system.public_names import __dir__ as __dir__
from ._system.public_names import __getattr__ as __getattr__

TYPE_CHECKING = False
if TYPE_CHECKING or hasattr(os, "fork"):  # on other systems, these names raise errors that say why, as all others do
    from _anyfork_child.values.decode import Descriptor as Descriptor
    from _anyfork_child.wire.frames import CHANNEL as CHANNEL

    from ._blocking.process import Process as Process
    from ._blocking.template import Template as Template
    from ._processes.attributes import DEVNULL as DEVNULL
    from ._processes.attributes import PIPE as PIPE
    from ._processes.attributes import STDOUT as STDOUT

if TYPE_CHECKING:
    from _anyfork_child.wire.emitter import emit as emit
    from _anyfork_child.wire.emitter import retire as retire

    from . import aio as aio
    from . import context as context
    from . import subprocess as subprocess
    from ._blocking.advice import Advice as Advice
    from ._blocking.advice import FilledCache as FilledCache
    from ._blocking.advice import LateImport as LateImport
    from ._blocking.advice import LatePattern as LatePattern
    from ._blocking.advice import advise as advise
    from ._blocking.call import call as call
    from ._blocking.process import wait as wait
    from ._blocking.remote import RemoteTemplate as RemoteTemplate
    from ._blocking.warm import Warm as Warm
    from ._blocking.warm import WarmReport as WarmReport
    from ._blocking.worker import Stream as Stream
    from ._blocking.worker import Worker as Worker
    from ._executor.executor import Executor as Executor
    from ._pools.observation import observe as observe
    from ._pools.stats import PoolStats as PoolStats
    from ._programs.program_copy.audit import Audit as Audit
    from ._programs.program_copy.audit import OpenDescriptor as OpenDescriptor
    from ._programs.program_copy.audit import audit as audit
    from ._programs.program_copy.fork_here import UnsafeForkWarning as UnsafeForkWarning
    from ._programs.program_copy.fork_here import fork_here as fork_here
    from ._system.process_memory import ProcessMemory as ProcessMemory
    from .context import get_context as get_context

__version__ = "0.2.0"
__all__ = [
    "CHANNEL",
    "DEVNULL",
    "PIPE",
    "STDOUT",
    "Advice",
    "AnyforkError",
    "ArgumentDecodeError",
    "ArgumentError",
    "AttributeRefusedError",
    "Audit",
    "CallCancelledError",
    "CallError",
    "CallTimeoutError",
    "ConnectError",
    "ConnectTimeoutError",
    "ConnectionLostError",
    "Descriptor",
    "DiedBeforeReadyError",
    "ExecuteError",
    "Executor",
    "ExitStatus",
    "FilledCache",
    "ForkError",
    "FunctionNotFoundError",
    "HandleError",
    "HookError",
    "InitializerError",
    "LateImport",
    "LatePattern",
    "LaunchError",
    "NotReadyError",
    "OpenDescriptor",
    "OutputLimitError",
    "PeerError",
    "PoolStats",
    "PreloadError",
    "PrepareError",
    "Process",
    "ProcessMemory",
    "ProgramError",
    "QueueFullError",
    "RemoteError",
    "RemotePythonError",
    "RemoteTemplate",
    "RemoteTemplateError",
    "ResultError",
    "StartError",
    "StatusUnknownError",
    "Stream",
    "Template",
    "TemplateDiedError",
    "TemplateError",
    "UnsafeForkWarning",
    "UnsafeTemplateError",
    "Usage",
    "Warm",
    "WarmReport",
    "Worker",
    "WorkerDiedError",
    "advise",
    "aio",
    "audit",
    "call",
    "context",
    "emit",
    "fork_here",
    "get_context",
    "observe",
    "retire",
    "subprocess",
    "wait",
]

for _name in [name for name in globals() if not name.startswith("_")]:
    if isinstance(globals()[_name], type):
        globals()[_name].__module__ = __name__
del _name, TYPE_CHECKING, os, sys

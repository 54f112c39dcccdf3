"""Processes from templates: everything you wanted to use fork() for, but couldn't."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  # an installer may not have checked, and the code below needs it
    raise ImportError(
        "anyfork needs Python 3.11 or newer, but {} is Python {}.{}: run the program with a newer one".format(
            sys.executable, *sys.version_info[:2]
        )
    )

from _anyfork_child.values.decode import Descriptor as Descriptor
from _anyfork_child.wire.frames import CHANNEL as CHANNEL

from ._blocking.process import Process as Process
from ._blocking.template import Template as Template
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
from ._processes.attributes import DEVNULL as DEVNULL
from ._status import ExitStatus as ExitStatus
from ._status import Usage as Usage
from ._system.public_names import __dir__ as __dir__
from ._system.public_names import __getattr__ as __getattr__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _anyfork_child.wire.current_worker import emit as emit
    from _anyfork_child.wire.current_worker import retire as retire

    from . import aio as aio
    from . import context as context
    from . import subprocess as subprocess
    from ._blocking.call import call as call
    from ._blocking.first_end import wait as wait
    from ._blocking.remote import RemoteTemplate as RemoteTemplate
    from ._blocking.worker import Stream as Stream
    from ._blocking.worker import Worker as Worker
    from ._executor.executor import Executor as Executor
    from ._pools.stats import PoolStats as PoolStats
    from ._program_copy.audit import Audit as Audit
    from ._program_copy.audit import OpenDescriptor as OpenDescriptor
    from ._program_copy.audit import audit as audit
    from ._program_copy.fork_here import UnsafeForkWarning as UnsafeForkWarning
    from ._program_copy.fork_here import fork_here as fork_here
    from .context import get_context as get_context

__version__ = "0.1.0"

for _name in [name for name in globals() if not name.startswith("_")]:
    if isinstance(globals()[_name], type):
        globals()[_name].__module__ = __name__
del _name, TYPE_CHECKING, sys

"""Processes from templates: everything you wanted to use fork() for, but couldn't."""

from _anyfork_child._attributes import CHANNEL as CHANNEL
from _anyfork_child._values import Descriptor as Descriptor

from ._attributes import DEVNULL as DEVNULL
from ._errors import AnyforkError as AnyforkError
from ._errors import ArgumentDecodeError as ArgumentDecodeError
from ._errors import ArgumentError as ArgumentError
from ._errors import AttributeRefusedError as AttributeRefusedError
from ._errors import DiedBeforeReadyError as DiedBeforeReadyError
from ._errors import ExecuteError as ExecuteError
from ._errors import ForkError as ForkError
from ._errors import FunctionNotFoundError as FunctionNotFoundError
from ._errors import HandleError as HandleError
from ._errors import HookError as HookError
from ._errors import LaunchError as LaunchError
from ._errors import NotReadyError as NotReadyError
from ._errors import PeerError as PeerError
from ._errors import PreloadError as PreloadError
from ._errors import PrepareError as PrepareError
from ._errors import ProgramError as ProgramError
from ._errors import StartError as StartError
from ._errors import StatusUnknownError as StatusUnknownError
from ._errors import TemplateDiedError as TemplateDiedError
from ._errors import TemplateError as TemplateError
from ._errors import UnsafeTemplateError as UnsafeTemplateError
from ._process import Process as Process
from ._status import ExitStatus as ExitStatus
from ._status import Usage as Usage
from ._template import Template as Template

__version__ = "0.1.0"

for _name in [name for name in globals() if not name.startswith("_")]:
    if isinstance(globals()[_name], type):
        globals()[_name].__module__ = __name__
del _name

"""The async interface, on AnyIO: the same templates and processes for programs that run under asyncio or trio.

Functions that never wait are plain functions here too. Functions that wait are awaited, and can be cancelled anywhere.
A handle belongs to the event loop in which it is used.
"""

from ._call import call as call
from ._map import PoolMap as PoolMap
from ._pool import Pool as Pool
from ._process import Process as Process
from ._program import open_process as open_process
from ._program import run_process as run_process
from ._template import RemoteTemplate as RemoteTemplate
from ._template import Template as Template
from ._warm import Warm as Warm
from ._worker import Map as Map
from ._worker import Stream as Stream
from ._worker import Worker as Worker

for _name in (
    "Map",
    "Pool",
    "PoolMap",
    "Process",
    "RemoteTemplate",
    "Stream",
    "Template",
    "Warm",
    "Worker",
    "call",
    "open_process",
    "run_process",
):
    globals()[_name].__module__ = __name__
del _name

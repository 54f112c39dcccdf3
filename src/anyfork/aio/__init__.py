"""The async face, on AnyIO: the same templates and processes for programs that run under asyncio or trio.

What takes no waiting is a plain call here too. What waits is awaited, and can be cancelled anywhere. A handle belongs
to the event loop that it is used in.
"""

from ._process import Process as Process
from ._template import Template as Template

for _name in ("Process", "Template"):
    globals()[_name].__module__ = __name__
del _name

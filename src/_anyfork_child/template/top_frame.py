"""The top frame of a template: it serves, and then runs the call that takes the template over."""

from __future__ import annotations

from os import _exit

from ..birth.exit import run as run_call
from ..wire.resource_tracker import meet as meet_tracker
from . import template as _template
from .fork_loop import serve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from .template import Template


def run(template: Template) -> NoReturn:
    """Serve as this template, then run the call that takes it over.

    Exec'ed and copied templates enter here. Raises Unwinding in a process that becomes a Python program.
    """
    meet_tracker()
    template.note_start()
    _template.this = template
    _template.held = template.lifeline, template.reports
    call = serve(template)
    while call is None:  # the functions of most processes run in the compiled loop, and end their process there
        assert template.loop is not None
        call = template.loop.serve(template) or serve(template)
    _exit(run_call(call, template.reports))

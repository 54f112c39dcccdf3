"""What makes workers, in each face and under each loop."""

from __future__ import annotations

from typing import Any

import faces
from owner_side import connected

import anyfork
from anyfork import aio

LOADED = ("anyio", "anyio.to_thread", "anyio._backends._asyncio", "anyio._backends._trio", "logging.handlers")


class Blocking:
    """Workers of the blocking face."""

    loop = ""
    _template: Any = None

    def template(self) -> Any:
        """Return a template that a worker of this kind can take over, with nothing prepared."""
        return anyfork.Template()

    def warm(self) -> None:
        """Make the template whose forks become workers."""
        self._template = self.template().preload(*LOADED).ready()

    def make(self, template: Any, **options: Any) -> Any:
        """Make the worker."""
        return anyfork.Worker(template, **options)

    def __call__(self, template: Any = None, **options: Any) -> Any:
        return self.make(self._fork() if template is None else template, **options)

    def _fork(self) -> Any:
        """Return a fork of the warm template, or of a cold one where another test has ended it with the default one."""
        try:
            return self._template.ready().fork()
        except anyfork.TemplateError:
            return self.template()


class Async(Blocking):
    """Workers of the async face, behind the interface of the blocking one."""

    def __init__(self, loop: str) -> None:
        self.loop = loop

    def template(self) -> Any:
        return faces.Template.make(self.loop, aio.Template)

    def make(self, template: Any, **options: Any) -> Any:
        return faces.Worker(self.loop, template, **options)


class Remote(Blocking):
    """Workers on another machine, as far as this program knows."""

    def template(self) -> Any:
        return connected("remote").fork()


# uvloop is asyncio for them: what concerns loops is tested in tests/aio, under each.
MAKERS: dict[str, Blocking] = {
    "blocking": Blocking(),
    "asyncio": Async("asyncio"),
    "trio": Async("trio"),
    "remote": Remote(),
}

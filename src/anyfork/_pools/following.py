"""Pools whose templates are made again when they are stale: the pool moves to the latest, and its jobs wait for it.

Nothing here waits: the faces look at the templates, and make the next one.
"""

from __future__ import annotations

from dataclasses import replace

from .._errors import HandleError, TemplateError
from .._system.log import INFO
from .pool import PoolHandle
from .records import MAX_TRIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .._processes.handles import TemplateHandle
    from .pool_options import NewLimits
    from .records import TemplateRecord, WorkerRecord


class Followed:
    """A Warm of a pool, its generation that the pool has moved to, and the pool's own template of that generation.

    ``source`` has the template as its key; it is None before the pool has it, and when the pool does not follow the
    Warm any longer. ``lost`` is how many of these templates have ended in a row, before a worker was ready.
    """

    def __init__(self, warm: Any, generation: object, template: TemplateHandle) -> None:
        self.warm = warm
        self.generation = generation
        self.source: TemplateRecord | None = None
        self.lost = 0
        self._first = template

    @property
    def template(self) -> Any:
        """The template that workers come from now."""
        return self._first if self.source is None else self.source.key


class FollowingPool(PoolHandle):
    """A pool with Warms among its templates: ``followed`` holds these."""

    followed: dict[Any, Followed]

    def _follow_sources(self) -> None:
        """Find the sources of the Warms. The pool has been made."""
        for source in self.scheduler.sources:
            for followed in self.followed.values():
                if followed.template is source.key:
                    followed.source = source

    def _present(self, template: Any) -> Any:
        """Return the present template of a Warm; a template stands for itself."""
        followed = self.followed.get(template)
        return template if followed is None else followed.template

    def _take_over(self, followed: Followed, generation: object, template: TemplateHandle) -> None:
        """Move to the next generation: workers of the one before finish their jobs, and leave.

        Do nothing if another template has taken the place of the Warm meanwhile.
        """
        if followed.source is not None:
            self._replace(followed.source, template)
            followed.generation = generation  # last: after an interrupt before, the pool moves again

    def resize(self, new: NewLimits) -> None:
        """Do the same as ``PoolHandle.resize``; the limits may be those of a Warm."""
        if new.limits is not None:
            new = replace(new, limits={self._present(one): limit for one, limit in new.limits.items()})
        super().resize(new)

    def replace_template(self, new: TemplateHandle, old: Any = None) -> None:
        """Do the same as ``PoolHandle.replace_template``, and do not follow the Warm that is replaced any longer."""
        super().replace_template(new, self._present(old))
        for warm, followed in [*self.followed.items()]:
            if old is None or old is warm:
                followed.source = None
                del self.followed[warm]

    def _close_templates(self) -> None:
        """Close the pool's own templates: it needs no more workers. Reference cycles would keep them for a while."""
        for followed in [*self.followed.values()]:
            if followed.generation is not None:
                followed.template.close()

    # --- A template that has ended ---

    def not_started(self, worker: WorkerRecord, error: BaseException) -> None:
        """Note that a worker will never be ready. If its template has ended, its jobs wait for the next one."""
        source = worker.source
        followed = self._followed_by(source)
        if followed is not None and source.lived:
            followed.lost = 0
        if followed is None or not isinstance(error, TemplateError | HandleError):
            super().not_started(worker, error)
        elif source.awaited:  # it was the template of other workers, too
            self.scheduler.template_lost(worker, error)
        elif followed.lost >= MAX_TRIES:
            super().not_started(worker, error)
        elif self.scheduler.template_lost(worker, error):
            followed.lost += 1
            self._again = True
            self.tell(INFO, "has lost a template", str(error))
            self._make_next(followed, followed.template, error)

    def _make_next(self, followed: Followed, lost: TemplateHandle, error: BaseException) -> None:
        """Move to the next template soon, or call ``_no_next``. Each face implements this."""
        raise NotImplementedError

    def _no_next(self, followed: Followed, lost: TemplateHandle, error: BaseException) -> None:
        """Note that there is no template in place of a lost one: jobs that wait for it fail with this error."""
        source = followed.source
        if source is not None and source.key is lost and source.awaited:
            source.not_renewed(error)
            self.decide()

    def _followed_by(self, source: TemplateRecord) -> Followed | None:
        return next((one for one in self.followed.values() if one.source is source), None)

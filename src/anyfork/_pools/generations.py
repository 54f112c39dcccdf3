"""The generations of a pool's templates: the pool moves to the next one, made of its Warm, and its jobs wait for it.

Workers of the generation before finish their jobs, and leave: the scheduler compares the ``generation`` of each worker
with that of its TemplateRecord. Nothing here waits: the faces look at the templates, and make the next one.
"""

from __future__ import annotations

from dataclasses import replace

from .._errors import ArgumentError, HandleError, TemplateError
from .._system.log import INFO
from .pool import PoolHandle
from .records import MAX_TRIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .._processes.handles import TemplateHandle
    from .pool_options import NewLimits
    from .records import TemplateRecord, WorkerRecord


class Followed:
    """A Warm of a pool, and its generation that the pool has moved to; None if it has still to move to one.

    The key of ``source`` is the pool's own template of that generation; the source is None when the pool does not
    follow the Warm any longer. ``lost`` is how many of these templates have ended in a row, before a worker was ready.
    """

    def __init__(self, warm: Any, source: TemplateRecord, generation: object) -> None:
        self.warm = warm
        self.generation = generation
        self.source: TemplateRecord | None = source
        self.lost = 0

    @property
    def template(self) -> Any:
        """The template that workers come from now; None if the pool does not follow the Warm any longer."""
        return None if self.source is None else self.source.key


class FollowingPool(PoolHandle):
    """A pool that may have Warms among its templates: ``followed`` holds these."""

    def _follow_from(self, template: TemplateHandle, warm: Any, generation: object = None) -> None:
        """Follow a Warm from now on; the pool was made with this template in its place."""
        self.followed += [Followed(warm, one, generation) for one in self.scheduler.sources if one.key is template]

    def _present(self, template: Any) -> Any:
        """Return the present template of a Warm; a template stands for itself."""
        return next((followed.template for followed in self.followed if followed.warm is template), template)

    def _take_over(self, followed: Followed, generation: object, template: TemplateHandle) -> None:
        """Move to the next generation: workers of the one before finish their jobs, and leave.

        Do nothing if another template has taken the place of the Warm meanwhile.
        """
        if followed.source is not None:
            super()._replace(followed.source, template)
            followed.generation = generation  # last: after an interrupt before, the pool moves again

    def resize(self, new: NewLimits) -> None:
        """Do the same as ``PoolHandle.resize``; the limits may be those of a Warm."""
        if new.limits is not None:
            new = replace(new, limits={self._present(one): limit for one, limit in new.limits.items()})
        super().resize(new)

    def _source_of(self, old: Any) -> TemplateRecord:
        return super()._source_of(self._present(old))

    def _source_for(self, warm: Any, old: Any) -> TemplateRecord:
        """Return the source that a Warm is to replace. Raises ArgumentError."""
        source = self._source_of(old)
        if any(followed.warm is warm and followed.source is not source for followed in self.followed):
            raise ArgumentError("replace_template(): the pool has this Warm already, in the place of another template")
        return source

    def _replace(self, source: TemplateRecord, new: TemplateHandle) -> None:
        self._stop_following(source)
        source.awaited = False  # this is another template than the one that may have been lost
        super()._replace(source, new)

    def _replace_by_warm(
        self, source: TemplateRecord, warm: Any, latest: tuple[object, TemplateHandle] | None = None
    ) -> None:
        """Follow a Warm in the place of a template, which serves until the pool has moved to the latest generation.

        With ``latest``, a generation and the pool's own template of it, the pool moves to it now.
        """
        self._stop_following(source)
        followed = Followed(warm, source, None)
        self.followed.append(followed)
        if latest is not None:
            self._take_over(followed, *latest)
        elif source.awaited and source.error is not None:  # jobs wait because the template before has been lost
            self._make_next(followed, source.key, source.error)

    def _stop_following(self, source: TemplateRecord) -> None:
        for followed in [*self.followed]:
            if followed.source is source:
                followed.source = None
                self.followed.remove(followed)

    def _close_templates(self) -> None:
        """Close the pool's own templates: it needs no more workers. Reference cycles would keep them for a while."""
        for followed in [*self.followed]:
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
        return next((one for one in self.followed if one.source is source), None)


def several(given: Any) -> Any:
    """Return the templates that a pool is made with, as they are iterated over."""
    return given if hasattr(given, "items") else (given,)


def in_place(given: Any, templates: Mapping[Any, TemplateHandle]) -> Any:
    """Return what a pool is made with: ``given``, with a template in the place of each Warm."""
    if hasattr(given, "items"):
        return {templates.get(one, one): limit for one, limit in given.items()}
    return templates[given] if templates else given

"""The templates that the workers of a pool come from, as its scheduler sees them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FIRST_DELAY = 0.05  # seconds before the third attempt, when two have failed; the second comes at once
LAST_DELAY = 5.0  # seconds: the delay doubles with each further failure, up to this
MAX_TRIES = 5  # starts in a row that gave no living worker, until the template counts as hopeless


class Source:
    """A template for workers of a pool: the ``key``. ``limit`` is how many workers it may have.

    Each ``generation`` is another template; the face sets the key then.
    """

    __slots__ = ("broken", "count", "error", "failures", "generation", "key", "limit", "not_before", "stillborn")

    def __init__(self, key: Any, limit: float) -> None:
        self.key = key
        self.limit = limit
        self.count = 0  # workers that have, or may get, jobs
        self.generation = 0
        self.renew()
        self.generation = 0

    def renew(self) -> None:
        """Forget the history: the source is another template now, of which nothing is known."""
        self.generation += 1
        self.failures = 0  # failures in a row, of all kinds
        self.stillborn = 0  # how many of the failures were starts that gave no living worker
        self.not_before = 0.0
        self.broken = False  # the template will never give a living worker
        self.error: BaseException | None = None  # why the last start has failed

    def succeeded(self) -> None:
        """Note that a worker of the template has done a job, which ends the back-off."""
        self.failures = self.stillborn = 0
        self.not_before = 0.0

    def failed(self, now: float) -> None:
        """Note that a worker of the template has died or was not started, and set the back-off."""
        self.failures += 1
        delay = FIRST_DELAY * 2 ** min(self.failures - 2, 10) if self.failures > 1 else 0.0
        self.not_before = now + min(delay, LAST_DELAY)

    def not_started(self, now: float, error: BaseException, permanent: bool) -> None:
        """Note that a start has failed. ``permanent`` says that all other starts will fail too."""
        self.failed(now)
        self.stillborn += 1
        self.error = error
        self.broken = permanent

    @property
    def hopeless(self) -> bool:
        """Return whether jobs that wait for a worker of the template should be told that there is none."""
        return self.broken or self.stillborn >= MAX_TRIES

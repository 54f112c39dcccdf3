"""Where the workers of a pool come from: one template, as its scheduler sees it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FIRST_DELAY = 0.05  # seconds before the third attempt, when two have failed; the second comes at once
LAST_DELAY = 5.0  # and between all further ones
MAX_TRIES = 5  # starts in a row that gave no living worker, until those who wait are told


class Source:
    """One template, the ``key``. ``limit`` is how many workers it may have.

    With each ``generation`` it is another template; the face sets the key then.
    """

    __slots__ = ("broken", "count", "error", "failures", "generation", "key", "limit", "not_before", "stillborn")

    def __init__(self, key: Any, limit: float) -> None:
        self.key = key
        self.limit = limit
        self.count = 0  # workers that have, or may get, something to do
        self.generation = 0
        self.renew()
        self.generation = 0

    def renew(self) -> None:
        """It is another template, of which nothing is known."""
        self.generation += 1
        self.failures = 0  # in a row, of all kinds
        self.stillborn = 0  # of those, starts that gave no living worker
        self.not_before = 0.0
        self.broken = False  # it will never give one
        self.error: BaseException | None = None  # why the last start has failed

    def succeeded(self) -> None:
        """A worker of it has done a job."""
        self.failures = self.stillborn = 0
        self.not_before = 0.0

    def failed(self, now: float) -> None:
        """A worker of it has died, or was not started."""
        self.failures += 1
        delay = FIRST_DELAY * 2 ** min(self.failures - 2, 10) if self.failures > 1 else 0.0
        self.not_before = now + min(delay, LAST_DELAY)

    def not_started(self, now: float, error: BaseException, permanent: bool) -> None:
        """A start has failed; ``permanent`` says that all others will too."""
        self.failed(now)
        self.stillborn += 1
        self.error = error
        self.broken = permanent

    @property
    def hopeless(self) -> bool:
        """Whether those who wait for a worker of it should be told that there is none."""
        return self.broken or self.stillborn >= MAX_TRIES

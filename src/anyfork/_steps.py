"""What the scheduler of a pool wants to be done."""

from __future__ import annotations

from enum import Enum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._jobs import Job
    from ._sources import Source
    from ._workforce import Worker


class Failure(Enum):
    """Why a job has no answer."""

    DIED = "its worker has died"
    TIMED_OUT = "it ran for too long"
    NO_WORKER = "no worker can be started"
    KILLED = "the pool was killed"


class Steps:
    """What is to be done now."""

    __slots__ = ("assign", "fail", "kill", "start", "stop")

    def __init__(self) -> None:
        self.assign: list[tuple[Worker, Job]] = []
        self.start: list[Worker] = []
        self.stop: list[Worker] = []
        self.kill: list[Worker] = []
        self.fail: list[tuple[Job, Failure, Worker | Source | None]] = []

    def __bool__(self) -> bool:
        return bool(self.assign or self.start or self.stop or self.kill or self.fail)

"""The CPU time and the page faults of a contender: of its owner, of its templates, and of the processes that they fork.

A template here is any process below the owner that was there before and is there afterwards.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from .procfs import cpu, faults, offspring

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

ACCOUNTS = (  # where a control group counts CPU time: its file, the name of the figure there, and its unit in seconds
    (Path("/sys/fs/cgroup/cpuacct"), "cpuacct.usage", "", 1e-9),
    (Path("/sys/fs/cgroup"), "cpu.stat", "usage_usec ", 1e-6),
)


@dataclass(frozen=True, slots=True)
class Share:
    """Seconds of CPU, and minor page faults."""

    cpu: float
    faults: float

    def __sub__(self, other: Share) -> Share:
        return Share(self.cpu - other.cpu, self.faults - other.faults)

    def divided(self, count: float) -> Share:
        """The share of one among so many."""
        return Share(self.cpu / count, self.faults / count)


@dataclass(frozen=True, slots=True)
class Shares:
    """What an owner, its templates and the processes of these have used."""

    owner: Share
    template: Share
    process: Share

    @property
    def cpu(self) -> float:
        """The seconds of all."""
        return self.owner.cpu + self.template.cpu + self.process.cpu


class Account:
    """The account of an owner and of all that is below it.

    With a control group the time of processes is exact; without one it is what those that reap them know, in steps of
    10 ms.
    """

    def __init__(self, owner: int) -> None:
        self._owner = owner
        self._group: Path | None = None
        self._known: dict[int, tuple[Share, Share]] = {}
        self._before = 0.0

    def __enter__(self) -> Self:
        self._group = _make_group()
        if self._group is not None:
            for pid in (self._owner, *offspring(self._owner)):
                with suppress(ProcessLookupError):
                    (self._group / "cgroup.procs").write_text(str(pid))
        return self

    def __exit__(self, *_: object) -> None:
        """Let the group go; its members go to the group above."""
        if self._group is not None:
            for pid in (self._group / "cgroup.procs").read_text().split():
                with suppress(ProcessLookupError):
                    (self._group.parent / "cgroup.procs").write_text(pid)
            with suppress(OSError):  # a process is about to end
                self._group.rmdir()

    def begin(self) -> None:
        """Note what was used so far."""
        self._known = self._look([self._owner, *offspring(self._owner)])
        self._before = self._used()

    def end(self, count: float) -> Shares:
        """Return what one of so many starts has used since ``begin``."""
        used = self._used() - self._before
        now = self._look([pid for pid in self._known if os.path.exists(f"/proc/{pid}")])
        own = {pid: now[pid][0] - self._known[pid][0] for pid in now}
        reaped = [now[pid][1] - self._known[pid][1] for pid in now]
        template = _sum([share for pid, share in own.items() if pid != self._owner])
        process = _sum(reaped)
        if self._group is not None:
            process = Share(used - own[self._owner].cpu - template.cpu, process.faults)
        return Shares(*(share.divided(count) for share in (own[self._owner], template, process)))

    def _used(self) -> float:
        if self._group is None:
            return 0.0
        for _, name, word, unit in ACCOUNTS:
            file = self._group / name
            if file.exists():
                return int(file.read_text().partition(word)[2].split()[0] if word else file.read_text()) * unit
        return 0.0

    @staticmethod
    def _look(pids: list[int]) -> dict[int, tuple[Share, Share]]:
        """What processes have used themselves, and their children that they have reaped."""
        found = {}
        for pid in pids:
            with suppress(OSError):  # it has ended meanwhile
                time, count = cpu(pid), faults(pid)
                found[pid] = Share(time.own, count.own), Share(time.children, count.children)
        return found


def _sum(shares: list[Share]) -> Share:
    return Share(sum(share.cpu for share in shares), sum(share.faults for share in shares))


def _make_group() -> Path | None:
    """Make a control group that counts CPU time, if that is allowed here."""
    for root, name, _, _ in ACCOUNTS:
        try:
            group = Path(mkdtemp(prefix="anyfork-bench-", dir=root))
        except OSError:
            continue
        if (group / name).exists():
            return group
        group.rmdir()
    return None

"""Every test has a deadline, and leaves nothing behind: no process, zombie, descriptor or thread in its program."""

from __future__ import annotations

import gc
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import faces
import pytest
from owner_side import KINDS

import anyfork
from anyfork import aio
from anyfork._default import default_template

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anyfork import Template

DEADLINE = 20.0  # seconds for what a test started to be gone; nothing waits that long unless something is wrong


def descriptors() -> dict[int, str]:
    """What this process has open: what each descriptor is, by number."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # the descriptor of listdir itself
            continue
    return found


def descendants(pid: int | None = None) -> dict[int, str]:
    """The processes below one, zombies included: their state and command line, by pid."""
    parents: dict[int, int] = {}
    texts: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:  # it has ended meanwhile
            continue
        fields = stat.rpartition(")")[2].split()
        parents[int(entry.name)] = int(fields[1])
        texts[int(entry.name)] = f"{fields[0]} {command}"
    root = os.getpid() if pid is None else pid
    below: dict[int, str] = {}
    for child in parents:
        ancestor = child
        while ancestor in parents and ancestor != root:
            ancestor = parents[ancestor]
        if ancestor == root and child != root:
            below[child] = texts[child]
    return below


def owned(owner: int) -> dict[int, str]:
    """All processes that anyfork has started for an owner, wherever they hang now: their titles begin with its pid."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            except OSError:
                continue
            if title.startswith(f"{owner} "):
                found[int(entry.name)] = title
    return found


def eventually(condition: Callable[[], object], what: str = "", deadline: float = DEADLINE) -> None:
    """Wait until a condition outside this process holds, for which there is nothing to wait on."""
    end = time.monotonic() + deadline
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < end, what or f"it did not happen within {deadline} seconds"
        pause.wait(0.002)


def pytest_collection_finish() -> None:
    """Every test collects garbage twice: not that of the test framework, which takes longer than most tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _default_template() -> None:
    """Start the default template and the loops once, so that they do not count as left behind."""
    anyfork.Template().ready().close()
    for name in faces.BACKENDS:
        faces.Template.make(name, aio.Template).ready().close()


def new_descriptors(before: dict[int, str]) -> dict[int, str]:
    """What is open now and was not before."""
    return {fd: text for fd, text in descriptors().items() if fd not in before}


def own_threads() -> set[threading.Thread]:
    """The threads of this program, without those that the loops of the tests keep for later."""
    return {thread for thread in threading.enumerate() if not thread.name.startswith(("Trio thread", "AnyIO worker"))}


def settled(count: int) -> bool:
    """Whether no more than so many descriptors are open, when all garbage is collected: what one pass finalizes may
    be what keeps the next one from a cycle."""
    if len(descriptors()) <= count:
        return True
    gc.collect()
    return False


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Prove that the test has left nothing, and that the default template still answers."""
    gc.collect()
    before, threads = descriptors(), own_threads()
    processes = descendants()
    yield
    gc.collect()
    # A test may have made the library replace its default template, which then has another pid and descriptors.
    link = default_template._link
    replaced = {link.session.pid} if link is not None else set()

    def left() -> dict[int, str]:
        return {pid: text for pid, text in descendants().items() if pid not in processes and pid not in replaced}

    eventually(lambda: not left(), f"processes are left: {left()}")
    eventually(lambda: settled(len(before)), f"descriptors are left: {new_descriptors(before)}")
    assert own_threads() <= threads, "threads are left"
    anyfork.Template().ready(DEADLINE).close()


@pytest.fixture(params=faces.BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """The loop that an async test runs in: each of those that are supported."""
    options = faces.BACKENDS[request.param]
    return options["backend"], options.get("backend_options", {})


@pytest.fixture(params=KINDS)
def new_template(request: pytest.FixtureRequest) -> Callable[[], Template]:
    """What makes a template, of each kind in turn: the contract is the same for all."""
    return KINDS[request.param]


@pytest.fixture
def template(new_template: Callable[[], Template]) -> Iterator[Template]:
    """A template, of each kind in turn."""
    with new_template() as template:
        yield template

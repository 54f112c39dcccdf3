"""Every test has a deadline, and leaves nothing behind: no process, zombie, descriptor or thread in its program."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sysconfig
import threading
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING

import child_side
import faces
import hypothesis  # before garbage is frozen: its hook for trio looks for references in what is not
import pytest
from deadlines import DEADLINE
from early_program import early_program
from local_only import LOCAL_ONLY, LOCAL_ONLY_CASES
from owner_side import KINDS, REMOTE, connected, disconnect
from procfs import exists

import anyfork
from anyfork import aio
from anyfork._blocking.waiting import run
from anyfork._processes.default_template import default_template
from anyfork._processes.flows import prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from anyfork import Template

for _number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:  # which Python ignores
    if signal.getsignal(_number) == signal.SIG_IGN:  # by nohup, or in the background of a shell
        signal.signal(_number, signal.SIG_DFL)

# No test asserts a duration, because machines are loaded.
hypothesis.settings.register_profile("loaded", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("loaded")

# The fixtures and parameters by which one text of a test holds for each kind of template, worker and loop.
KIND_NAMES = ("new_template", "new_worker", "made", "made_for_others", "anyio_backend")
# Kinds whose parts are those of others: a fork of a fork, and a loop that tests/aio is about.
COMPOSED = ("twice_forked", "fork of twice_forked", "uvloop")

PACKAGES = {"uvloop": "uvloop", "pool-uvloop": "uvloop", "msgpack": "msgspec"}  # by the parameter of tests that need it


def descriptors() -> dict[int, str]:
    """Return what each open descriptor of this process leads to, by number."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # the descriptor of listdir itself
            continue
    return found


def state_and_command(pid: int) -> str:
    """Return the state and the command line of a process. Raises OSError when it has ended."""
    with open(f"/proc/{pid}/stat") as stat, open(f"/proc/{pid}/cmdline", "rb") as command:
        state = stat.read().rpartition(")")[2].split()[0]
        return f"{state} {command.read().replace(bytes(1), b' ').decode(errors='replace').strip()}"


def children(pid: int) -> list[int]:
    """Return the children of all threads of a process, zombies included."""
    found: list[int] = []
    with contextlib.suppress(OSError):  # it ends meanwhile
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as listed:
                found += map(int, listed.read().split())
    return found


def pids_below(pid: int) -> set[int]:
    """Return the pids of the processes below one, zombies included."""
    below: set[int] = set()
    ahead = children(pid)
    while ahead:
        child = ahead.pop()
        below.add(child)
        ahead += children(child)
    return below


def descendants(pid: int | None = None) -> dict[int, str]:
    """Return the processes below one, zombies included: their state and command line, by pid."""
    below: dict[int, str] = {}
    for child in pids_below(pid or os.getpid()):
        with contextlib.suppress(OSError):
            below[child] = state_and_command(child)
    return below


def owned(owner: int) -> dict[int, str]:
    """Return all processes that anyfork has started for an owner, by their titles, which begin with its pid."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                title = state_and_command(int(name)).partition(" ")[2]
                if title.startswith(f"{owner} "):
                    found[int(name)] = title
    return found


def eventually(condition: Callable[[], object], what: str | Callable[[], str] = "", deadline: float = DEADLINE) -> None:
    """Wait until a condition outside this process holds, for which there is nothing to wait on.

    If it does not hold at the end, the error says ``what``, or what that returns then.
    """
    end = time.monotonic() + deadline
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < end, _text(what) or f"it did not happen within {deadline} seconds"
        pause.wait(0.002)


def wait_for_end(pid: int, deadline: float = DEADLINE) -> None:
    """Wait until a process has ended, and its parent has reaped it."""
    eventually(lambda: not exists(pid), f"process {pid} goes on", deadline)


def _text(what: str | Callable[[], str]) -> str:
    return what if isinstance(what, str) else what()


def pytest_configure() -> None:
    """Do not ignore what shells make their background jobs ignore: the programs of tests would inherit it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def merge_references() -> None:
    """Count the references of all threads now: in a free-threaded build, those of other threads wait for a collection.

    So they do with the GIL switched on. One collection serves one object: what that held may need the next one.
    """
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        gc.collect()


def eventually_freed(condition: Callable[[], object], what: str = "") -> None:
    """Wait until what holds when objects are freed whose last references other threads may have dropped."""
    eventually(lambda: merge_references() or condition(), what)


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Leave out what does not concern templates on other machines; skip what needs a package that is not there."""
    for item in items:
        for package in _missing(item):
            item.add_marker(pytest.mark.skip(reason=f"{package} has no wheel for this interpreter"))
    left_out = [item for item in items if _is_remote(item) and not _concerns_remote(item)]
    for item in items:
        if _is_remote(item) or _is_of_the_product(item):  # what is special about them has tests of its own
            item.add_marker(pytest.mark.slow)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    yield
    _begin_with_what_waits(items)  # last: what others take away afterwards would change the parts


def _is_of_the_product(item: pytest.Item) -> bool:
    """Return whether a test is for the whole product of kinds and cases, which is in the slow group.

    The others run each case with the first kind, and each kind with the first case: what a case asks for is done by
    code that does not know the kind. Attributes are the exception, which a new interpreter gets in its own way.
    """
    parameters = getattr(item, "callspec", None)
    if parameters is None:
        return False
    kinds = [name for name in parameters.indices if name in KIND_NAMES]
    if any(parameters.params[name] in COMPOSED for name in kinds) and item.path.parent.name != "aio":
        return True
    another_case = any(index for name, index in parameters.indices.items() if name not in KIND_NAMES)
    return another_case and any(parameters.indices[name] and parameters.params[name] != "new_exec" for name in kinds)


def _begin_with_what_waits(items: list[pytest.Item]) -> None:
    """Let each process of pytest-xdist begin with one of the tests that take minutes, and do little but wait."""
    waiting = [item for item in items if item.path.name == "test_multiprocessing_suite.py"]
    items[:] = [item for item in items if item not in waiting]
    parts = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    for number, item in enumerate(waiting):  # each process gets an equal part of the list
        items.insert(number % parts * (len(items) + len(waiting) - number) // parts + 1, item)


def _missing(item: pytest.Item) -> set[str]:
    """Return the packages that the parameters of a test stand for, and that are not installed."""
    parameters = getattr(item, "callspec", None)
    names = {value for value in parameters.params.values() if isinstance(value, str)} if parameters else set()
    return {package for name, package in PACKAGES.items() if name in names and find_spec(package) is None}


def connect() -> None:
    """See that what remote templates are forked from is there."""
    for kind in REMOTE:
        connected(kind)


def _is_remote(item: pytest.Item) -> bool:
    return any(text in item.name for kind in REMOTE for text in (f"{kind}-", f"{kind}]"))


def _concerns_remote(item: pytest.Item) -> bool:
    if item.path.parent.name not in ("contract", "calls") or any(case in item.name for case in LOCAL_ONLY_CASES):
        return False
    return getattr(item, "originalname", "") not in LOCAL_ONLY


def pytest_collection_finish() -> None:
    """Freeze what exists before the tests: each test collects garbage, which would take longer than most tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _default_template(request: pytest.FixtureRequest) -> Iterator[None]:
    """Start the default template, an early program, the loops and connections once, so that they do not count as left behind."""
    anyfork.Template().ready().close()
    early_program().template().ready().close()
    for name in faces.BACKENDS:
        if find_spec(name) is None:  # uvloop, in a free-threaded build
            continue
        faces.Template.make(name, aio.Template).ready().close()
    if any(map(_is_remote, request.session.items)):
        connect()
    yield
    disconnect()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[child_side.NamedPipe]:
    """Provide what functions in processes wait for or write to, on other machines too."""
    path = tmp_path.parent / f"{tmp_path.name}-gate"  # the directory itself stays empty
    os.mkfifo(path)
    with contextlib.closing(child_side.NamedPipe(str(path))) as gate:
        gate.fileno()  # opens it: what a process writes would be gone with the process if nobody had it open
        yield gate


@pytest.fixture(scope="session")
def warm_templates() -> None:
    """Make templates for workers that have loaded the event loops already: importing them takes longer than a test."""
    from call_makers import MAKERS

    for make in MAKERS.values():
        make.warm()


def count_descriptors() -> int:
    """Return how many descriptors of this process are open, without the one that is open for listing them."""
    return len(os.listdir("/proc/self/fd")) - 1


def new_descriptors(before: dict[int, str]) -> dict[int, str]:
    """Return what is open now and was not before."""
    return {fd: text for fd, text in descriptors().items() if fd not in before}


def own_threads() -> set[threading.Thread]:
    """Return the threads of this program, without those that the loops of the tests keep for later."""
    return {thread for thread in threading.enumerate() if not thread.name.startswith(("Trio thread", "AnyIO worker"))}


def or_collect(holds: bool) -> bool:
    """Return whether it holds. Collects garbage if not: what one pass finalizes may keep the next one from a cycle."""
    if not holds:
        gc.collect()
    return holds


def default_template_answers() -> None:
    """See that the default template answers, or the one that replaces it if the test has ended it."""
    try:
        run(prepare(default_template.get(), DEADLINE))
    except anyfork.TemplateError:
        anyfork.Template().ready(DEADLINE).close()


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Prove that the test has left nothing, and that the default template still answers.

    It looks at every test: at the end it asks the system for numbers alone, and for more where something is left.
    """
    if _is_remote(request.node):
        connect()
    before, threads = descriptors(), own_threads()
    processes = pids_below(os.getpid())
    yield
    gc.collect()
    # A test may have made the library replace its default template, which then has another pid and descriptors.
    link = default_template._link
    allowed = processes if link is None else processes | {link.session.pid}

    def left() -> dict[int, str]:
        return {pid: text for pid, text in descendants().items() if pid not in allowed}

    eventually(lambda: or_collect(pids_below(os.getpid()) <= allowed), lambda: f"processes are left: {left()}")
    eventually(
        lambda: or_collect(count_descriptors() <= len(before)),
        lambda: f"descriptors are left: {new_descriptors(before)}",
    )
    eventually(lambda: own_threads() <= threads, lambda: f"threads are left: {own_threads() - threads}")
    default_template_answers()
    gc.freeze()


@pytest.fixture(params=faces.BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """Return the loop that an async test runs in: each of those that are supported."""
    options = faces.BACKENDS[request.param]
    return options["backend"], options.get("backend_options", {})


@pytest.fixture(params=["compiled", "python"])
def part(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have new interpreters use the compiled part, or its twin in Python; return which."""
    if request.param == "compiled" and find_spec("_anyfork_child.template._fast") is None:
        pytest.skip("anyfork was built without its compiled part")
    monkeypatch.setenv("ANYFORK_COMPILED", "1" if request.param == "compiled" else "0")
    return str(request.param)


@pytest.fixture(params=KINDS)
def new_template(request: pytest.FixtureRequest) -> Callable[[], Template]:
    """Return a function that makes a template, of each kind in turn: the contract is the same for all."""
    return KINDS[request.param]


@pytest.fixture
def template(new_template: Callable[[], Template]) -> Iterator[Template]:
    """Yield a template, of each kind in turn."""
    with new_template() as template:
        yield template

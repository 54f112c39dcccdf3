"""Jupyter kernels in processes of a template. Each test is a program with real managers and clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import queue
import re
import signal
import subprocess
import sys
from ast import literal_eval
from pathlib import Path

import pytest

pytest.importorskip("nbclient", reason="nbclient is not installed, or has no wheel for this interpreter")
pytest.importorskip("ipykernel", reason="ipykernel is not installed, or has no wheel for this interpreter")

import nbformat
from conftest import eventually, owned, wait_for_end
from in_program import SECONDS, TEST_DEADLINE, in_program
from jupyter_client import AsyncKernelManager, KernelManager
from nbclient import NotebookClient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(TEST_DEADLINE)]

PAGE = Path(__file__).parents[2] / "docs" / "jupyter.md"


def specify(name, *options, python="python", preload=(), env=None):
    """Write a kernel specification for this program and those that it starts."""
    spec = {
        "argv": [python, *options, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": name,
        "language": "python",
        "env": env or {},
        "metadata": {"kernel_provisioner": {"provisioner_name": "anyfork", "config": {"preload": [*preload]}}},
    }
    return install(name, json.dumps(spec))


def install(name, specification):
    os.environ |= {"JUPYTER_PATH": os.getcwd(), "IPYTHONDIR": os.path.abspath("ipython")}
    folder = Path("kernels", name)
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(specification)
    return name


@contextlib.contextmanager
def kernel(name, **options):
    """Yield the manager of a new kernel, and a client of it."""
    manager = KernelManager(kernel_name=name)
    manager.start_kernel(**options)
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=SECONDS)
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def value(client, expression, code=""):
    """Return the value of an expression in a kernel."""
    reply = client.execute(code, user_expressions={"value": expression}, reply=True, timeout=SECONDS)
    return literal_eval(reply["content"]["user_expressions"]["value"]["data"]["text/plain"])


def parent(client):
    return value(client, "os.getppid()", "import os")


FRESH = {
    "session": "get_ipython().kernel.session.session",
    "key": "get_ipython().kernel.session.key",
    "history": "get_ipython().history_manager.session_number",
    "random": "random.random()",
    "numpy": "numpy.random.rand()",
    "uuid": "uuid.uuid4().hex",
}


@in_program
def test_each_kernel_is_a_process_of_the_template_with_a_state_of_its_own():
    warm = specify("warm", "-Xfrozen_modules=off", preload=["numpy"])
    seen, parents = [], set()
    for _ in range(2):
        with kernel(warm) as (manager, client):
            loaded = value(client, "'numpy' in sys.modules", "import sys, random, uuid")
            assert loaded
            assert manager.provisioner.process.pid == value(client, "os.getpid()", "import os, numpy")
            assert manager.session.key == value(client, FRESH["key"])
            assert value(client, f"[{', '.join(FRESH.values())}, sys.argv[1], 'mine' in globals()]")[-1] is False
            seen.append(value(client, f"[{', '.join(FRESH.values())}]", "mine = 1"))
            assert value(client, "zmq.Context.instance().socket(zmq.PUSH).closed", "import zmq") is False
            parents.add(parent(client))
    assert len(parents) == 1
    assert os.getpid() not in parents
    assert all(one != other for one, other in zip(*seen, strict=True))


@in_program
def test_a_notebook_gives_the_same_with_a_template_as_without():
    (specification,) = re.findall(r"^```json\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    warm = install("warm", specification)
    cells = [
        "import pandas, sys, warnings\nframe = pandas.DataFrame({'a': [1, 2]})\nframe",
        "print('out'); print('error', file=sys.stderr); warnings.warn('careful')",
        "class Own: pass\nimport __main__, pickle\nisinstance(pickle.loads(pickle.dumps(Own())), __main__.Own), __name__, sys.path[-3:]",
        "%pwd",
        "import os; {name: os.environ.get(name) for name in ('TERM', 'MPLBACKEND', 'PAGER')}",
        "!echo from a shell",
        "import subprocess; subprocess.run([sys.executable, '-c', 'print(1)'], capture_output=True, text=True).stdout",
        "from concurrent.futures import ProcessPoolExecutor\nimport math\nwith ProcessPoolExecutor(1) as pool: print(*pool.map(math.sqrt, [4, 9]))",
        "import asyncio; await asyncio.sleep(0, 'awaited')",
        "get_ipython().kernel.session.key == b'', input.__name__, sorted(vars(sys.modules['__main__']))[:20]",
        "1 / 0",
    ]
    outputs = []
    for name in ("python3", warm):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        NotebookClient(notebook, kernel_name=name, allow_errors=True, timeout=SECONDS).execute()
        outputs.append([[plain(output) for output in cell.outputs] for cell in notebook.cells])
    assert outputs[0] == outputs[1]


def plain(output):
    """Return an output without what differs in each kernel: the number in the file name of a cell."""
    return re.sub(r"ipykernel_\d+", "ipykernel_N", json.dumps(output, sort_keys=True))


@in_program
def test_a_kernel_is_interrupted_restarted_and_shut_down():
    asyncio.run(interrupt_restart_and_shut_down(specify("warm")))


async def interrupt_restart_and_shut_down(name):
    managers = [AsyncKernelManager(kernel_name=name) for _ in range(3)]
    await asyncio.gather(*(manager.start_kernel() for manager in managers))
    parents = set()
    for manager in managers:
        client = manager.client()
        client.start_channels()
        await client.wait_for_ready(timeout=SECONDS)
        pid = await async_value(client, "os.getpid()", "import os")
        parents.add(await async_value(client, "os.getppid()"))
        client.execute("import time\nprint('begun')\ntime.sleep(1000)", stop_on_error=False)
        while (await client.get_iopub_msg(timeout=SECONDS))["content"].get("text") != "begun\n":
            pass
        await manager.interrupt_kernel()
        assert (await client.get_shell_msg(timeout=SECONDS))["content"]["ename"] == "KeyboardInterrupt"
        assert await async_value(client, "os.getpid()") == pid
        await manager.restart_kernel(now=manager is managers[0])
        await client.wait_for_ready(timeout=SECONDS)
        new = await async_value(client, "os.getpid()", "import os")
        parents.add(await async_value(client, "os.getppid()"))
        assert new != pid
        wait_for_end(pid)
        client.stop_channels()
        await manager.shutdown_kernel(now=manager is managers[1])
        assert not await manager.is_alive()
        wait_for_end(new)
    assert len(parents) == 1


async def async_value(client, expression, code=""):
    reply = await client.execute(code, user_expressions={"value": expression}, reply=True, timeout=SECONDS)
    return literal_eval(reply["content"]["user_expressions"]["value"]["data"]["text/plain"])


@in_program
def test_kernels_outlive_their_template_and_the_next_one_gets_a_new_template():
    warm = specify("warm")
    with kernel(warm) as (manager, client):
        template = parent(client)
        os.kill(template, signal.SIGKILL)
        wait_for_end(template)
        with kernel(warm) as (_, other):
            assert parent(other) not in (template, os.getpid())
        assert value(client, "6 * 7") == 42
        assert manager.is_alive()
        manager.restart_kernel(now=True)
        client.wait_for_ready(timeout=SECONDS)
        template = parent(client)
        pid = manager.provisioner.process.pid
        os.kill(template, signal.SIGKILL)
        wait_for_end(template)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not manager.is_alive())  # though nobody knows how it ended


MANAGER = """
import subprocess, sys, test_jupyter
from jupyter_client import KernelManager
for directory, independent in ((".", False), ("hiding", False), (".", True)):
    manager = KernelManager(kernel_name="warm")
    manager.start_kernel(cwd=directory, independent=independent, stdout=subprocess.DEVNULL)
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    is_warm = test_jupyter.value(client, "'_anyfork_child' in sys.modules", "import sys")
    print(manager.provisioner.process.pid, test_jupyter.parent(client), int(is_warm), flush=True)
    sys.stdin.readline()
sys.stdin.readline()
"""


@in_program
def test_kernels_end_when_their_manager_is_killed_even_if_their_template_was_killed_before():
    specify("warm", preload=["sched"])
    Path("hiding").mkdir()
    Path("hiding/sched.py").touch()  # a new interpreter runs the kernel there
    with subprocess.Popen(
        [sys.executable, "-c", MANAGER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as manager:
        first, template, is_warm = map(int, manager.stdout.readline().split())
        os.kill(template, signal.SIGKILL)
        wait_for_end(template)
        manager.stdin.write("\n")
        manager.stdin.flush()
        second, template, second_is_warm = map(int, manager.stdout.readline().split())
        manager.stdin.write("\n")
        manager.stdin.flush()
        independent, *_ = map(int, manager.stdout.readline().split())
        assert (is_warm, second_is_warm) == (1, 0)
        assert all(os.path.exists(f"/proc/{pid}") for pid in (first, second))
        manager.kill()
    for pid in (first, second, template):
        wait_for_end(pid)
    assert os.path.exists(f"/proc/{independent}")
    os.kill(independent, signal.SIGKILL)
    wait_for_end(independent)


class Records(logging.Handler):
    def __init__(self):
        super().__init__()
        self.told = queue.SimpleQueue()

    def emit(self, record):
        self.told.put(record.getMessage())


@in_program
def test_what_no_template_can_run_starts_as_with_jupyter_and_the_log_says_why_once():
    Path("python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    Path("python").chmod(0o755)
    specify("other", python=os.path.abspath("python"))
    specify("broken", preload=["no_such_module"])
    records = Records()
    for name, why, times in (("other", "is not that of this server", 1), ("broken", "no_such_module", 2)):
        for _ in range(times):
            manager = KernelManager(kernel_name=name)
            manager.log.addHandler(records)
            manager.start_kernel()
            client = manager.client()
            client.start_channels()
            client.wait_for_ready(timeout=SECONDS)
            assert parent(client) == os.getpid()
            client.stop_channels()
            manager.shutdown_kernel(now=True)
            manager.log.removeHandler(records)
        assert why in records.told.get_nowait()
        assert records.told.empty()


@in_program
def test_a_template_is_made_for_the_environment_and_again_when_its_files_have_changed():
    Path("modules").mkdir()
    module = Path("modules/changing.py")
    module.write_text("import os\nVALUE = os.environ['OWN'] + ' old'\n")
    places = filter(None, [os.path.abspath("modules"), os.environ.get("PYTHONPATH")])
    variables = {"PYTHONPATH": os.pathsep.join(places), "OWN": "mine", "OMP_NUM_THREADS": "1"}
    name = specify("own", preload=["changing"], env=variables)
    look = "changing.VALUE, os.environ['OMP_NUM_THREADS'], changing.__name__ in before"
    for expected in ("mine old", "mine newer"):
        with kernel(name) as (_, client):
            before = "import os, sys\nbefore = set(sys.modules)\nimport changing"
            assert value(client, look, before) == (expected, "1", True)
            assert parent(client) != os.getpid()
        module.write_text(module.read_text().replace("old", "newer"))
    assert owned(os.getpid())

"""Hooks around a fork run as after os.fork, with the compiled part and with its twin in Python."""

from __future__ import annotations

import sys

import faulty
import pytest

import anyfork
from anyfork import Template

pytestmark = pytest.mark.usefixtures("part")
REGISTER = """
import os
events = globals().setdefault("events", [])
def register(name):
    os.register_at_fork(
        before=lambda: events.append(f"before {name}"),
        after_in_parent=lambda: events.append(f"in parent {name}"),
        after_in_child=lambda: events.append(f"in child {name}"),
    )
register(args[0])
"""
LIBRARY = """
import ctypes
events = []
def handler(name):
    return ctypes.CFUNCTYPE(None)(lambda: events.append(name))
handlers = [handler(f"{name} library") for name in ("before", "in parent", "in child")]
assert ctypes.CDLL(None).__register_atfork(*handlers, None) == 0
"""
BY_ITSELF = """
import os
events = []
def register_another():
    if not events:
        os.register_at_fork(before=lambda: events.append("before another"))
    events.append("before first")
os.register_at_fork(before=register_another)
"""
IN_PROCESS = """
import os
def in_process(channel):
    events.clear()
    register("own")
    pid = os.fork()
    if pid == 0:
        channel.sendall(repr(events).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    channel.sendall(b" | " + repr(events).encode())
"""
DENY = """
import sys
denied, left = False, None
def deny(event, _):
    global left
    if event == "os.fork":
        if denied or left == 0:
            raise ERROR
        left = left and left - 1
sys.addaudithook(deny)
"""
CALLERS = """
import sys
def is_compiled():
    frame, names = sys._getframe(), set()
    while frame is not None:
        names.add(frame.f_code.co_filename.rpartition("/")[2])
        frame = frame.f_back
    return "compiled.py" in names
"""
NATIVE_ID = """
import os, threading
def is_renewed():
    return threading.main_thread().native_id == threading.get_native_id()
def after_os_fork():
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, str(is_renewed()).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    return os.read(read, 5).decode()
"""
THREAD_STATE = """(
    state := ctypes.pythonapi.PyThreadState_Get, setattr(state, "restype", ctypes.c_void_p),
    words := [*(ctypes.c_ulong * 40).from_address(state())], (os.getpid() in words, os.getppid() in words))[-1]"""


@pytest.fixture
def template():
    """Yield a fresh interpreter, in which no other test has registered anything."""
    with Template.new_exec() as template:
        yield template


def answer(template, expression):
    """Return the value of an expression in a process of the template."""
    with template.fork().run(faulty.send_value, expression) as process:
        return process.channel.makefile().read()


def events(template):
    """Return the events in a process of the template, in words without quotes."""
    return answer(template, "', '.join(__main__.events)")


def test_a_template_says_which_part_serves_it(template, part, caplog):
    caplog.set_level("DEBUG", "anyfork")
    template.ready()
    assert repr(template).endswith(f" compiled={part == 'compiled'}>")
    assert caplog.messages == [
        f"template {template.pid} is ready; {'the compiled part' if part == 'compiled' else 'Python code'} serves it"
    ]


@pytest.mark.parametrize("code", ["", "import random, threading, uuid", REGISTER])
def test_functions_are_called_by_the_part_that_serves_their_template(template, part, code):
    """Ask after the first fork, which Python code always serves, as it serves every fork with hooks in the template."""
    template.execute(code, "a").execute(CALLERS)
    with template.fork() as nested:
        for forked in (template, nested):
            answer(forked, "None")
            assert answer(forked, "__main__.is_compiled()") == str(part == "compiled" and code != REGISTER)


def test_hooks_of_the_first_fork_run_before_it_in_the_parent_and_in_the_child(template):
    template.execute(REGISTER, "a").execute(REGISTER, "b")
    first = "before b, before a"
    assert events(template) == f"{first}, in child a, in child b"
    assert events(template) == f"{first}, in parent a, in parent b, {first}, in child a, in child b"


def test_hooks_that_are_registered_after_the_first_fork_run_at_the_next(template):
    template.execute("events = []")
    assert events(template) == ""
    template.execute(REGISTER, "late")
    assert events(template) == "before late, in child late"


def test_hooks_run_in_the_processes_of_a_nested_template(template):
    template.execute(REGISTER, "a")
    with template.fork() as nested:
        assert events(nested) == "before a, in child a, before a, in child a"


def test_a_hook_that_a_hook_registers_runs_at_the_next_fork(template):
    template.execute(BY_ITSELF)
    assert events(template) == "before first"
    assert events(template) == "before first, before another, before first"


def test_hooks_of_libraries_run(template):
    template.execute(LIBRARY)
    assert events(template) == "before library, in child library"
    assert events(template) == "before library, in parent library, before library, in child library"


def test_hooks_that_a_process_registers_run_at_its_own_forks(template):
    template.execute(REGISTER, "a").execute(IN_PROCESS)
    with template.fork().run("__main__:in_process") as process:
        sent = process.channel.makefile().read()
    assert sent == (
        "['before own', 'before a', 'in child a', 'in child own'] | "
        "['before own', 'before a', 'in parent a', 'in parent own']"
    )


def test_an_error_of_a_hook_in_the_new_process_fails_the_start(template):
    template.execute("import os\nos.register_at_fork(after_in_child=lambda: 1 / 0)")
    with pytest.raises(anyfork.HookError, match="ZeroDivisionError"):
        template.fork().run(faulty.echo)


def test_a_process_has_the_locks_that_a_fork_of_a_thread_holding_them_would_free(template):
    # The hooks of logging are left out if the locks are free, and run otherwise.
    template.execute("import logging\nhandler = logging.StreamHandler()\nlogging.getLogger().addHandler(handler)")
    free = "(h := __main__.handler.lock, h.acquire(blocking=False), h._is_owned(), h.release())[1:3]"
    assert answer(template, free) == "(True, True)"
    template.execute("handler.acquire()")
    assert answer(template, "__main__.handler.lock._is_owned()") == "False"


def test_an_event_loop_of_a_template_is_that_of_its_processes_where_python_does_so(template):
    # A hook of asyncio drops it since Python 3.12.
    template.execute("import asyncio\nloop = asyncio.new_event_loop()\nasyncio.set_event_loop(loop)")
    inherited = answer(template, "asyncio.events._event_loop_policy._local._loop is __main__.loop")
    assert inherited == str(sys.version_info < (3, 12))


def test_a_process_has_one_thread_which_is_the_main_thread(template):
    template.execute("import threading\nthread = threading.Thread(target=str)\nthread.start()\nthread.join()")
    expression = (
        "threading.current_thread() is threading.main_thread(), __main__.thread.is_alive(), len(threading.enumerate())"
    )
    assert answer(template, expression) == "(True, False, 1)"


def test_the_main_thread_of_a_process_has_the_native_id_that_it_has_after_a_fork(template):
    template.execute(NATIVE_ID)
    expected = answer(template, "__main__.after_os_fork()")
    assert answer(template, "__main__.is_renewed()") == expected


def test_the_thread_state_of_a_process_has_its_native_id(template):
    assert answer(template.preload("ctypes"), THREAD_STATE) == "(True, False)"


def test_an_audit_hook_sees_the_forks(template):
    template.execute("import sys\nseen = []\nsys.addaudithook(lambda name, _: name == 'os.fork' and seen.append(name))")
    assert answer(template, "__main__.seen") == "['os.fork']"


@pytest.mark.parametrize("error", ["PermissionError(1, 'denied')", "RuntimeError('denied')"])
def test_an_audit_hook_that_denies_forks_fails_them_and_not_the_template(template, error):
    template.execute(DENY.replace("ERROR", error))
    assert answer(template, "__main__.denied") == "False"
    assert answer(template, "__main__.denied") == "False"
    template.execute("denied = True")
    for _ in range(2):
        with pytest.raises(anyfork.ForkError, match="denied"):
            template.fork().run(faulty.echo)
    template.execute("denied = False")
    assert answer(template, "__main__.denied") == "False"


def test_an_audit_hook_that_begins_to_deny_forks_after_the_first_fails_them(template):
    template.execute(DENY.replace("ERROR", "RuntimeError('denied')")).execute("left = 2")
    assert answer(template, "__main__.left") == "1"
    assert answer(template, "__main__.left") == "0"
    with pytest.raises(anyfork.ForkError, match="denied"):
        template.fork().run(faulty.echo)
    assert template.ready() is template


def test_sigterm_during_the_hooks_of_a_new_process_ends_it(template):
    template.execute(
        "import os, signal\nos.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))"
    )
    for _ in range(2):
        with pytest.raises(anyfork.DiedBeforeReadyError, match="SIGTERM"):
            template.fork().run(faulty.echo)

"""What code in a template must not do, and what it may do although it is odd: threads, locks, output, exits, forks."""

import faulty
import pytest
from deadlines import DEADLINE
from programs import run_program

import anyfork
from anyfork import Template

THREAD = "import threading; threading.Thread(target=threading.Event().wait, name={!r}, daemon=True).start()"


@pytest.fixture
def module(tmp_path):
    """Return a function that makes a template that has preloaded a module of this text."""

    def preload(text):
        (tmp_path / "preloaded.py").write_text(text)
        return Template().prepare(faulty.insert_path, str(tmp_path)).preload("preloaded")

    return preload


def test_a_thread_that_a_preload_starts_is_an_error_that_names_it(module):
    with module(THREAD.format("the lazy one")) as template, pytest.raises(anyfork.UnsafeTemplateError) as caught:
        template.ready(DEADLINE)
    assert caught.value.threads == "the lazy one"


def test_all_threads_that_a_preload_starts_are_named(module):
    code = THREAD.format("one") + "\n" + THREAD.format("two")
    with module(code) as template, pytest.raises(anyfork.UnsafeTemplateError) as caught:
        template.ready(DEADLINE)
    assert sorted(caught.value.threads.split(", ")) == ["one", "two"]


def test_a_template_with_a_thread_is_not_forked(module):
    # A copy would have its locks, and not the thread.
    with module(THREAD.format("x")) as template, pytest.raises(anyfork.UnsafeTemplateError):
        template.fork().run(faulty.echo)


def test_a_template_with_a_thread_runs_nothing_itself(module):
    # The failure is that of the template.
    with module(THREAD.format("x")) as template, pytest.raises(anyfork.UnsafeTemplateError):
        template.run(faulty.echo)


def test_a_thread_that_has_ended_is_no_error(module):
    # Only what still runs matters.
    with module("import threading; t = threading.Thread(target=len, args=('',)); t.start(); t.join()") as template:
        assert template.ready(DEADLINE) is template


def test_a_low_level_thread_is_an_error_too(module):
    # Threading does not know it.
    code = "import _thread; lock = _thread.allocate_lock(); lock.acquire(); _thread.start_new_thread(lock.acquire, ())"
    with module(code) as template, pytest.raises(anyfork.UnsafeTemplateError):
        template.fork().run(faulty.echo)


def test_native_threads_that_stop_for_a_fork_are_no_error():
    # OpenBLAS, which numpy loads, stops its own.
    with Template().preload("numpy") as template:
        with template.fork().run(faulty.send_value, "numpy.ones(3) @ numpy.ones(3)") as process:
            assert process.channel.recv(100) == b"3.0"


NATIVE = """
import ctypes
function = ctypes.CDLL(None).pthread_create
thread = ctypes.c_ulong()
body = ctypes.CDLL(None).pause
function(ctypes.byref(thread), None, ctypes.cast(body, ctypes.c_void_p), None)
"""


@pytest.mark.slow
def test_the_thread_of_jemalloc_is_no_error():
    # Pyarrow brings it, and so does pandas. jemalloc takes its locks around a fork.
    with Template().preload("pyarrow") as template:
        for _ in range(10):
            with template.fork().run(faulty.send_value, "sum(pyarrow.array(range(1000)).to_pylist())") as process:
                assert process.channel.recv(100) == b"499500"


def test_a_native_thread_that_does_not_stop_for_a_fork_is_an_error():
    # Python does not know it, /proc does.
    with Template().execute(NATIVE) as template, pytest.raises(anyfork.UnsafeTemplateError):
        template.fork().run(faulty.echo)


@pytest.mark.parametrize("lock", ["logging._lock", "threading.Lock()", "importlib._bootstrap._ModuleLock('x')"])
def test_locks_that_threads_of_the_owner_hold_do_not_matter(lock):
    # The owner is never forked.
    source = f"""
import importlib, logging
lock = {lock}
held, done = threading.Event(), threading.Event()

def hold():
    lock.acquire()
    held.set()
    done.wait()
    lock.release()

thread = threading.Thread(target=hold)
thread.start()
held.wait()
with Template().run(faulty.send_value, "logging.getLogger('x').info('y'), json.dumps(1)") as process:
    heard = process.channel.recv(100).decode()
done.set()
thread.join()
say(heard)
"""
    assert run_program(source) == "(None, '1')"


def test_a_module_that_is_missing_is_an_error_with_its_name():
    with Template().preload("no_such_module") as template, pytest.raises(anyfork.PreloadError) as caught:
        template.ready(DEADLINE)
    assert caught.value.module == "no_such_module"


def test_a_module_that_raises_is_an_error_with_the_remote_traceback(module):
    with module("def broken():\n    raise ValueError('on import')\nbroken()") as template:
        with pytest.raises(anyfork.PreloadError, match="on import") as caught:
            template.ready(DEADLINE)
    assert "in broken" in caught.value.remote_traceback


def test_a_step_may_write_ten_megabytes_to_stderr(tmp_path):
    # Nobody has to drain it.
    with open(tmp_path / "stderr", "wb") as file, Template().fork(stderr=file) as template:
        template.execute("import sys\nfor _ in range(10): sys.stderr.write('x' * (1 << 20))").ready(DEADLINE)
    assert (tmp_path / "stderr").stat().st_size == 10 << 20


def test_an_interpreter_that_floods_stderr_before_it_is_ready_is_not_blocked():
    # A site module that writes ten megabytes, before the template takes over.
    flood = "import sys; sys.stderr.write('x' * (10 << 20))"
    source = f"""
import tempfile
with tempfile.TemporaryDirectory() as path:
    with open(path + "/sitecustomize.py", "w") as file:
        file.write({flood!r})
    os.environ["PYTHONPATH"] = path + os.pathsep + os.environ["PYTHONPATH"]
    say(Template.new_exec().ready(20).pid is not None)
"""
    assert run_program(source) is True


def test_an_interpreter_that_floods_stderr_and_dies_is_an_error_with_the_tail():
    flood = "import os, sys; sys.stderr.write('x' * (10 << 20) + 'the end'); sys.stderr.flush(); os._exit(5)"
    source = f"""
import tempfile
Template().ready()
with tempfile.TemporaryDirectory() as path:
    with open(path + "/sitecustomize.py", "w") as file:
        file.write({flood!r})
    os.environ["PYTHONPATH"] = path + os.pathsep + os.environ["PYTHONPATH"]
    try:
        Template.new_exec().ready(20)
    except anyfork.LaunchError as error:
        say([error.stderr.endswith("the end"), len(error.stderr) < 10000, "exit code 5" in str(error)])
"""
    assert run_program(source) == [True, True, True]


def test_a_step_that_calls_sys_exit_ends_the_template_with_the_code():
    with Template().execute("import sys; sys.exit(7)") as template:
        with pytest.raises(anyfork.TemplateDiedError) as caught:
            template.ready(DEADLINE)
    assert caught.value.status.code == 7


def test_the_processes_of_a_template_that_calls_sys_exit_are_still_reaped_and_reported():
    # It stays until the last of them has ended.
    with Template() as template:
        process = template.fork().run(faulty.end_when_told, 4)
        process.channel.recv(1)
        template.execute("import sys; sys.exit(7)")
        process.channel.sendall(b"x")
        assert process.wait(DEADLINE).code == 4
        process.close()


def test_a_preload_that_calls_sys_exit_ends_the_template_with_the_code(module):
    with module("import sys; sys.exit(7)") as template, pytest.raises(anyfork.TemplateDiedError) as caught:
        template.ready(DEADLINE)
    assert caught.value.status.code == 7


def test_a_step_that_raises_keyboard_interrupt_is_an_error():
    # It is the user's exception, not a signal.
    with Template().execute("raise KeyboardInterrupt('by hand')") as template, pytest.raises(anyfork.TemplateError):
        template.ready(DEADLINE)


def test_a_step_may_fork_and_reap_a_process_of_its_own():
    code = """
import os
pid = os.fork()
if pid == 0:
    os._exit(3)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
"""
    with Template().execute(code) as template, template.fork().run(faulty.end_with, 5) as process:
        pass
    assert process.returncode == 5


OWN_FORKS = {"returns": "", "calls sys.exit": "import sys; sys.exit(7)", "raises": "raise ValueError('in the copy')"}


@pytest.mark.parametrize("end", OWN_FORKS)
def test_a_copy_that_a_step_makes_by_itself_never_becomes_a_second_template(end):
    # It would read from the same socket; it ends with the step.
    code = f"import os\npid = os.fork()\nif pid == 0:\n    {OWN_FORKS[end] or 'pass'}\nelse:\n    os.waitpid(pid, 0)"
    with Template() as template:
        template.fork().ready().close()  # so that there is something to share by mistake: what watches its processes
        template.execute(code)
        parent = template.ready(DEADLINE).pid
        for _ in range(5):
            with template.fork().run(faulty.send_value, "os.getppid()") as process:
                assert int(process.channel.recv(100)) == parent


def test_a_step_may_use_subprocesses():
    # Their end is theirs to wait for.
    with Template().execute("import subprocess; subprocess.run(['true'], check=True)") as template:
        with template.fork().run(faulty.end_with, 5) as process:
            pass
    assert process.returncode == 5


def test_a_step_that_leaves_a_subprocess_behind_does_not_confuse_the_statuses():
    # The template reaps what it has forked, by pid.
    with Template().execute("import subprocess; p = subprocess.Popen(['sleep', '0.01'])") as template:
        for code in range(10):
            with template.fork().run(faulty.end_with, code) as process:
                pass
            assert process.returncode == code
        template.execute("assert p.wait() == 0").ready(DEADLINE)


def test_code_that_replaces_the_standard_streams_does_not_break_the_template():
    with Template().execute("import sys; sys.stdout = sys.stderr = sys.stdin = None") as template:
        with template.fork().run(faulty.end_with, 5) as process:
            pass
    assert process.returncode == 5


def test_code_that_closes_the_standard_streams_does_not_break_the_template():
    with Template().execute("import os; [os.close(fd) for fd in (0, 1, 2)]") as template:
        with template.fork().run(faulty.end_with, 5) as process:
            pass
    assert process.returncode == 5


def test_code_that_turns_the_collector_off_is_respected_in_the_process():
    with Template().execute("import gc; gc.disable()") as template:
        with template.fork().run(faulty.send_value, "gc.isenabled()") as process:
            assert process.channel.recv(100) == b"False"


def test_the_collector_is_on_in_a_process_of_an_untouched_template():
    with Template().run(faulty.send_value, "gc.isenabled()") as process:
        assert process.channel.recv(100) == b"True"


def test_threads_of_a_running_process_are_joined_before_its_end():
    # A running process is free to have threads.
    with Template().run(faulty.answer_from_thread) as process:
        assert process.channel.recv(100) == b"from a thread"
    assert process.returncode == 0

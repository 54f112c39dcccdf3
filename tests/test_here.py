"""The running program as a template: what is there, what is not, and that nothing of the program runs twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import child_side
import pytest
from conftest import owned
from deadlines import DEADLINE
from owner_side import output_of, run_python

HERE = os.path.dirname(child_side.__file__)
HEAD = """
    import os, signal, sys
    sys.path.insert(0, sys.argv[1])
    import anyfork
    from asking import ask, ended, read_all, result_of
    from child_side import until_closed

    def report(channel, function, *args):
        import pickle
        channel.sendall(pickle.dumps(function(*args)))

"""


@pytest.fixture
def program(tmp_path):
    """Run a program, which is a file, and return what it prints; it must say nothing on its standard error."""

    def run(body, *flags, stderr=False):
        file = tmp_path / "program.py"
        file.write_text(textwrap.dedent(HEAD) + textwrap.dedent(body))
        env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        start = run_python if stderr else output_of
        said = start(*flags, str(file), HERE, cwd=tmp_path, env=env)
        return said if isinstance(said, str) else said.stdout

    return run


# --- What is there ----------------------------------------------------------------------------------------------


def test_functions_and_data_of_the_program_are_there_and_what_comes_later_is_not(program):
    said = program("""
        data = [1, 2, 3]
        def look(): return len(data), "later" in globals()
        with anyfork.fork_here() as template:
            later = True
            data.append(4)
            print(result_of(template.run(report, look)))
    """)
    assert said == "(3, False)\n"


def test_modules_are_there_without_any_import(program):
    said = program("""
        import decimal
        decimal.mark = "of the program"
        with anyfork.fork_here() as template:
            print(ask(template, "__import__('decimal').mark"))
    """)
    assert said == "of the program\n"


def test_data_that_no_pickle_could_carry_is_shared(program):
    said = program("""
        unpicklable = (n for n in range(3))
        def count(): return sum(unpicklable)
        template = anyfork.fork_here()
        print(result_of(template.fork().run(report, count)), anyfork.call(count, template=template), count())
    """)
    assert said == "3 3 3\n"


def test_classes_of_the_program_are_the_same_on_both_sides(program):
    said = program("""
        class Point:
            def __init__(self, x): self.x = x
        class Trouble(Exception): pass
        def is_ours(point): return type(point) is Point
        def move(point): return Point(point.x + 1)
        def fail(): raise Trouble("here")
        with anyfork.Worker(anyfork.fork_here()) as worker:
            print(worker.call(is_ours, Point(1)), type(worker.call(move, Point(1))) is Point)
            try: worker.call(fail)
            except Trouble as trouble: print(trouble)
    """)
    assert said == "True True\nhere\n"


def test_what_is_defined_later_goes_by_value(program):
    said = program("""
        def old(): return "old"
        template = anyfork.fork_here()
        def new(): return old() + " and new"
        class Later: text = "later"
        def show(later): return later.text
        print(anyfork.call(new, template=template), anyfork.call(show, Later(), template=template))
    """)
    assert said == "old and new later\n"


def test_a_function_that_was_redefined_goes_as_it_is_now(program):
    said = program("""
        def answer(): return "first"
        template = anyfork.fork_here()
        def answer(): return "second"
        print(anyfork.call(answer, template=template))
    """)
    assert said == "second\n"


def test_it_is_prepared_forked_and_run_as_any_other(program):
    said = program("""
        template = anyfork.fork_here().prepare(os.umask, 0o77).send("queued")
        print(template.ready().pid == template.pid, ask(template.fork(umask=0o11), "v[0], os.umask(0)"))
        with template.fork().start(until_closed) as process: print(process.ready().pid > 0)
        print(ask(template, "v[0]"))
    """)
    assert said == "True ('queued', 9)\nTrue\nqueued\n"


def test_a_template_of_a_template_of_the_program(program):
    said = program("""
        first = anyfork.fork_here()
        value = 1
        second = anyfork.fork_here()
        print(ask(second, "'value' in vars(sys.modules['__main__'])"))
        print(ask(first, "'value' in vars(sys.modules['__main__'])"))
    """)
    assert said == "True\nFalse\n"


# --- What does not run twice ------------------------------------------------------------------------------------


def test_finally_blocks_exit_handlers_and_destructors_run_once(program):
    said = program("""
        import atexit
        class Loud:
            def __del__(self): print("destructor")
        class Cycle(Loud):
            def __init__(self): self.me = self
        def work():
            loud = Loud()
            try: return anyfork.fork_here()
            finally: print("finally")
        atexit.register(print, "exit handler")
        import gc; gc.disable(); Cycle()
        with work() as template:
            print(ask(template, "gc.collect()") is not None)
        import gc; gc.collect()
        sys.stdout.flush()
    """)
    assert sorted(said.split("\n")) == ["", "True", "destructor", "destructor", "exit handler", "finally"]


def test_buffered_output_is_written_once(program, tmp_path):
    said = program("""
        print("stdout", end=";")
        text = open("text", "w"); text.write("text;")
        binary = open("binary", "wb"); binary.write(b"binary;")
        with anyfork.fork_here() as template:
            print(ask(template, "sys.stdout.flush()"), end=";")
    """)
    assert said == "stdout;None;"
    assert ((tmp_path / "text").read_text(), (tmp_path / "binary").read_text()) == ("text;", "binary;")


def test_a_weak_finalizer_of_the_program_does_not_run_in_processes(program):
    said = program("""
        import weakref
        class Thing: pass
        thing = Thing()
        weakref.finalize(thing, print, "finalized")
        with anyfork.fork_here() as template: print(ask(template, "1"))
    """)
    assert said == "1\nfinalized\n"


def test_signal_handlers_of_the_program_do_not_run_in_the_template(program):
    said = program("""
        signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
        template = anyfork.fork_here().ready()
        with template.fork().run(until_closed) as process:
            os.kill(template.pid, signal.SIGUSR1)  # by default it dies of that
        template.close()
        print(signal.getsignal(signal.SIGUSR1) is not signal.SIG_DFL)
    """)
    assert said == "True\n"


def test_a_program_under_warnings_as_errors_and_without_an_import_guard_runs_once(program):
    assert program("print('once', anyfork.call(os.getppid, template=anyfork.fork_here()) > 0)", "-W", "error") == (
        "once True\n"
    )


# --- Descriptors ------------------------------------------------------------------------------------------------

SOCKETS = """
    import socket, warnings
    first, second = socket.socketpair()
    def is_open(fd):
        try: return os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
        except OSError: return False
    def look(template, *socks):
        return anyfork.call(lambda fds, is_open=is_open: [is_open(fd) for fd in fds], [s.fileno() for s in socks], template=template)
"""


@pytest.mark.untraced
def test_open_sockets_are_kept_and_warned_of_by_address(program):
    said = program(
        SOCKETS
        + """
    listener = socket.create_server(("127.0.0.1", 0))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        template = anyfork.fork_here()
    (warning,) = caught
    print(warning.category is anyfork.UnsafeForkWarning, os.path.basename(warning.filename))
    print("{}:{}".format(*listener.getsockname()) in str(warning.message), f" {first.fileno()} (unix" in str(warning.message))
    print(look(template, first, listener))
    first.close(); second.close(); listener.close()  # nothing is told of them at the end
    """
    )
    assert said == "True program.py\nTrue True\n[True, True]\n"


def test_descriptors_are_closed_as_asked_and_nothing_is_warned_of(program):
    said = program(
        SOCKETS
        + """
    print(look(anyfork.fork_here(close_fds=[first], keep_fds=[second.fileno()]), first, second))
    print(look(anyfork.fork_here(close_fds=True), first, second))
    print(look(anyfork.fork_here(close_fds=True, keep_fds=[second]), first, second))
    print(first.send(b"still ours"))
    first.close(); second.close()
    """,
        "-W",
        "error",
    )
    assert said == "[False, True]\n[False, False]\n[False, True]\n10\n"


def test_a_peer_sees_the_end_of_a_socket_that_was_closed_in_the_template(program):
    said = program(
        SOCKETS
        + """
    template = anyfork.fork_here(close_fds=[first, second]).ready()
    first.close()
    print(second.recv(1))
    """
    )
    assert said == "b''\n"


def test_workers_of_the_program_end_though_a_later_template_is_a_copy_of_it(program):
    said = program("""
        worker = anyfork.Worker(anyfork.Template())
        process = anyfork.Template().run(until_closed)
        waits = anyfork.Template().run(until_closed)
        waits.channel
        worker.call(len, "")
        with anyfork.fork_here() as template:
            template.ready()
            worker.close()
            with process, waits: pass
            print(process.returncode, waits.returncode)
    """)
    assert said == "0 0\n"


MISTAKES = {
    "close_fds=[1]": "close_fds= has 1, a standard stream",
    "close_fds=[999]": "close_fds= has 999, and descriptor 999 is not open",
    "keep_fds=['x']": "keep_fds= has 'x', which has no descriptor",
    "close_fds=[first], keep_fds=[first.fileno()]": "is in close_fds= and in keep_fds=",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_descriptors_is_an_error_and_nothing_is_forked(program, mistake):
    said = program(
        SOCKETS
        + f"""
    try: anyfork.fork_here({mistake})
    except anyfork.ArgumentError as error: print(error)
    with open(f"/proc/self/task/{{os.getpid()}}/children") as file: print(repr(file.read()))
    """
    )
    assert MISTAKES[mistake] in said
    assert said.endswith("\n''\n")


# --- Refusals ---------------------------------------------------------------------------------------------------

CULPRITS = {
    "threads": (
        """
        import threading
        stop = threading.Event()
        thread = threading.Thread(target=stop.wait, name="the pump"); thread.start()
        attempt()
        stop.set(); thread.join()
        """,
        "threads run in it, and a copy would not have them: the pump",
    ),
    "threads without names": (
        """
        import _thread, time
        lock = _thread.allocate_lock(); lock.acquire()
        _thread.start_new_thread(lock.acquire, ())
        while not _thread._count(): time.sleep(0.001)  # it is counted once it runs
        attempt()
        lock.release()
        """,
        "a thread without a name",
    ),
    "another thread than the main one": (
        """
        import threading
        thread = threading.Thread(target=attempt); thread.start(); thread.join()
        """,
        "MainThread",
    ),
    "asyncio": (
        """
        import asyncio
        async def main(): attempt()
        asyncio.run(main())
        """,
        "an event loop is running, which the copy would share: asyncio",
    ),
    "uvloop": (
        """
        import uvloop
        async def main(): attempt()
        uvloop.run(main())
        """,
        "uvloop",
    ),
    "trio": (
        """
        import trio
        async def main(): attempt()
        trio.run(main)
        """,
        "trio",
    ),
    "the end of the interpreter": (
        """
        class Late:
            def __del__(self): attempt()
        late = Late()
        sys.modules["keeps it"] = late
        del late
        """,
        "the interpreter is ending",
    ),
}
ATTEMPT = """
    def attempt(fork_here=anyfork.fork_here, error=anyfork.UnsafeTemplateError, print=print):
        try: fork_here()
        except error as refused: print(refused)
"""


@pytest.mark.untraced
@pytest.mark.parametrize("culprit", CULPRITS)
def test_it_refuses_and_names_the_culprit(program, culprit):
    body, why = CULPRITS[culprit]
    said = program(ATTEMPT + textwrap.indent(textwrap.dedent(body), "    "))
    assert said.startswith("this program cannot become a template: ")
    assert why in said


SUBINTERPRETER = """
import sys
try: import _interpreters as interpreters
except ImportError: import _xxsubinterpreters as interpreters
interpreter = interpreters.create(*{legacy})
interpreters.run_string(interpreter, '''
import sys; sys.path[:] = {path!r}
import anyfork
try: anyfork.fork_here()
except anyfork.UnsafeTemplateError as refused: print(refused, flush=True)
''')
interpreters.destroy(interpreter)
"""


def test_it_refuses_in_a_subinterpreter():
    legacy = ("legacy",) if sys.version_info >= (3, 13) else ()
    options = () if sys.version_info >= (3, 13) else ("isolated=0",)
    program = SUBINTERPRETER.format(legacy=legacy, path=sys.path)
    if options:
        program = program.replace("create()", "create(isolated=False)").replace("create(*())", "create(isolated=False)")
    said = run_python("-c", program)
    assert "this is not the main thread of the main interpreter" in said.stdout, said.stderr


def test_native_threads_are_warned_of_by_name(program):
    said = program("""
        import ctypes, ctypes.util, warnings
        libc = ctypes.CDLL(None)
        thread = ctypes.c_ulong()
        libc.pthread_create(ctypes.byref(thread), None, ctypes.cast(libc.pause, ctypes.c_void_p), None)
        libc.pthread_setname_np(thread, b"decoder")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", anyfork.UnsafeForkWarning)
            with anyfork.fork_here() as template: template.ready()
        print(caught[-1].message)
        sys.stdout.flush()
        os._exit(0)
    """)
    assert said == (
        "the template is a copy of this program, and native threads run in it, and a copy does not have them: decoder\n"
    )


def test_native_threads_that_the_program_does_not_mind_do_not_break_the_fork(program):
    said = program("""
        import ctypes, warnings
        libc = ctypes.CDLL(None)
        thread = ctypes.c_ulong()
        libc.pthread_create(ctypes.byref(thread), None, ctypes.cast(libc.pause, ctypes.c_void_p), None)
        warnings.simplefilter("error")  # CPython's own, too
        warnings.simplefilter("ignore", anyfork.UnsafeForkWarning)
        before = list(warnings.filters)
        with anyfork.fork_here() as template: print(template.ready().pid > 0, warnings.filters == before)
        sys.stdout.flush()
        os._exit(0)
    """)
    assert said == "True True\n"


def test_numpy_is_no_reason_to_warn(program):
    assert program("import numpy; print(ask(anyfork.fork_here(), '2'))", "-W", "error") == "2\n"


def test_a_refused_fork_is_an_error_with_its_reason_and_leaves_nothing(program):
    said = program("""
        import resource, errno
        import anyfork._programs.program_copy.fork_here, anyfork._system.lifeline
        anyfork._system.lifeline.open_lifeline()
        before = len(os.listdir("/proc/self/fd"))
        os.setgid(65534); os.setuid(65534)
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        try: anyfork.fork_here()
        except anyfork.ForkError as error: print(error.errno == errno.EAGAIN, len(os.listdir("/proc/self/fd")) == before)
    """)
    assert said == "True True\n"


# --- Its end ----------------------------------------------------------------------------------------------------


def test_it_ends_when_its_handle_is_closed_and_is_reaped_at_the_next_use(program):
    said = program("""
        template = anyfork.fork_here().ready()
        import select
        pid = template.pid
        end = os.pidfd_open(pid)
        template.close()
        select.select([end], [], [])
        anyfork.Template().ready()
        try: os.kill(pid, 0)
        except ProcessLookupError: print("gone")
    """)
    assert said == "gone\n"


def test_its_processes_outlive_its_handle_and_tell_how_they_end(program):
    said = program("""
        template = anyfork.fork_here()
        process = template.fork().run(until_closed)
        template.close()
        process.terminate()
        print(process.wait())
    """)
    assert said == "ended by signal 15 (SIGTERM)\n"


def test_one_that_is_killed_is_an_error_of_its_forks(program):
    said = program("""
        template = anyfork.fork_here().ready()
        os.kill(template.pid, signal.SIGKILL)
        os.waitid(os.P_PID, template.pid, os.WEXITED | os.WNOWAIT)
        try: template.fork().run(until_closed)
        except anyfork.TemplateDiedError as error: print("told")
        print(ask(anyfork.Template(), "3"))
    """)
    assert said == "told\n3\n"


@pytest.mark.parametrize("make", ["anyfork.fork_here()", "early()"])
def test_nothing_stays_when_the_program_is_killed(tmp_path, make):
    body = f"""
    def early():
        import anyfork.early
        return anyfork.Template()
    template = {make}
    processes = [template.fork().run(until_closed) for _ in range(3)]
    print(os.getpid(), flush=True)
    signal.pause()
    """
    file = tmp_path / "program.py"
    file.write_text(textwrap.dedent(HEAD) + textwrap.dedent(body))
    with subprocess.Popen([sys.executable, str(file), HERE], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        watched = [os.pidfd_open(other) for other in owned(pid)]
        assert len(watched) == 4 if "here" in make else 5
        owner.send_signal(signal.SIGKILL)
    import select

    for fd in watched:
        assert select.select([fd], [], [], DEADLINE)[0]
        os.close(fd)


def test_proxies_and_files_that_were_taken_apart_are_no_trouble(program):
    said = program("""
        import io, weakref
        class Liar:
            @property
            def __class__(self): raise RuntimeError("I am nobody")
        liar = Liar()
        dead = weakref.proxy(type("Gone", (), {})())
        text = io.TextIOWrapper(io.BytesIO()); text.detach()
        print(ask(anyfork.fork_here(), "1"))
    """)
    assert said == "1\n"


# --- What a copy must not share with the program -----------------------------------------------------------------


def test_cyclic_garbage_of_the_program_is_finalized_once(program):
    said = program("""
        import gc
        class Cycle:
            def __init__(self): self.me = self
            def __del__(self): os.write(1, b"x")
        gc.set_threshold(1)
        for _ in range(5):
            Cycle()
            with anyfork.fork_here() as template: ask(template, "1")
        gc.collect()
    """)
    assert said == "xxxxx"


def test_what_only_exit_and_signal_handlers_hold_is_finalized_once(program):
    said = program("""
        import atexit
        class Loud:
            def __init__(self, name): self.name = name
            def __call__(self, *_): pass
            def __del__(self): os.write(1, self.name)
        atexit.register(Loud(b"a"))
        signal.signal(signal.SIGUSR1, Loud(b"b"))
        with anyfork.fork_here() as template: print(ask(template, "1"), flush=True)
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    """)
    assert sorted(said) == sorted("1\nab")


def test_exit_handlers_that_a_process_registers_run_and_its_code_is_kept(program):
    said = program("""
        import atexit
        atexit.register(print, "of the program")
        def work(channel):
            atexit.register(print, "of the process")
            print("buffered")
            sys.exit(3)
        print(ended(anyfork.fork_here().run(work)), flush=True)
    """)
    assert said == "buffered\nof the process\nended with exit code 3\nof the program\n"


def test_output_that_was_frozen_is_written_once(program, tmp_path):
    said = program("""
        import gc
        file = open("file", "w"); file.write("once")
        print("begin")
        gc.freeze()
        with anyfork.fork_here() as template: print(ask(template, "1"))
        channel = anyfork.Template().run(until_closed)
        channel.channel
        gc.freeze()
        with anyfork.fork_here() as template:
            template.ready()
            with channel: pass
    """)
    assert said == "begin\n1\n"
    assert (tmp_path / "file").read_text() == "once"


def test_thread_pools_work_in_processes_though_the_program_has_loaded_them(program):
    said = program("""
        import concurrent.futures
        def work():
            with concurrent.futures.ThreadPoolExecutor(2) as pool: return sum(pool.map(len, ["a"] * 4))
        with concurrent.futures.ThreadPoolExecutor(1) as pool: pool.submit(len, "").result()
        print(anyfork.call(work, template=anyfork.fork_here()))
        print(anyfork.call(work, template=anyfork.Template.new_exec().preload("concurrent.futures.thread")))
    """)
    assert said == "4\n4\n"


def test_a_module_that_was_being_imported_can_be_imported_by_threads_of_a_process(program, tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "here.py").write_text(
        "import threading, anyfork\n"
        "def double(x): return 2 * x\n"
        "def work():\n"
        "    def look():\n"
        "        from package.here import double\n"
        "        results.append(double(4))\n"
        "    results = []\n"
        "    thread = threading.Thread(target=look); thread.start(); thread.join()\n"
        "    return results\n"
        "template = anyfork.fork_here()\n"
    )
    assert program("from package import here; print(anyfork.call(here.work, template=here.template, timeout=20))") == (
        "[8]\n"
    )


def test_errors_of_processes_are_not_chained_to_one_that_the_program_was_handling(program):
    said = program(
        """
        def fail(): {}["key"]
        try: 1 / 0
        except ZeroDivisionError: template = anyfork.fork_here()
        try: anyfork.call(fail, template=template)
        except KeyError as error: print("ZeroDivisionError" in str(error.__cause__), error)
        process = template.run(lambda channel: fail())
        print(ended(process).error.count("Traceback"))
    """,
        stderr=True,
    )
    assert said.splitlines()[:2] == ["False 'key'", "1"]


def test_a_copy_that_is_made_deep_in_a_recursion_has_the_stack_of_a_fresh_one(program):
    said = program("""
        def dive(depth): return dive(depth - 1) if depth else anyfork.fork_here()
        def deep(n): return 0 if not n else 1 + deep(n - 1)
        print(anyfork.call(deep, 800, template=dive(700)))
    """)
    assert said == "800\n"


def test_statuses_are_real_though_the_program_ignores_the_end_of_its_children(program):
    said = program("""
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        import numpy
        def work(channel): sys.exit(7)
        print(ended(anyfork.fork_here().run(work)))
    """)
    assert said == "ended with exit code 7\n"


def test_an_interrupt_at_the_fork_leaves_no_template(program):
    said = program("""
        import select
        os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGINT))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try: anyfork.fork_here()
        except KeyboardInterrupt: print("interrupted")
        with open(f"/proc/self/task/{os.getpid()}/children") as file: left = file.read().split()
        for pid in map(int, left):
            try: os.waitpid(pid, 0)
            except ChildProcessError: pass
        print("gone")
    """)
    assert said == "interrupted\ngone\n"


def test_a_killed_template_tells_how_it_ended_and_is_no_zombie(program):
    said = program("""
        template = anyfork.fork_here().ready()
        pid = template.pid
        os.kill(pid, signal.SIGKILL)
        try: template.ready()
        except anyfork.TemplateDiedError as error: print(error.status)
        try: os.kill(pid, 0)
        except ProcessLookupError: print("reaped")
    """)
    assert said == "ended by signal 9 (SIGKILL)\nreaped\n"


# --- Names of __main__ ------------------------------------------------------------------------------------------


def test_what_was_redefined_meanwhile_still_travels_and_comes_back_as_what_it_was(program):
    said = program("""
        import functools
        class P:
            def __init__(self, x): self.x = x
        def f(): return "old f"
        @functools.lru_cache
        def cached(): return "old cached"
        square = lambda x: x * x
        old, oldp, oldf = P(1), P, f
        template = anyfork.fork_here()
        class P: pass
        def f(): return "new f"
        @functools.lru_cache
        def cached(): return "new cached"
        @functools.lru_cache(maxsize=3)
        def later(x): return x + 1
        def same(p): return p
        with anyfork.Worker(template) as worker:
            print(type(worker.call(same, old)) is oldp, worker.call(oldf), worker.call(f), worker.call(cached))
            print(worker.call(square, 3), worker.call(later, 1), anyfork.call(later, 1))
        del f, P
    """)
    assert said == "True old f new f new cached\n9 2 2\n"


def test_classes_inside_of_classes_and_methods_go_by_name(program):
    said = program("""
        class Outer:
            class Inner(Exception): pass
            @staticmethod
            def fail(): raise Outer.Inner("inner")
        try: anyfork.call(Outer.fail, template=anyfork.fork_here())
        except Outer.Inner as error: print(error)
    """)
    assert said == "inner\n"


def test_a_template_that_has_moved_sends_results_that_its_new_owner_can_use(program):
    said = program("""
        class P:
            x = 5
        def make(): return P()
        def adopt(channel, sock):
            import pickle
            with anyfork.Template.from_socket(sock) as template:
                channel.sendall(pickle.dumps(anyfork.call(make_in, template=template).x))
        make_in = "make"
        template = anyfork.fork_here()
        with template.detach() as sock: process = anyfork.Template().run(adopt, sock)
        print(result_of(process))
    """)
    assert said == "5\n"


# --- Where descriptors run out, and elsewhere ---------------------------------------------------------------------


def test_without_descriptors_it_is_a_fork_error(program):
    said = program("""
        import errno, resource
        anyfork.fork_here
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0); os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, hard))
        try: anyfork.fork_here()
        except anyfork.ForkError as error: print(error.errno == errno.EMFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        print(ask(anyfork.fork_here(), "1"))
    """)
    assert said == "True\n1\n"


def test_at_exit_it_works_or_says_that_the_interpreter_is_ending(program):
    said = program("""
        import atexit
        @atexit.register
        def late():
            try: print(ask(anyfork.fork_here(), "1"))
            except anyfork.UnsafeTemplateError as error: print(error)
    """)
    assert said in ("1\n", "this program cannot become a template: the interpreter is ending\n")


def test_a_process_and_a_worker_may_copy_themselves_without_a_warning(program):
    said = program("""
        import warnings
        def inside(channel=None):
            import anyfork
            warnings.simplefilter("error")
            keep = [channel] if channel is not None else []
            with anyfork.fork_here(keep_fds=keep) as template:
                result = anyfork.call(os.getppid, template=template)
            return result > 0
        def run(channel):
            import pickle
            channel.sendall(pickle.dumps(inside(channel)))
        print(result_of(anyfork.Template().run(run)))
        with anyfork.Worker(anyfork.Template()) as worker: print(worker.call(inside))
    """)
    assert said == "True\nTrue\n"


def test_a_pool_of_copies_shares_what_the_program_has(program):
    said = program("""
        import asyncio
        from anyfork import aio
        unpicklable = (n for n in range(3))
        def count(): return sum(unpicklable)
        template = anyfork.fork_here()
        async def main():
            async with aio.Pool(aio.Template.from_blocking(template), max_workers=1) as pool:
                print(await pool.call(count))
                try: pool.replace_template(aio.Template())
                except anyfork.ArgumentError as error: print("a copy of this program" in str(error))
        asyncio.run(main())
    """)
    assert said == "3\nTrue\n"

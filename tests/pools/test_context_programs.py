"""Programs that use the multiprocessing context: what is in ``__main__``, how they end, and what is left when they are
killed."""

from __future__ import annotations

import select
import signal
import subprocess
import sys
from textwrap import dedent

import pytest
from conftest import children, eventually, owned, state_and_command, wait_for_end
from deadlines import PROGRAM_DEADLINE
from owner_side import output_of


@pytest.fixture
def program(tmp_path):
    """Return a function that runs a script without a guard, in a directory of its own, and returns what it prints."""

    def run(source):
        script = tmp_path / "program.py"
        script.write_text(dedent(source))
        return output_of(str(script), cwd=tmp_path).splitlines()

    return run


# --- __main__ ---------------------------------------------------------------------------------------------------


def test_a_script_without_a_guard_is_run_once(program):
    said = program("""
        import anyfork
        print("top level", flush=True)
        ctx = anyfork.get_context()

        def work(number):
            return number + 1

        def show(number):
            print("process", work(number), flush=True)

        process = ctx.Process(target=show, args=(1,))
        process.start()
        process.join()
        with ctx.Pool(2) as pool:
            print(pool.map(work, range(3)))
    """)
    assert said == ["top level", "process 2", "[1, 2, 3]"]


def test_functions_and_classes_of_main_work_wherever_names_of_them_come_to(program):
    said = program("""
        from concurrent.futures import ProcessPoolExecutor
        import anyfork
        ctx = anyfork.get_context()

        class Task:
            def __init__(self, number): self.number = number
            def run(self): return helper(self.number)
            def __eq__(self, other): return type(other) is Task and other.number == self.number
            class Error(Exception): pass

        def helper(number):
            return number * factor

        factor = 3

        def run(task):
            return task.run(), task

        def fail(task):
            raise Task.Error(task.number)

        def consume(inward, outward):
            for task in iter(inward.get, None):
                outward.put((task.run(), task))

        task = Task(5)
        with ctx.Pool(1) as pool:
            print(pool.apply(run, (task,)) == (15, task), pool.map(Task.run, [task]))
            try:
                pool.apply(fail, (task,))
            except Task.Error as error:
                print("Task.Error", error)
        with ProcessPoolExecutor(1, mp_context=ctx) as executor:
            print(executor.submit(run, task).result() == (15, task))
        inward, outward = ctx.Queue(), ctx.SimpleQueue()
        process = ctx.Process(target=consume, args=(inward, outward))
        process.start()
        inward.put(task)
        print(outward.get() == (15, task))
        inward.put(None)
        process.join()
        ours, theirs = ctx.Pipe()
        process = ctx.Process(target=lambda pipe: pipe.send(pipe.recv().run()), args=(theirs,))
        process.start()
        ours.send(task)
        print(ours.recv())
        process.join()
        with ctx.Manager() as manager:
            shared = manager.list([task])
            print(shared[0] == task)
    """)
    assert said == ["True [15]", "Task.Error 5", "True", "True", "15", "True"]


def test_what_is_defined_after_the_start_is_found_as_well(program):
    said = program("""
        import anyfork
        with anyfork.get_context().Pool(1) as pool:
            print(pool.apply(len, ("abc",)))
            def later(number):
                return -number
            print(pool.map(later, range(3)))
    """)
    assert said == ["3", "[0, -1, -2]"]


def test_a_function_of_main_takes_large_globals_and_open_files_along(program):
    said = program("""
        import os
        import anyfork
        ctx = anyfork.get_context()
        table = os.urandom(1 << 20)
        read, write = ctx.Pipe(duplex=False)

        def look(index):
            return table[index]

        def tell(number):
            write.send(number)

        with ctx.Pool(1) as pool:
            print(pool.map(look, range(100)) == list(table[:100]))
            pool.apply(tell, (5,))
            print(read.recv())
    """)
    assert said == ["True", "5"]


def test_cached_functions_of_main_are_found_too(program):
    said = program("""
        import functools
        import anyfork

        @functools.cache
        def fib(number):
            return number if number < 2 else fib(number - 1) + fib(number - 2)

        with anyfork.get_context().Pool(1) as pool:
            print(pool.map(fib, [10, 90]))
    """)
    assert said == ["[55, 2880067194370816120]"]


def test_a_process_of_a_process_finds_what_is_in_main(program):
    said = program("""
        import anyfork
        ctx = anyfork.get_context()

        def square(number):
            return number ** 2

        def outer(sender):
            import __main__
            with ctx.Pool(1) as pool:
                sender.send(pool.map(__main__.square, range(4)))

        receiver, sender = ctx.Pipe(duplex=False)
        process = ctx.Process(target=outer, args=(sender,))
        process.start()
        print(receiver.recv())
        process.join()
    """)
    assert said == ["[0, 1, 4, 9]"]


def test_locks_that_functions_of_main_use_are_the_same_in_all_processes(program):
    said = program("""
        import anyfork
        ctx = anyfork.get_context()
        lock, value = ctx.Lock(), ctx.Value("i", 0, lock=False)

        def add(times):
            for _ in range(times):
                with lock:
                    value.value += 1

        processes = [ctx.Process(target=add, args=(300,)) for _ in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        with ctx.Pool(2) as pool:
            pool.map(add, [50, 50])
        print(value.value)
    """)
    assert said == ["1000"]


def test_what_is_not_in_main_is_an_error_that_says_so(program):
    said = program("""
        import threading
        import anyfork
        ctx = anyfork.get_context()
        number = 3
        lock = threading.Lock()

        def locked():
            with lock:
                return 1

        def look(names, sender):
            import __main__
            for name in names:
                try:
                    sender.send(str(getattr(__main__, name)))
                except Exception as error:
                    sender.send(f"{type(error).__name__}: {error}")

        receiver, sender = ctx.Pipe(duplex=False)
        names = ["missing", "lock", "__missing__", "number"]
        process = ctx.Process(target=look, args=(names, sender))
        process.start()
        for name in names:
            print(receiver.recv())
        process.join()
    """)
    nothing = "module '__main__' has no attribute {!r}, and its owner's has none that can be sent"
    assert said[:3] == [f"AttributeError: {nothing.format(name)}" for name in ("missing", "lock", "__missing__")]
    assert said[3] == "3"


def test_a_task_that_cannot_be_decoded_is_an_error_of_its_own_and_the_pool_goes_on(program):
    said = program("""
        import importlib.util, pathlib, sys, tempfile, threading
        import anyfork
        from concurrent.futures import ProcessPoolExecutor
        ctx = anyfork.get_context()
        guard = threading.Lock()

        def locked(number):
            with guard:
                return number

        class Locked:
            lock = guard

        class Refused:
            def __init__(self, number):
                pass

            def __reduce__(self):
                return refuse, (1,)

        def refuse(number):
            raise ZeroDivisionError("as asked")

        def same(value):
            return value

        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory, "only.py")
            path.write_text("class OnlyError(Exception): pass\\ndef square(x): return x * x\\ndef fail(x): raise OnlyError(x)\\n")
            spec = importlib.util.spec_from_file_location("only_here", path)
            only = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(only)

        def look(ask):
            for function, value in ((locked, 1), (same, Locked()), (same, Refused(1)), (only.square, 3), (only.fail, 1), (same, 2)):
                try:
                    print(ask(function, value))
                except Exception as error:
                    print(type(error).__name__, isinstance(error, only.OnlyError))

        with ctx.Pool(1) as pool:
            look(lambda function, value: pool.apply_async(function, (value,)).get(20))
        with ProcessPoolExecutor(1, mp_context=ctx) as executor:
            look(lambda function, value: executor.submit(function, value).result(20))
    """)
    expected = ["UnpicklingError False", "UnpicklingError False", "ZeroDivisionError False", "9", "OnlyError True", "2"]
    assert said == expected * 2


def test_the_start_method_may_be_set_for_the_whole_program(program):
    said = program("""
        import multiprocessing
        import anyfork.context
        multiprocessing.set_start_method("anyfork")

        def work(queue):
            queue.put((multiprocessing.get_start_method(), multiprocessing.current_process().name))

        queue = multiprocessing.Queue()
        process = multiprocessing.Process(target=work, args=(queue,), name="one")
        process.start()
        print(queue.get())
        process.join()
    """)
    assert said == ["('anyfork', 'one')"]


@pytest.mark.untraced  # the resource tracker or server of another method may be ended while coverage writes its data
def test_other_start_methods_work_where_ours_is_that_of_the_program(program):
    said = program("""
        import multiprocessing
        import anyfork.context

        def method():
            return multiprocessing.get_start_method()

        if __name__ == "__main__":
            multiprocessing.set_start_method("anyfork")
            for name in ("spawn", "forkserver", "fork", "anyfork"):
                with multiprocessing.get_context(name).Pool(1) as pool:
                    print(name, pool.apply(method))
    """)
    assert said == [f"{method} {method}" for method in ("spawn", "forkserver", "fork", "anyfork")]


def test_a_forked_copy_of_the_program_starts_processes_of_its_own(program):
    said = program("""
        import multiprocessing, os, signal, warnings
        import anyfork
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork where threads run
        ctx = anyfork.get_context()

        def double(number):
            return number * 2

        def start_some():
            with ctx.Pool(1) as pool:
                print(pool.map(double, range(3)), flush=True)

        start_some()
        running = ctx.Process(target=signal.pause, daemon=True)
        running.start()
        copy = multiprocessing.get_context("fork").Process(target=start_some)
        copy.start()
        copy.join()
        pid = os.fork()
        if pid == 0:
            print(running._popen.poll(), flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
        start_some()
        running.kill()
        running.join()
        print(copy.exitcode, running.exitcode)
    """)
    assert said == ["[0, 2, 4]", "[0, 2, 4]", "None", "[0, 2, 4]", "0 -9"]


def test_a_process_has_the_interpreter_flags_of_the_program(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(
        dedent("""
            import sys
            import anyfork

            def flags():
                return sys.flags.optimize, sys.flags.bytes_warning, sys.flags.dont_write_bytecode

            with anyfork.get_context().Pool(1) as pool:
                print(flags(), pool.apply(flags))
        """)
    )
    assert output_of("-O", "-b", "-B", str(script)) == "(1, 1, 1) (1, 1, 1)\n"


# --- The end ----------------------------------------------------------------------------------------------------


def test_a_program_waits_for_its_processes_and_ends_its_daemons(program):
    said = program("""
        import os, signal
        import anyfork
        ctx = anyfork.get_context()

        def say(event):
            event.wait()
            os.write(1, b"a process has ended\\n")

        def forever():
            signal.pause()

        event = ctx.Event()
        ctx.Process(target=say, args=(event,)).start()
        ctx.Process(target=forever, daemon=True).start()
        event.set()
        os.write(1, b"the program has ended\\n")
    """)
    assert sorted(said) == ["a process has ended", "the program has ended"]


def test_a_process_does_what_is_registered_for_its_end_and_nothing_of_its_template_s(program):
    said = program("""
        import atexit
        from multiprocessing import util
        import anyfork

        def work():
            util.Finalize(None, print, ("finalizer",), exitpriority=1)
            atexit.register(print, "handler")

        with anyfork.Template().execute("import atexit; atexit.register(print, 'of the template', flush=True)") as template:
            process = anyfork.get_context(template).Process(target=work)
            process.start()
            process.join()
            print("joined", flush=True)
    """)
    assert sorted(said[:2]) == ["finalizer", "handler"]
    assert said[2:] == ["joined", "of the template"]


def test_a_leak_is_reported_once_and_by_the_one_tracker(program):
    said = program("""
        from multiprocessing import shared_memory
        import anyfork

        def share(name):
            memory = shared_memory.SharedMemory(name)
            memory.close()

        memory = shared_memory.SharedMemory(create=True, size=8)
        ctx = anyfork.get_context()
        for _ in range(3):
            process = ctx.Process(target=share, args=(memory.name,))
            process.start()
            process.join()
        memory.close()
        memory.unlink()
        print("nothing leaks")
    """)
    assert said == ["nothing leaks"]


def test_no_second_tracker_is_started(program):
    said = program("""
        import os
        import anyfork
        ctx = anyfork.get_context()

        def children(sender):
            lock = ctx.Lock()
            sender.send(open(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read().split())

        receiver, sender = ctx.Pipe(duplex=False)
        process = ctx.Process(target=children, args=(sender,))
        process.start()
        print(receiver.recv())
        process.join()
    """)
    assert said == ["[]"]


# --- Kills ------------------------------------------------------------------------------------------------------


def test_a_killed_template_is_replaced_and_its_processes_go_on(program):
    said = program("""
        import os, signal
        import anyfork
        from anyfork._processes.default_template import default_template
        ctx = anyfork.get_context()

        def wait(event):
            event.wait()

        event = ctx.Event()
        process = ctx.Process(target=wait, args=(event,))
        process.start()
        pid = default_template.get().session.pid
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        print(process.is_alive())
        for _ in range(3):
            try:
                another = ctx.Process(target=wait, args=(event,))
                another.start()
                break
            except anyfork.TemplateDiedError as error:
                print("lost", type(error).__name__)
        event.set()
        process.join()
        another.join()
        print(process.exitcode, another.exitcode)
    """)
    assert said[0] == "True"
    assert said[-1] == "255 0"  # nobody can know, and forkserver says the same
    assert len(said) <= 3


def test_the_end_of_a_killed_template_of_one_s_own_is_an_error_of_the_next_start(program):
    said = program("""
        import os, signal
        import anyfork
        template = anyfork.Template().ready()
        ctx = anyfork.get_context(template)
        process = ctx.Process(target=print, args=("once",), kwargs={"flush": True})
        process.start()
        process.join()
        os.kill(template.pid, signal.SIGKILL)
        try:
            ctx.Process(target=print).start()
        except anyfork.TemplateDiedError as error:
            print("was killed" if "SIGKILL" in str(error) else error)
        template.close()
    """)
    assert said == ["once", "was killed"]


def test_an_executor_reports_a_killed_worker(program):
    said = program("""
        import os, signal
        from concurrent.futures import ProcessPoolExecutor
        from concurrent.futures.process import BrokenProcessPool
        import anyfork

        def die():
            os.kill(os.getpid(), signal.SIGKILL)

        with ProcessPoolExecutor(1, mp_context=anyfork.get_context()) as executor:
            try:
                executor.submit(die).result(30)
            except BrokenProcessPool:
                print("broken")
    """)
    assert said == ["broken"]


def test_a_killed_program_leaves_nothing(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(
        dedent("""
            import os, signal
            import anyfork
            ctx = anyfork.get_context()

            def busy(event):
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                event.set()
                signal.pause()

            events = [ctx.Event() for _ in range(3)]
            processes = [ctx.Process(target=busy, args=(event,)) for event in events]
            for process in processes:
                process.start()
            pool = ctx.Pool(2)
            for event in events:
                event.wait()
            print(pool.apply(os.getpid), flush=True)
            signal.pause()
        """)
    )
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, cwd=tmp_path) as process:
        assert select.select([process.stdout], [], [], PROGRAM_DEADLINE)[0]
        assert process.stdout.readline()
        tracker = [pid for pid in children(process.pid) if "resource_tracker" in state_and_command(pid)]
        assert len(tracker) == 1
        assert len(owned(process.pid)) >= 6
        process.send_signal(signal.SIGKILL)
    eventually(lambda: not owned(process.pid), lambda: f"processes are left: {owned(process.pid)}")
    wait_for_end(tracker[0])

"""The multiprocessing context: all that multiprocessing offers, in processes that are forked from a template."""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import multiprocessing
import os
import pickle
import signal
import socket
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import connection, resource_tracker, shared_memory

import anyio
import context_functions as functions
import pytest
from conftest import descriptors, eventually, merge_references
from deadlines import DEADLINE

import anyfork
from anyfork._blocking.multiprocessing import main_lookup
from anyfork.context import AnyforkContext, AnyforkProcess


@pytest.fixture(scope="module", autouse=True)
def _running():
    """Start once what stays for the rest of the program: the resource tracker, a heap."""
    anyfork.get_context().Value("i")
    process = anyfork.get_context().Process(target=functions.nothing)
    process.start()
    process.join(DEADLINE)
    process.close()


@pytest.fixture(params=["default", "own"])
def ctx(request):
    """Yield a context of the default template, and one of a template of its own."""
    if request.param == "default":
        yield anyfork.get_context()
        return
    with anyfork.Template() as template:
        yield anyfork.get_context(template)


@pytest.fixture
def default():
    return anyfork.get_context()


@pytest.fixture
def errors(tmp_path):
    """Yield a context, and the file of what its processes write to the standard error."""
    said = tmp_path / "stderr"
    with open(said, "wb") as file, anyfork.Template().fork(stderr=file) as template:
        yield anyfork.get_context(template), said


def finish(process, code=0):
    """Wait for the end of a process, which is as expected."""
    process.join(DEADLINE)
    assert process.exitcode == code
    process.close()


def started(ctx, target, *args, **options):
    process = ctx.Process(target=target, args=args, **options)
    process.start()
    return process


def close(*queues):
    """Close queues, and free what the threads of free-threaded builds have left of them before their locks are freed.

    The resource tracker of CPython 3.13 would lose a lock that is freed while another one is.
    """
    for queue in queues:
        queue.close()
        if hasattr(queue, "join_thread"):  # a SimpleQueue has none
            queue.join_thread()
    merge_references()


def told(ctx, expression, **options):
    """Return the value of an expression in a process."""
    receiver, sender = ctx.Pipe(duplex=False)
    process = started(ctx, functions.tell, sender, expression, **options)
    sender.close()
    with receiver:
        value = receiver.recv()
    finish(process)
    return value


# --- Process ----------------------------------------------------------------------------------------------------


def test_a_process_runs_its_target_and_ends(ctx):
    process = started(ctx, functions.nothing)
    assert process.pid == process.ident != os.getpid()
    assert process.is_alive() or process.exitcode == 0
    process.join(DEADLINE)
    assert not process.is_alive()
    finish(process)


@pytest.mark.parametrize(
    ("target", "args", "code"),
    [
        (functions.nothing, (), 0),
        (functions.leave, (7,), 7),
        (functions.leave, (None,), 0),
        (functions.leave, (-1,), 255),
        (functions.kill_itself, (signal.SIGKILL,), -9),
        (functions.kill_itself, (signal.SIGTERM,), -15),
    ],
)
def test_the_exit_code_is_that_of_multiprocessing(ctx, target, args, code):
    finish(started(ctx, target, *args), code)


@pytest.mark.parametrize(("target", "args", "words"), [("fail", (), "as asked"), ("leave", ("a word",), "a word")])
def test_what_ends_a_process_is_printed_and_its_code_is_1(errors, target, args, words):
    ctx, said = errors
    finish(started(ctx, getattr(functions, target), *args), 1)
    assert words in said.read_text()


def test_a_process_is_known_by_its_name_its_parent_and_its_key(default):
    process = default.Process(target=functions.nothing)
    assert process.name.startswith("AnyforkProcess-")
    assert told(default, "current.name, current.daemon", name="one", daemon=True) == ("one", True)
    assert told(default, "parent.pid, parent.name, parent.is_alive()") == (os.getpid(), "MainProcess", True)
    assert told(default, "bytes(current.authkey)") == bytes(multiprocessing.current_process().authkey)
    assert told(default, "current._start_method, multiprocessing.get_start_method()") == ("anyfork", "anyfork")


def test_a_process_has_what_multiprocessing_gives_of_its_parent(default, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["program", "argument"])
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANYFORK_TEST_CONTEXT", "now")
    assert told(default, "sys.argv") == ["program", "argument"]
    assert told(default, "sys.path[0], os.getcwd()") == (str(tmp_path), str(tmp_path))
    assert told(default, "os.environ.get('ANYFORK_TEST_CONTEXT')") == "now"
    monkeypatch.delenv("ANYFORK_TEST_CONTEXT")
    assert told(default, "os.environ.get('ANYFORK_TEST_CONTEXT')") is None


def test_a_process_reads_nothing_from_the_standard_input(default):
    assert told(default, "sys.stdin.read(), sys.stdin.name") == ("", told(default, "sys.stdin.fileno()"))


def test_a_process_logs_as_its_parent_does(default):
    logger = default.get_logger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        assert told(default, "multiprocessing.get_logger().getEffectiveLevel()") == logging.ERROR
    finally:
        logger.setLevel(before)


def test_a_process_of_an_own_template_has_its_environment_and_directory(tmp_path):
    with anyfork.Template().fork(env={"ONLY": "this"}, cwd=tmp_path) as template:
        ctx = anyfork.get_context(template)
        assert told(ctx, "os.environ.get('ONLY'), os.environ.get('PATH'), os.getcwd()") == ("this", None, str(tmp_path))


def test_a_process_has_nothing_of_anyfork_and_nothing_of_the_program_s_main(ctx):
    assert told(ctx, "[name for name in sys.modules if name.partition('.')[0] in ('anyfork', 'pytest')]") == []


def test_the_sentinel_tells_of_the_end_before_and_after_it_was_seen(ctx):
    event = ctx.Event()
    process = started(ctx, functions.wait_for, event)
    assert connection.wait([process.sentinel], timeout=0) == []
    event.set()
    assert connection.wait([process.sentinel], timeout=DEADLINE) == [process.sentinel]
    process.join(DEADLINE)
    assert connection.wait([process.sentinel], timeout=0) == [process.sentinel]
    finish(process)


def test_join_and_the_exit_code_do_not_wait_longer_than_they_are_told(ctx):
    process = started(ctx, functions.never_end)
    process.join(0.01)
    process.join(0)
    process.join(-1)
    assert process.exitcode is None
    assert process.is_alive()
    with pytest.raises(ValueError, match="still running"):
        process.close()
    process.kill()
    finish(process, -9)


def test_many_threads_may_join_one_process(default):
    event = default.Event()
    process = started(default, functions.wait_for, event)
    threads = [threading.Thread(target=process.join, args=(DEADLINE,)) for _ in range(5)]
    for thread in threads:
        thread.start()
    event.set()
    for thread in threads:
        thread.join(DEADLINE)
    finish(process)


@pytest.mark.parametrize(("end", "code"), [("terminate", -15), ("kill", -9)])
def test_a_process_is_ended_by_a_signal(ctx, end, code):
    process = started(ctx, functions.never_end)
    getattr(process, end)()
    process.join(DEADLINE)
    getattr(process, end)()  # to nobody
    finish(process, code)


def test_active_children_are_those_that_run(default):
    process = started(default, functions.never_end)
    assert process in multiprocessing.active_children()
    process.kill()
    process.join(DEADLINE)
    assert process not in multiprocessing.active_children()
    finish(process, -9)


def test_a_thread_that_looks_for_ended_processes_may_meet_a_closed_one(default):
    process = started(default, functions.square, 2)
    process.join(DEADLINE)
    process.close()
    multiprocessing.process._children.add(process)  # as the other thread still has it in its list
    assert process not in multiprocessing.active_children()
    process.close()  # again
    assert "closed" in repr(process)


def test_a_subclass_runs_its_own_method(ctx):
    class Doubler(ctx.Process):
        def __init__(self, sender, number):
            super().__init__()
            self.sender, self.number = sender, number

        def run(self):
            self.sender.send(self.number * 2)

    receiver, sender = ctx.Pipe(duplex=False)
    process = Doubler(sender, 21)
    process.start()
    sender.close()
    with receiver:
        assert receiver.recv() == 42
    finish(process)


def test_a_process_starts_processes_and_theirs_do(default):
    receiver, sender = default.Pipe(duplex=False)
    process = started(default, functions.start_another, sender, "parent.pid, current.name")
    pid, name = process.pid, process.name
    sender.close()
    with receiver:
        assert receiver.recv() == (pid, f"Process-{name.rpartition('-')[2]}:1")
    finish(process)


def test_a_daemon_may_not_have_children(errors):
    ctx, said = errors
    receiver, sender = ctx.Pipe(duplex=False)
    finish(started(ctx, functions.start_another, sender, "0", daemon=True), 1)
    sender.close()
    receiver.close()
    assert "daemonic processes are not allowed to have children" in said.read_text()


def test_processes_of_a_killed_process_end_with_it(default):
    receiver, sender = default.Pipe(duplex=False)
    process = started(default, functions.start_and_kill_itself, sender)
    sender.close()
    with receiver:
        inner = receiver.recv()
    pidfd = None
    try:
        pidfd = os.pidfd_open(inner)
    except ProcessLookupError:
        pass  # it has ended already
    if pidfd is not None:
        assert connection.wait([pidfd], DEADLINE)
        os.close(pidfd)
    finish(process, -9)


@pytest.mark.slow
def test_a_thousand_short_processes_leave_nothing(default):
    before = len(descriptors())
    for _ in range(40):
        processes = [started(default, functions.nothing) for _ in range(25)]
        for process in processes:
            finish(process)
    assert len(descriptors()) <= before
    assert multiprocessing.active_children() == []


# --- Starts that fail -------------------------------------------------------------------------------------------


def test_an_argument_that_cannot_travel_fails_the_start(ctx):
    process = ctx.Process(target=functions.square, args=(threading.Lock(),))
    with pytest.raises(TypeError, match="cannot pickle '_thread.lock' object"):
        process.start()
    assert process.pid is None


@pytest.mark.parametrize("kind", ["Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition", "Event", "Queue"])
def test_a_lock_of_another_start_method_is_refused(ctx, kind):
    lock = getattr(multiprocessing.get_context("fork"), kind)()
    with pytest.raises(RuntimeError, match="fork context cannot travel"):
        ctx.Process(target=functions.wait_for, args=(lock,)).start()


def test_a_lock_travels_to_new_processes_only(ctx):
    with pytest.raises(RuntimeError, match="only be shared between processes through inheritance"):
        pickle.dumps(ctx.Lock())


def test_what_failed_in_the_template_fails_the_start():
    with anyfork.Template().preload("no_such_module") as template:
        with pytest.raises(anyfork.PreloadError, match="no_such_module"):
            anyfork.get_context(template).Process(target=functions.nothing).start()


def test_a_closed_template_fails_the_start():
    template = anyfork.Template()
    ctx = anyfork.get_context(template)
    template.close()
    with pytest.raises(anyfork.HandleError, match="closed"):
        ctx.Process(target=functions.nothing).start()


def test_what_cannot_be_decoded_is_told_by_the_process(errors, tmp_path, monkeypatch):
    ctx, said = errors
    (tmp_path / "vanishing.py").write_text("def function(): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import vanishing

    (tmp_path / "vanishing.py").write_text("raise ImportError('it vanished')\n")
    finish(started(ctx, vanishing.function), 1)
    assert "it vanished" in said.read_text()


@pytest.mark.parametrize("template", ["anyfork", 1, anyfork.Template])
def test_only_a_template_makes_a_context(template):
    with pytest.raises(anyfork.ArgumentError, match=r"get_context\(\) needs a Template"):
        anyfork.get_context(template)


# --- What processes share ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue", "JoinableQueue"])
def test_queues_carry_items_both_ways(ctx, kind):
    inward, outward = getattr(ctx, kind)(), getattr(ctx, kind)()
    process = started(ctx, functions.echo, inward, outward)
    for item in (1, "two", b"3" * 100_000):
        inward.put(item)
        assert outward.get() == (item, item)
    inward.put(None)
    finish(process)
    close(inward, outward)


def test_a_joinable_queue_is_joined_when_all_is_done(ctx):
    queue = ctx.JoinableQueue()
    process = started(ctx, functions.consume, queue, daemon=True)
    for number in range(10):
        queue.put(number)
    queue.join()
    process.terminate()
    finish(process, -15)
    close(queue)


@pytest.mark.parametrize("kind", ["Lock", "RLock", "Semaphore", "BoundedSemaphore"])
def test_locks_keep_processes_apart(ctx, kind):
    value, lock = ctx.Value("i", 0, lock=False), getattr(ctx, kind)()
    processes = [started(ctx, functions.add, value, 200, lock) for _ in range(3)]
    for process in processes:
        finish(process)
    assert value.value == 600


def test_what_a_process_inherits_is_there_until_it_has_it(ctx):
    receiver, sender = ctx.Pipe(duplex=False)
    process = started(ctx, functions.take_lock, functions.Slow(receiver), ctx.Lock())
    gc.collect()  # nothing here holds the lock
    process.join(0)
    sender.send("go on")
    finish(process)
    receiver.close()
    sender.close()


def test_a_barrier_lets_all_pass_at_once(ctx):
    receiver, sender = ctx.Pipe(duplex=False)
    barrier = ctx.Barrier(3)
    processes = [started(ctx, functions.pass_barrier, barrier, sender) for _ in range(2)]
    mine = barrier.wait(DEADLINE)
    assert sorted([mine, receiver.recv(), receiver.recv()]) == [0, 1, 2]
    for process in processes:
        finish(process)
    receiver.close()
    sender.close()


def test_a_condition_is_notified_by_a_process(ctx):
    condition = ctx.Condition()
    with condition:
        process = started(ctx, functions.notify, condition)
        assert condition.wait(DEADLINE)
    finish(process)


def test_values_and_arrays_are_memory_of_both(ctx):
    value = ctx.Value("q", 5)
    finish(started(ctx, functions.add, value, 37, value.get_lock()))
    assert value.value == 42
    array = ctx.Array("i", range(4))
    finish(started(ctx, array.__setitem__, 1, 9))
    assert array[:] == [0, 9, 2, 3]


def test_shared_memory_is_memory_of_both(ctx):
    memory = shared_memory.SharedMemory(create=True, size=16)
    finish(started(ctx, functions.write_memory, memory.name, b"from a process"))
    assert bytes(memory.buf[:14]) == b"from a process"
    memory.close()
    memory.unlink()


def test_connections_sockets_and_files_travel_as_arguments(ctx, tmp_path):
    (tmp_path / "file").write_bytes(b"from a file")
    ours, theirs = socket.socketpair()
    with ours, theirs, open(tmp_path / "file", "rb") as file:
        process = started(ctx, functions.read_file, file, theirs)
        theirs.close()
        assert ours.recv(100) == b"from a file"
    finish(process)


def test_a_connection_travels_through_a_pipe(ctx):
    ours, theirs = ctx.Pipe()
    inner, other = ctx.Pipe()
    process = started(ctx, functions.tell, theirs, "'the socket of a resource sharer'")
    with ours, theirs, inner, other:
        assert ours.recv() == "the socket of a resource sharer"
        theirs.send(inner)
        with ours.recv() as twin:
            other.send("by the twin")
            assert twin.recv() == "by the twin"
    finish(process)
    from multiprocessing import resource_sharer

    resource_sharer.stop(DEADLINE)


def test_resources_are_tracked_where_the_program_has_them_tracked(default):
    tracker = resource_tracker._resource_tracker
    fd = tracker.getfd()
    there = told(default, "os.readlink(f'/proc/self/fd/{multiprocessing.resource_tracker.getfd()}')")
    assert there == os.readlink(f"/proc/self/fd/{fd}")


# --- Pools, managers, executors ---------------------------------------------------------------------------------


def test_a_pool_maps_and_raises(ctx):
    with ctx.Pool(2, functions.remember, (7,)) as pool:
        assert pool.map(functions.square, range(20)) == [number**2 for number in range(20)]
        assert list(pool.imap_unordered(functions.remembered, range(4))) == [7] * 4
        with pytest.raises(functions.AskedError, match="3"):
            pool.apply(functions.raise_asked, (3,))
    pool.join()


def test_the_thread_that_answers_ends_with_the_last_process(default):
    def answering():
        return [thread for thread in threading.enumerate() if thread.name == "anyfork definitions"]

    eventually(lambda: not answering())
    first, second = (default.Process(target=functions.never_end) for _ in range(2))
    first.start(), second.start()
    first.terminate()
    first.join(DEADLINE)
    assert len(answering()) == 1
    second.terminate()
    second.join(DEADLINE)
    eventually(lambda: not answering())
    for _ in range(5):
        with default.Pool(1) as pool:
            assert pool.apply(abs, (-1,)) == 1
        eventually(lambda: not answering())


def test_the_thread_that_answers_is_joined_although_another_one_was_started_before_it_began():
    def answering():
        return [thread for thread in threading.enumerate() if thread.name == "anyfork definitions"]

    lookup = main_lookup.lookup
    eventually(lambda: not answering())
    with lookup.lock:
        asking = [lookup.open(), lookup.open()]
    eventually(lambda: lookup._answers and len(answering()) == 1, "the other thread has ended")
    for end in asking:
        end.close()
    lookup.join(DEADLINE)
    assert not answering()


def test_a_signal_handler_that_has_interrupted_the_start_of_a_process_does_not_wait_for_the_thread_that_answers():
    lookup, waits = main_lookup.lookup, []
    with lookup.lock:
        asking = lookup.open()
        lookup._thread.join = waits.append
        asking.close()
        lookup.join()  # as the handler does that looks at a process which has ended
    eventually(lambda: lookup._events is None)
    assert not waits


def test_an_interrupt_that_ends_the_thread_that_answers_leaves_no_socket(default):
    class Interrupted(threading.Thread):
        """A thread whose start is interrupted: CPython may end it before it runs its function."""

        def start(self):
            super().start()
            raise KeyboardInterrupt

        def run(self):
            pass

    eventually(lambda: main_lookup.lookup._events is None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "Thread", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            main_lookup.lookup.open()
    process = default.Process(target=functions.nothing)
    process.start()
    process.join(DEADLINE)
    process.close()
    eventually(lambda: main_lookup.lookup._events is None)


@pytest.mark.parametrize("how", ["return", "raise", "exit"])
def test_a_copy_of_a_pools_worker_answers_nothing_and_takes_no_task(default, how):
    with default.Pool(1, functions.fork, (how,)) as pool:
        pids = {pool.apply(os.getpid) for _ in range(3)}
        pids |= {pool.apply(functions.fork, (how,)) for _ in range(3)}
        pids |= {*pool.map(functions.fork, [how] * 3)}
    with ProcessPoolExecutor(1, default, functions.fork, (how,)) as executor:
        others = {executor.submit(functions.fork, how).result(DEADLINE) for _ in range(3)}
        others |= {*executor.map(functions.fork, [how] * 3)}
    assert (len(pids), len(others)) == (1, 1)


def test_a_pool_replaces_its_workers(default):
    with default.Pool(1, maxtasksperchild=1) as pool:
        assert len({pool.apply(os.getpid) for _ in range(3)}) == 3
    pool.join()


def test_a_manager_holds_objects_for_processes(ctx):
    with ctx.Manager() as manager:
        shared = manager.dict(a=1)
        finish(started(ctx, shared.update, {"b": 2}))
        assert dict(shared) == {"a": 1, "b": 2}


def test_an_executor_of_the_standard_library_takes_the_context(ctx):
    with ProcessPoolExecutor(2, mp_context=ctx, initializer=functions.remember, initargs=(5,)) as executor:
        assert list(executor.map(functions.square, range(20))) == [number**2 for number in range(20)]
        assert executor.submit(functions.remembered, 0).result(DEADLINE) == 5
        with pytest.raises(functions.AskedError):
            executor.submit(functions.raise_asked, 1).result(DEADLINE)


def test_a_loader_of_samples_uses_what_torch_uses(ctx):
    # Daemons with a queue each, one queue for all results, an event that ends them, and samples in shared memory.
    dataset = [3, 1, 4, 1, 5, 9]
    done, ready = ctx.Event(), ctx.Queue()
    queues = [ctx.Queue() for _ in range(2)]
    workers = [started(ctx, functions.load, queue, ready, done, dataset, daemon=True) for queue in queues]
    for index in range(len(dataset)):
        queues[index % 2].put(index)
    samples = {}
    for _ in dataset:
        index, name = ready.get(timeout=DEADLINE)
        memory = shared_memory.SharedMemory(name)
        samples[index] = int.from_bytes(memory.buf[:8], "little")
        memory.close()
        memory.unlink()
    done.set()
    for queue in queues:
        queue.put(None)
    for worker in workers:
        finish(worker)
    close(*queues, ready)
    assert samples == {index: value * 2 for index, value in enumerate(dataset)}


# --- Templates and names ----------------------------------------------------------------------------------------


def test_what_the_template_has_loaded_is_there():
    with anyfork.Template().preload("wave") as template:
        template.execute("table = [1, 2, 3]")
        ctx = anyfork.get_context(template)
        assert told(ctx, "'wave' in sys.modules, sys.modules['__main__'].table") == (True, [1, 2, 3])
        assert told(anyfork.get_context(), "'wave' in sys.modules") is False


def test_a_preload_that_is_asked_of_the_context_is_the_template_s():
    with anyfork.Template() as template:
        ctx = anyfork.get_context(template)
        ctx.set_forkserver_preload(["wave"])
        assert told(ctx, "'wave' in sys.modules") is True
    with pytest.raises(ValueError, match="default template"):
        anyfork.get_context().set_forkserver_preload(["wave"], on_error="fail")


@pytest.mark.parametrize("on_error", ["ignore", "warn", "fail"])
def test_a_preload_of_the_context_that_cannot_be_imported_is_treated_as_asked(on_error, tmp_path):
    with open(tmp_path / "stderr", "w") as stderr, anyfork.Template.new_exec(flags=["-Wdefault"], stderr=stderr) as own:
        ctx = anyfork.get_context(own)
        ctx.set_forkserver_preload(["not_a_module", "wave"], on_error=on_error)
        if on_error == "fail":
            with pytest.raises(anyfork.PreloadError, match="not_a_module"):
                ctx.Process(target=functions.nothing).start()
        else:
            assert told(ctx, "'wave' in sys.modules") is True
    warned = "ImportWarning: cannot preload module 'not_a_module': No module named" in (tmp_path / "stderr").read_text()
    assert warned == (on_error == "warn")


def test_a_preload_of_the_context_is_checked():
    ctx = anyfork.get_context()
    with pytest.raises(TypeError, match="strings"):
        ctx.set_forkserver_preload([1])
    with pytest.raises(ValueError, match="on_error must be 'ignore', 'warn' or 'fail', not 'raise'"):
        ctx.set_forkserver_preload(["wave"], on_error="raise")


def test_the_template_stays_usable_for_everything_else():
    with anyfork.Template() as template:
        finish(started(anyfork.get_context(template), functions.nothing))
        with template.fork().run(functions.tell_channel) as process:
            assert process.channel.recv(10) == b"here"
        template.ready()


def test_multiprocessing_knows_the_context_by_its_name():
    ctx = multiprocessing.get_context("anyfork")
    assert ctx is anyfork.get_context()
    assert ctx.get_start_method() == "anyfork"
    assert ctx.get_context() is ctx
    assert isinstance(ctx, AnyforkContext)
    assert issubclass(ctx.Process, AnyforkProcess)


def test_a_context_and_its_process_arrive_elsewhere_as_those_of_the_default_template():
    with anyfork.Template() as template:
        ctx = anyfork.get_context(template)
        assert pickle.loads(pickle.dumps(ctx)) is anyfork.get_context()
        assert "Template" in repr(ctx)
        finish(started(ctx, functions.check_class, ctx.Process, ctx))


def test_a_process_may_be_started_while_others_are(default):
    # From many threads at once, as executors do.
    failures = []

    def start_some():
        try:
            for _ in range(5):
                finish(started(default, functions.nothing))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=start_some) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert failures == []


# --- What initializers of other workers inherit -------------------------------------------------------------------


@pytest.mark.parametrize("method", ["anyfork", "spawn"])
@pytest.mark.parametrize("face", ["Executor", "Worker", "aio.Pool"])
def test_an_initializer_gets_queues_locks_and_shared_memory(method, face):
    ctx = anyfork.get_context() if method == "anyfork" else multiprocessing.get_context(method)
    given = ctx.Queue(), ctx.Lock(), ctx.Event(), ctx.Semaphore(1), ctx.Condition(), ctx.Value("i", 0)
    options = {"initializer": functions.keep, "initargs": given}
    if face == "Executor":
        with anyfork.Executor(max_workers=1, **options) as executor:
            executor.submit(functions.use_kept).result(DEADLINE)
    elif face == "Worker":
        with anyfork.Worker(anyfork.Template(), **options) as worker:
            worker.call(functions.use_kept)
    else:
        anyio.run(use_in_a_pool, options)
    queue, _, event, semaphore, _, value = given
    assert (queue.get(timeout=DEADLINE), event.is_set(), semaphore.acquire(False), value.value) == (1, True, False, 1)
    close(queue)


async def use_in_a_pool(options):
    async with anyfork.aio.Pool(anyfork.aio.Template(), max_workers=1, **options) as pool:
        await pool.call(functions.use_kept)


def test_a_lock_of_the_start_method_fork_says_what_to_make_instead():
    with pytest.raises(anyfork.ArgumentError, match="anyfork.get_context"):
        anyfork.Executor(initializer=print, initargs=(multiprocessing.get_context("fork").Lock(),))


def test_the_thread_that_answers_for_main_waits_while_the_kernel_has_no_memory():
    class Asked:
        def recvmsg(self, *_):
            raise OSError(errno.ENOMEM, "Cannot allocate memory")

    assert main_lookup._hear(Asked())


def test_a_failure_of_the_thread_that_answers_for_main_costs_later_processes_nothing(default, monkeypatch):
    def fail(asked):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(main_lookup, "_hear", fail)
        patch.setattr(threading, "excepthook", lambda _: None)
        with contextlib.closing(main_lookup.lookup.open()) as asking:
            asking.send(b"__main__:name")
        eventually(lambda: main_lookup.lookup._events is None)
    process = default.Process(target=functions.nothing)
    process.start()
    finish(process)

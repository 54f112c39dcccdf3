"""Handles of templates: closed, dropped, used up, moved to other processes, used by many threads."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import child_side
import pytest
from conftest import descendants, eventually, eventually_freed, wait_for_end
from deadlines import DEADLINE
from handles_functions import ask_of_my_own, keep_template, start_my_own, take_and_use
from owner_side import ask, blocking_only, ended, output_of, pipe, read_all, result_of, stopped
from procfs import exists, parent_of, runs

import anyfork

# --- Closing --------------------------------------------------------------------------------------------------------


def test_closing_a_template_ends_it(template):
    pid = template.ready().pid
    template.close()
    wait_for_end(pid)


def test_closing_a_template_twice_is_harmless(template):
    template.close()
    template.close()


def test_a_template_as_context_is_closed_at_the_end(new_template):
    with new_template() as template:
        pid = template.ready().pid
    wait_for_end(pid)


def test_dropping_the_last_reference_ends_a_template(new_template):
    template = new_template().ready()
    pid = template.pid
    del template
    eventually_freed(lambda: not exists(pid), f"process {pid} goes on")


def test_what_was_asked_before_a_handle_was_dropped_is_still_done(new_template):
    with pipe() as (read, write):
        new_template().execute("import os; os.write(args[0].fileno(), b'done')", anyfork.Descriptor(write))
        os.close(write)
        assert os.read(read, 100) == b"done"
        eventually_freed(lambda: readable(read), "the template goes on")
        assert os.read(read, 1) == b""


def test_what_was_asked_before_a_handle_was_closed_is_still_done(template, gate):
    template.execute("import os; os.write(args[0].fileno(), b'done')", gate).close()
    assert os.read(gate.fileno(), 100) == b"done"


def test_a_process_started_from_a_dropped_handle_runs(new_template):
    with pipe() as (read, write):
        file = os.fdopen(write, "wb", 0)
        new_template().fork().fork().start(child_side.write_to, file, b"ran")
        file.close()
        assert os.read(read, 100) == b"ran"
        assert os.read(read, 1) == b""


def test_a_template_that_cannot_take_its_queue_gets_it_after_the_handle_was_dropped(new_template):
    with pipe() as (read, write):
        template = new_template().ready()
        with stopped(template.pid):
            for _ in range(800):  # more than any socket holds
                template.send(b"x" * 60_000)
            template.execute("import os; os.write(args[0].fileno(), b'done')", anyfork.Descriptor(write))
            os.close(write)
            del template
            gc.collect()
        # Nothing waits here but for what the next use of the library writes on.
        eventually(lambda: anyfork.Template().ready() and readable(read))
        assert os.read(read, 100) == b"done"


def readable(fd):
    import select

    return select.select([fd], [], [], 0)[0]


USES = {
    "preload": lambda t: t.preload("json"),
    "execute": lambda t: t.execute("pass"),
    "prepare": lambda t: t.prepare(child_side.add_one),
    "send": lambda t: t.send(1),
    "keep_spares": lambda t: t.keep_spares(1),
    "fork": lambda t: t.fork(),
    "ready": lambda t: t.ready(),
    "start": lambda t: t.start(child_side.enter),
    "run": lambda t: t.run(child_side.enter),
    "run_program": lambda t: t.run_program(["true"]),
    "detach": lambda t: t.detach(),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_closed_template_refuses(template, use):
    template.close()
    with pytest.raises(anyfork.HandleError, match="on a template that was closed"):
        use(template)


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_template_that_a_function_has_taken_over_refuses(template, use):
    with template.start(child_side.until_closed), pytest.raises(anyfork.HandleError, match="was taken over"):
        use(template)


def test_closing_a_template_that_was_taken_over_leaves_the_process_alone(template):
    with template.run(child_side.echo) as process:
        template.close()
        process.channel.sendall(b"alive")
        assert process.channel.recv(100) == b"alive"


def test_a_refused_use_leaves_no_descriptor(template):
    template.close()
    with open(os.devnull) as file, pytest.raises(anyfork.HandleError):
        template.send(file, b"x" * 100_000)


# --- Moving ---------------------------------------------------------------------------------------------------------


def test_a_detached_template_is_taken_over_with_its_queue_and_its_code(template):
    pid = template.execute("g = 17").send("early").ready().pid
    with anyfork.Template.from_socket(template.detach()) as taken:
        assert taken.ready().pid == pid
        taken.send("late")
        assert ask(taken.fork(), "(v, sys.modules['__main__'].g)") == (["early", "late"], 17)


def test_a_detached_template_may_still_be_busy(template):
    template.prepare(child_side.add_one)
    with anyfork.Template.from_socket(template.detach()) as taken:
        assert ask(taken, "sys.modules['child_side'].count") == 1


def test_what_was_queued_is_flushed_before_detach_returns(template):
    template.send(b"x" * 1_000_000, *range(100))
    with anyfork.Template.from_socket(template.detach()) as taken:
        assert ask(taken, "len(v)") == 101


def test_a_detached_handle_is_used_up(template):
    with template.detach(), pytest.raises(anyfork.HandleError, match=r"taken over by detach\(\): fork\(\) it first"):
        template.send(1)


def test_closing_the_socket_of_a_detached_template_ends_it(template):
    pid = template.ready().pid
    template.detach().close()
    wait_for_end(pid)


def test_a_template_that_was_taken_over_tells_failures_and_ends(template):
    with anyfork.Template.from_socket(template.detach()) as taken:
        taken.preload("no_such_module")
        with pytest.raises(anyfork.PreloadError, match="no_such_module"):
            taken.ready(DEADLINE)


def test_a_process_of_a_template_that_was_taken_over_tells_its_end(template):
    with anyfork.Template.from_socket(template.detach()) as taken, taken.run(child_side.leave, 5) as process:
        assert process.wait(DEADLINE).code == 5


def test_a_template_may_move_more_than_once(template):
    for number in range(3):
        template = anyfork.Template.from_socket(template.send(number).detach())
    assert ask(template, "v") == [0, 1, 2]


def test_a_template_moves_to_another_process_which_works_on_with_it(new_template):
    # As upstream's test 04_tofrom: a third process gets the sockets of two others and makes them work.
    with contextlib.ExitStack() as stack:
        reads, third = [], new_template().fork()
        for text in (b"172", b"174"):
            read, write = stack.enter_context(pipe())
            reads.append(read)
            with new_template().fork().execute(f"text = {text!r}").detach() as moved:
                third.send(moved, anyfork.Descriptor(write))
            os.close(write)
        process = third.run(take_and_use)
        with process:
            assert [read_to_end(read) for read in reads] == [b"172", b"174"]


def read_to_end(fd):
    with os.fdopen(os.dup(fd), "rb") as file:
        return file.read()


def test_a_template_that_moved_to_another_process_runs_functions_for_it(new_template):
    with new_template().send("sent before").detach() as moved:
        process = new_template().run(child_side.take_template, moved, "sent after", "v")
    with process:
        assert pickle.loads(read_all(process.channel)) == ["sent before", "sent after"]


def test_a_template_ends_with_the_process_that_it_moved_to(new_template):
    template = new_template().ready()
    pid = template.pid
    with template.detach() as moved:
        process = new_template().run(keep_template, moved)
    with process:
        assert process.channel.recv(1) == b"."
        process.kill()
    wait_for_end(pid)


@pytest.mark.parametrize(
    "make",
    [
        lambda: socket.socket(socket.AF_INET),
        lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
    ],
    ids=["TCP", "datagrams"],
)
def test_from_socket_refuses_a_socket_that_is_no_template(make):
    with make() as sock, pytest.raises(anyfork.ArgumentError, match="needs the socket of a detached template"):
        anyfork.Template.from_socket(sock)


def test_from_socket_refuses_a_closed_socket():
    sock = socket.socket(socket.AF_UNIX)
    sock.close()
    with pytest.raises(anyfork.ArgumentError, match="needs the socket of a detached template"):
        anyfork.Template.from_socket(sock)


def test_a_socket_whose_other_end_is_closed_is_a_template_that_died():
    ours, theirs = socket.socketpair()
    theirs.close()
    with anyfork.Template.from_socket(ours) as template, pytest.raises(anyfork.AnyforkError):
        template.ready(DEADLINE)


# --- Templates in processes -----------------------------------------------------------------------------------------


def test_a_process_may_have_templates_and_processes_of_its_own(template):
    assert result_of(template.run(ask_of_my_own)) == [1, 2, 3]


def test_all_that_a_process_has_started_ends_with_it(template):
    with template.run(start_my_own) as process:
        pids = [int(pid) for pid in process.channel.recv(1000).split()]
        assert all(exists(pid) for pid in pids)
        process.kill()
    eventually(lambda: not any(runs(pid) for pid in pids))


# --- Threads --------------------------------------------------------------------------------------------------------


def test_sixteen_threads_start_processes_of_one_template_at_once(template):
    template.preload("child_side")
    barrier = threading.Barrier(16)

    def start(number):
        barrier.wait(DEADLINE)
        return [ask(template.fork(), "v", number, again) for again in range(4)]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(start, range(16)))
    assert answers == [[[number, again] for again in range(4)] for number in range(16)]


def test_sixteen_threads_make_templates_at_once(new_template):
    barrier = threading.Barrier(16)

    def start(number):
        barrier.wait(DEADLINE)
        return ask(new_template(), "v", number)

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(start, range(16))) == [[number] for number in range(16)]


def test_one_thread_of_many_takes_a_template_over_and_the_others_are_told(template):
    barrier = threading.Barrier(8)

    def start(_):
        barrier.wait(DEADLINE)
        try:
            return template.start(child_side.enter)
        except anyfork.HandleError:
            return None

    with ThreadPoolExecutor(8) as pool:
        started = [process for process in pool.map(start, range(8)) if process is not None]
    assert len(started) == 1
    assert ended(started[0]).code == 0


def test_a_template_may_be_closed_in_another_thread_while_it_is_used(template):
    uses = (
        lambda other: other.fork().ready(DEADLINE).close(),
        lambda other: other.preload("json").ready(DEADLINE),
        lambda other: other.run("builtins:id").wait(DEADLINE),
        lambda other: other.detach().close(),
    )
    with ThreadPoolExecutor(2) as threads:
        for use in uses * 5:
            other = template.fork()
            using = threads.submit(use, other)
            threads.submit(other.close).result(DEADLINE)
            assert using.exception(DEADLINE) is None or isinstance(using.exception(), anyfork.AnyforkError)


def test_many_threads_may_send_to_one_template(template):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(template.send, range(200)))
    assert sorted(ask(template, "v")) == list(range(200))


def test_many_threads_may_wait_for_one_template(template):
    template.prepare(child_side.add_one)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: template.ready(DEADLINE), range(16))) == {template}


def test_the_library_starts_no_thread(template):
    before = threading.active_count()
    with template.run(child_side.until_closed):
        assert threading.active_count() == before


# --- The end of the program -----------------------------------------------------------------------------------------


@pytest.mark.untraced
def test_a_program_may_end_with_everything_still_open():
    program = """
import os, sys, anyfork
sys.path.insert(0, sys.argv[1])
import child_side
kept = [anyfork.Template(), anyfork.Template.new_exec().ready(), anyfork.Template().fork().ready()]
kept.append(kept[2].fork().run(child_side.until_closed))
kept.append(kept[2].fork().start(child_side.until_closed))
print("end")
"""
    assert output_of("-W", "error", "-c", program, os.path.dirname(child_side.__file__)) == "end\n"


@blocking_only
def test_handles_refuse_in_a_forked_copy_of_their_owner(template):
    with template.ready(), template.fork().run(child_side.until_closed) as process:
        with pipe() as (read, write):
            pid = os.fork()
            if pid == 0:
                # Runs in the copy: no test framework from here on.
                said = []
                for use in (lambda: template.send(1), template.fork, process.poll, process.wait, process.kill):
                    try:
                        use()
                    except anyfork.HandleError as error:
                        said.append("forked copy" in str(error))
                os.write(write, repr(said).encode())
                os._exit(0)
            os.waitpid(pid, 0)
            assert os.read(read, 1000) == b"[True, True, True, True, True]"


def test_a_forked_copy_of_the_owner_gets_a_default_template_of_its_own():
    program = """
import os, sys, anyfork
sys.path.insert(0, sys.argv[1])
from owner_side import ask
anyfork.Template().ready().close()
if os.fork() == 0:
    print(ask(anyfork.Template(), "v", "copy"), flush=True)
    os._exit(0)
os.wait()
print(ask(anyfork.Template(), "v", "owner"), flush=True)
"""
    assert output_of("-c", program, os.path.dirname(child_side.__file__)) == "['copy']\n['owner']\n"


def test_only_templates_hang_below_the_owner(template):
    with template.ready(), template.fork().run(child_side.until_closed) as process:
        own_children = [pid for pid in descendants() if parent_of(pid) == os.getpid()]
        assert process.pid not in own_children
        assert template.pid not in own_children

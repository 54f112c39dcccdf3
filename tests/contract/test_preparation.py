"""What is asked of a template happens in it, in order, and belongs to it and to what is forked from it later."""

from __future__ import annotations

import contextlib
import os
import socket
from functools import partial

import child_side
import pytest
from conftest import eventually
from deadlines import DEADLINE
from owner_side import ask, ended, pipe, read_all, result_of
from preparation_functions import Unnamed, append_to_main, sorted_back

import anyfork


def test_the_log_says_once_which_module_processes_import_for_their_function(template, caplog, tmp_path):
    """Start each function twice: Python code forks the first process of a template, the compiled part later ones."""
    caplog.set_level("INFO", "anyfork")
    names = [f"{name}_{tmp_path.name}" for name in ("first", "second", "preloaded")]
    for name in names:
        (tmp_path / f"{name}.py").write_text("def work(channel): channel.close()")
    template.execute("import sys; sys.path.insert(0, args[0])", str(tmp_path)).preload(names[2])
    for name in (*names, *names):
        template.fork().run(f"{name}:work").close()
    assert "_log_import" in {record.funcName for record in caplog.records}  # which is what says it
    told = [record.getMessage() for record in caplog.records if "to import" in record.getMessage()]
    assert [text.partition(" for its function")[0].split()[-1] for text in told] == names[:2]
    assert told[0].endswith(f"template.preload('{names[0]}')")


def test_functions_run_in_an_immortal_template_as_in_any_other(template):
    template.execute("kept = ['a', {'b': 1}]").send(2).immortalize()
    kept = "__import__('__main__').kept"
    for _ in range(3):
        assert ask(template.fork(), f"{kept}.append(v.pop()) or {kept}") == ["a", {"b": 1}, 2]
    assert ask(template.fork(), "print('said') or len(v)") == 1


# --- Arguments ------------------------------------------------------------------------------------------------------


def test_a_function_gets_what_was_sent_and_then_its_own_arguments(template):
    template.send(1, "two").send(b"three")
    assert ask(template, "v", None, 5.0) == [1, "two", b"three", None, 5.0]


def test_a_function_gets_a_connected_socket_first(template):
    with template.run(child_side.echo) as process:
        process.channel.sendall(b"there and back")
        process.channel.shutdown(socket.SHUT_WR)
        assert read_all(process.channel) == b"there and back"


def test_what_the_owner_writes_at_once_is_what_the_function_reads_first(template):
    with template.start(child_side.echo) as process:
        process.ready()
        process.channel.sendall(b"hello\n")
        assert process.channel.recv(100) == b"hello\n"


def test_an_empty_send_adds_no_argument(template):
    assert ask(template.send().send(1).send(), "v") == [1]


def test_values_are_taken_as_they_are_when_they_are_sent(template):
    value = ["before"]
    template.send(value)
    value.append("after")
    assert ask(template, "v") == [["before"]]


def test_a_sent_descriptor_may_be_closed_at_once(template):
    with pipe() as (read, write):
        template.send(anyfork.Descriptor(write))
        os.close(write)
        assert ask(template, "os.write(v[0].fileno(), b'still')") == 5
        assert os.read(read, 100) == b"still"


def test_descriptors_and_strings_keep_their_order(template, tmp_path):
    files = []
    for number in range(4):
        path = tmp_path / str(number)
        path.write_text(f"file {number}")
        files.append(path.open())
    with contextlib.ExitStack() as stack:
        for file in files:
            stack.enter_context(file)
        template.send(files[0], "a").send("b", files[1])
        expression = "[x if isinstance(x, str) else x.read() for x in v]"
        assert ask(template, expression, files[2], "c", files[3]) == [
            "file 0",
            "a",
            "b",
            "file 1",
            "file 2",
            "c",
            "file 3",
        ]


def test_each_clone_has_its_own_queue_and_its_own_code_from_the_fork_on(new_template):
    # template p: s1, F; q is forked, gets s2 and changes g; p gets x; then r is forked.
    expression = "(v[0], v[1].fileno() > 2, v[2:], sys.modules['__main__'].g)"
    with pipe() as (_, write), new_template() as p:
        p.execute("g = 1").send("s1", anyfork.Descriptor(write))
        q = p.fork().send("s2").execute("g = 2")
        p.send("x")
        r = p.fork()
        assert ask(q, expression) == ("s1", True, ["s2"], 2)
        assert ask(r, expression) == ("s1", True, ["x"], 1)
        assert ask(p, expression) == ("s1", True, ["x"], 1)


def test_what_a_template_gets_after_a_fork_does_not_reach_the_clone(template):
    clone = template.send("early").fork()
    template.send("late")
    assert ask(clone, "v") == ["early"]


def test_a_clone_of_a_clone_has_all_that_was_queued_on_the_way(template):
    with template.send(0).fork() as first, first.send(1).fork() as second, second.send(2).fork() as third:
        assert ask(third, "v", 3) == [0, 1, 2, 3]


def test_clones_share_a_sent_file_but_each_has_its_own_descriptor(template):
    with pipe() as (read, write):
        template.send(anyfork.Descriptor(write))
        os.close(write)
        for text in ("one ", "two ", "three"):
            assert ask(template.fork(), "os.write(v[0].fileno(), v[1]) and v[0].close()", text.encode()) is None
        template.close()
        assert os.read(read, 100) == b"one two three"
        assert os.read(read, 1) == b""


# --- Steps ----------------------------------------------------------------------------------------------------------


def test_preload_imports_a_module_once_for_all_forks(template, tmp_path):
    (tmp_path / "costly.py").write_text("import os\nimported_by = os.getpid()\n")
    template.execute("import sys; sys.path.insert(0, args[0])", str(tmp_path)).preload("costly").ready()
    expression = "sys.modules['costly'].imported_by"
    assert {ask(template.fork(), expression) for _ in range(3)} == {template.pid}


def test_preload_imports_submodules_and_several_modules_in_order(template):
    template.preload("json.tool", "wave")
    assert ask(template, "{'json.tool', 'json', 'wave'} <= set(sys.modules)")


def test_execute_gets_its_arguments(template):
    template.execute("total = sum(args)", 1, 2, 3)
    assert ask(template, "sys.modules['__main__'].total") == 6


def test_execute_hands_over_descriptors(template):
    with pipe() as (read, write):
        template.execute("import os; os.write(args[0].fileno(), b'173')", anyfork.Descriptor(write)).ready()
        assert os.read(read, 100) == b"173"


def test_a_function_of_executed_code_runs_by_its_name(template):
    template.execute("def twice(channel, text):\n    channel.sendall(text * 2)")
    with template.run("twice", b"ab") as process:
        assert read_all(process.channel) == b"abab"


def test_code_in_execute_sees_what_earlier_code_has_defined(template):
    template.execute("x = 1").execute("def f():\n    return x + 1").execute("y = f()")
    assert ask(template, "sys.modules['__main__'].y") == 2


def test_prepare_calls_a_function_in_the_template(template):
    template.prepare(child_side.add_one).prepare("child_side:add", 10)
    assert ask(template, "sys.modules['child_side'].count") == 11


def test_prepare_calls_a_closure(template):
    value = "from the owner"

    def define():
        import builtins

        builtins.defined_here = value

    template.prepare(define)
    assert ask(template, "defined_here") == "from the owner"


def test_steps_happen_in_the_order_in_which_they_are_asked(template):
    template.execute("order = ['execute']").prepare(append_to_main, "prepare").execute("order.append('again')")
    assert ask(template, "sys.modules['__main__'].order") == ["execute", "prepare", "again"]


def test_a_step_changes_later_forks_only(template):
    before = template.fork()
    template.prepare(child_side.add_one)
    after = template.fork()
    assert ask(before, "__import__('child_side').count") == 0
    assert ask(after, "__import__('child_side').count") == 1


def test_what_a_process_changes_does_not_reach_the_template(template):
    template.preload("child_side")
    ended(template.fork().run(lambda channel: child_side.add_one()))
    assert ask(template, "sys.modules['child_side'].count") == 0


def test_output_of_a_step_is_not_repeated_by_the_forks(template, tmp_path):
    with (tmp_path / "out").open("w+") as out:
        with template.fork(stdout=out) as writer:
            writer.execute("print('once', end=' ')")
            for _ in range(3):
                ended(writer.fork().run(child_side.enter))
            writer.ready()
        eventually(lambda: (tmp_path / "out").read_text())
        assert (tmp_path / "out").read_text() == "once "


# --- ready, pid, repr -----------------------------------------------------------------------------------------------


def test_ready_returns_the_template_itself_as_often_as_asked(template):
    assert template.ready() is template.ready() is template


def test_ready_waits_for_the_steps_before_it(template, gate):
    template.execute("import os; os.write(args[0].fileno(), b'done')", gate).ready()
    os.set_blocking(gate.fileno(), False)
    assert os.read(gate.fileno(), 100) == b"done"


def test_ready_with_a_timeout_gives_up_and_the_template_goes_on(template, gate):
    template.prepare(child_side.stay_when_decoded, gate)
    with pytest.raises(TimeoutError, match="not ready within 0.05 seconds"):
        template.ready(0.05)
    os.write(gate.fileno(), b"x")
    assert template.ready(DEADLINE) is template


def test_the_pid_is_known_after_ready_and_is_that_of_the_process(template):
    assert template.ready().pid == ask(template, "os.getpid()")


def test_a_process_has_the_pid_of_its_template(template):
    pid = template.ready().pid
    with template.run(child_side.until_closed) as process:
        assert process.pid == pid


def test_a_repr_says_pid_and_forks(template):
    template.ready().fork().close()
    assert repr(template).startswith(f"<Template pid={template.pid} preparing forks=1 compiled=")


# --- Forks ----------------------------------------------------------------------------------------------------------


def test_a_fork_is_a_child_of_its_template(template):
    assert ask(template.fork(), "os.getppid()") == template.ready().pid


def test_a_template_that_was_forked_lets_a_clone_run_the_function(template):
    pid = template.ready().pid
    with template.fork() as fork, template.run(child_side.until_closed) as process:
        assert process.pid not in (pid, fork.ready().pid)


@pytest.mark.untraced
def test_fifty_generations_work_and_cost_no_stack(template):
    depths = []
    with contextlib.ExitStack() as line:
        for generation in range(50):
            template = line.enter_context(template.send(generation).fork())
            if generation in (0, 49):
                depths.append(ask(template.fork(), "len(__import__('inspect').stack())"))
        values = result_of(template.fork().start("child_side:answer", "v"))
    assert values == list(range(50))
    assert depths[0] == depths[1]


def test_many_processes_of_one_template_run_at_the_same_time(template):
    processes = [template.fork().start(child_side.say_and_stay) for _ in range(30)]
    with contextlib.ExitStack() as stack:
        for process in processes:
            stack.enter_context(process)
        assert all(process.channel.recv(1) == b"." for process in processes)
        assert len({process.pid for process in processes}) == 30


def test_the_end_of_one_process_is_seen_while_its_siblings_live(template):
    with template.fork().run(child_side.say_and_stay) as first, template.fork().run(child_side.say_and_stay) as second:
        assert first.channel.recv(1) + second.channel.recv(1) == b".."
        first.kill()
        assert first.channel.recv(1) == b""


def test_a_template_forks_without_end(template):
    assert [ask(template.fork(), "v", number) for number in range(20)] == [[number] for number in range(20)]


# --- Functions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("child_side:Holder.static", (1,)),
        (child_side.Holder.static, (1,)),
        (child_side.Holder.of_class, ("Holder", 1)),
        (child_side.Holder().method, ("self", 1)),
        (child_side.Holder(), ("called", 1)),
    ],
    ids=["name", "static method", "class method", "bound method", "callable object"],
)
def test_anything_that_can_be_called_runs(template, function, expected):
    assert result_of(template.run(function, 1)) == expected


def test_a_partial_carries_keyword_arguments(template):
    assert result_of(template.run(partial(sorted_back, reverse=True), [2, 3, 1])) == [3, 2, 1]


@pytest.mark.parametrize("function", [partial(Unnamed()), Unnamed()], ids=["partial", "object"])
def test_an_object_without_a_name_runs(template, function):
    assert result_of(template.run(function, [2, 1])) == [1, 2]


def test_a_lambda_runs(template):
    with template.run(lambda channel, text: channel.sendall(text), b"from a lambda") as process:
        assert read_all(process.channel) == b"from a lambda"


def test_a_closure_runs_with_what_it_closes_over(template):
    numbers = {"a": [1, 2]}

    def closure(channel):
        channel.sendall(repr(numbers).encode())

    with template.run(closure) as process:
        assert read_all(process.channel) == b"{'a': [1, 2]}"


def test_an_object_of_a_local_class_travels_with_its_class(template):
    class Point:
        def __init__(self, x):
            self.x = x

        def doubled(self):
            return self.x * 2

    assert ask(template, "(v[0].doubled(), type(v[0]).__name__)", Point(21)) == (42, "Point")


def test_what_a_preload_registers_for_the_end_does_not_happen_at_the_first_fork(template):
    template.execute("import atexit\nran = []\natexit.register(ran.append, 1)")
    assert ask(template.fork(), "sys.modules['__main__'].ran") == []


def test_what_a_preload_registers_for_the_end_of_threads_does_not_happen_at_the_first_fork(template):
    template.preload("concurrent.futures.thread")
    assert ask(template.fork(), "__import__('threading')._SHUTTING_DOWN") is False

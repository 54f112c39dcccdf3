"""The owner's interpreter ends, or handles go in odd order: promptly, quietly, completely."""

import itertools
import os
import subprocess
import sys

import faulty
import pytest
from programs import Program

from anyfork import Descriptor, Template

STRICT = ("-W", "error", "-X", "dev")
OPEN = {
    "templates": "kept = [Template(), Template().ready(), Template.new_exec(), Template.new_exec().ready()]",
    "processes": "kept = [Template().run(faulty.echo), Template().start(faulty.echo)]",
    "a process whose channel was used": """
kept = Template().run(faulty.echo)
kept.channel.sendall(b"x")
kept.channel.recv(1)
""",
    "a template in a step": "kept = Template().execute('import signal\\nwhile True: signal.pause()')",
    "a process that decodes": "kept = Template().start(faulty.echo, faulty.Decoding(faulty.hang, Descriptor(1)))",
    "failures": "kept = [Template().preload('no_such_module'), Template().fork().preload('no_such_module').fork()]",
    "a thread that waits": """
process = Template().run(faulty.silent)
threading.Thread(target=process.wait, daemon=True).start()
""",
    "cycles": """
class Node: pass
kept = Node()
kept.me, kept.template, kept.process = kept, Template(), Template().run(faulty.silent)
""",
    "a full queue": """
kept = Template().ready()
stop(kept.pid)
for _ in range(300):
    kept.send(bytes(60_000))
""",
    "an exception that holds handles": """
def lose():
    template, process = Template().ready(), Template().run(faulty.silent)
    raise SystemExit(0)
lose()
""",
    "nothing but the default template": "Template().ready().close()",
    "the library, unused": "",
}


@pytest.mark.parametrize("scene", OPEN)
def test_an_interpreter_that_exits_with_everything_open_says_nothing(scene):
    # No warning, no traceback, nothing unraisable.
    with Program("say(1)" + "\n" + OPEN[scene].strip("\n"), flags=STRICT) as program:
        program.read()
        assert program.wait() == 0
        assert program.errors() == ""


@pytest.mark.parametrize("scene", OPEN)
def test_an_interpreter_that_exits_with_everything_open_leaves_nothing(scene):
    with Program("say(1)" + "\n" + OPEN[scene].strip("\n")) as program:
        program.read()
        assert program.wait() == 0
        program.wait_for(())


HANDLES = ("template", "fork", "process", "other")


@pytest.mark.parametrize("order", [*itertools.permutations(HANDLES)], ids="-".join)
def test_handles_may_be_dropped_in_any_order(order):
    # Whatever is left does what it did; conftest proves that nothing stays.
    handles = {"template": Template()}
    handles["fork"] = handles["template"].fork()
    handles["process"] = handles["fork"].fork().run(faulty.echo)
    channel = handles["process"].channel
    handles["other"] = handles["template"].fork().start(faulty.echo)
    for name in order:
        del handles[name]
        channel.sendall(b"x")
        assert channel.recv(1) == b"x"
    channel.close()


@pytest.mark.parametrize("order", [*itertools.permutations(HANDLES)], ids="-".join)
def test_handles_may_be_closed_in_any_order(order):
    template = Template()
    fork = template.fork()
    process = fork.fork().run(faulty.echo)
    other = template.fork().start(faulty.echo)
    handles = {"template": template, "fork": fork, "process": process, "other": other}
    for name in order:
        handles[name].close()
        handles[name].close()
    assert template.pid is None or template.pid > 0


def test_a_process_handle_that_is_dropped_before_the_process_is_ready_does_not_stop_it():
    """Configure and forget."""
    source = """
read, write = os.pipe()
Template().start(faulty.write_to, Descriptor(write))
os.close(write)
say(os.read(read, 100).decode())
"""
    with Program(source, flags=STRICT) as program:
        assert program.read() == "entered"
        assert program.wait() == 0
        assert program.errors() == ""


@pytest.mark.parametrize("how", ["dropped", "closed"])
def test_a_process_sees_the_end_of_its_channel_when_its_handle_goes_before_anybody_has_waited(how):
    # An end, not a reset of the connection for what it has reported and nobody has read.
    read, write = os.pipe()
    process = Template().start(faulty.tell_end, Descriptor(write))
    os.close(write)
    assert os.read(read, 1) == b"."
    if how == "closed":
        process.close()
    del process
    assert os.read(read, 100) == b"b''"
    os.close(read)


def test_a_channel_outlives_its_process_handle():
    # It belongs to the caller.
    channel = Template().run(faulty.echo).channel
    channel.sendall(b"x")
    assert channel.recv(1) == b"x"
    channel.close()


def test_a_process_handle_that_is_dropped_closes_a_channel_that_nobody_else_has():
    # The process sees its end; a ResourceWarning would be an error here.
    template = Template()
    process = template.fork().run(faulty.echo)
    process.channel.sendall(b"x")
    assert process.channel.recv(1) == b"x"
    del process
    template.close()


def test_handles_in_a_cycle_are_collected():
    # From inside the collector, in no particular order.
    import gc

    class Node:
        pass

    for _ in range(5):
        node = Node()
        node.me = node
        node.template = Template()
        node.process = node.template.fork().run(faulty.echo)
        node.channel = node.process.channel
        node.channel.close()
    del node
    gc.collect()


def test_a_handle_that_the_collector_drops_in_the_middle_of_a_call_harms_nobody():
    # Collections at every allocation, so inside of everything that the library does.
    source = """
class Node: pass
gc.set_threshold(1, 1, 1)
codes = []
for _ in range(5):
    node = Node()
    node.me, node.template = node, Template()
    node.process = node.template.fork().start(faulty.end_with, 3)
    node = None
    with Template().run(faulty.end_with, 3) as process:
        pass
    codes.append(process.returncode)
if sys.version_info[:2] == (3, 12):
    gc.set_threshold(700)  # 3.12.1 collects inside a collection, out of a finalizer at the program's end, and crashes
say(codes)
"""
    with Program(source, flags=STRICT) as program:
        assert program.read() == [3] * 5
        assert program.wait() == 0
        assert program.errors() == ""


def test_a_failure_that_nobody_has_waited_for_is_told_while_the_program_runs():
    source = "import anyfork; anyfork.Template().preload('no_such_module').close(); input()"
    with subprocess.Popen(
        [sys.executable, "-c", source], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        said = program.stderr.readline()
        program.communicate("\n")
    assert said.startswith("anyfork: a template that nobody waited for failed: ModuleNotFoundError")

"""What a process must not share with its siblings: descriptors, secrets, randomness, output, exit handlers."""

import os
import select
import socket
import sys

import faulty
import pytest
from deadlines import DEADLINE
from programs import Program

from anyfork import CHANNEL, Descriptor, Template


def answer(template, expression):
    """Return the value of an expression in a process of the template."""
    with template.fork().run(faulty.send_value, expression) as process:
        return process.channel.makefile().read()


# --- Descriptors ---


def test_the_end_of_one_process_is_seen_while_its_siblings_live():
    """Check that no sibling holds a copy of the channel."""
    with Template() as template:
        processes = [template.fork().run(faulty.echo) for _ in range(5)]
        processes[1].kill()
        assert processes[1].channel.recv(1) == b""
        assert all(not select.select([process], [], [], 0)[0] for process in processes if process is not processes[1])
        for process in processes:
            process.channel.close()
            process.wait(DEADLINE)
            process.close()


def test_the_end_of_a_process_is_seen_while_its_younger_siblings_and_nested_templates_live():
    with Template() as template:
        first = template.fork().run(faulty.end_when_told, 0)
        nested = template.fork().fork().ready()
        last = template.fork().run(faulty.echo)
        first.channel.sendall(b"x")
        first.channel.recv(1)
        assert first.channel.recv(1) == b""
        for process in (first, last):
            process.channel.close()
            process.wait(DEADLINE)
            process.close()
        nested.close()


def test_a_closed_channel_is_seen_by_its_process_while_siblings_live():
    """Check that no sibling holds the owner's end of the channel."""
    with Template() as template:
        first, second = (template.fork().run(faulty.echo) for _ in range(2))
        first.channel.close()
        assert first.wait(DEADLINE).code == 0
        second.channel.close()
        second.wait(DEADLINE)
        first.close()
        second.close()


@pytest.mark.parametrize("siblings", [0, 1, 20])
def test_a_process_has_no_descriptors_but_its_own(siblings):
    # Standard streams, channel, lifeline, the way of its last words; the listing itself is one more. And
    # the resource tracker of its owner, which another test may have started.
    with Template() as template:
        others = [template.fork().run(faulty.echo) for _ in range(siblings)]
        names = answer(template, "sorted(map(int, os.listdir('/proc/self/fd')))")
        for other in others:
            other.channel.close()
            other.wait(DEADLINE)
            other.close()
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    tracked = tracker is not None and tracker._resource_tracker._fd is not None
    assert len(eval(names)) <= 7 + tracked, names


def test_descriptors_of_one_start_are_in_no_sibling():
    read, write = os.pipe()
    with Template() as template:
        process = template.fork().run(faulty.write_to, Descriptor(write))
        sibling = template.fork().run(faulty.echo)
        process.wait(DEADLINE)
        os.close(write)
        assert os.read(read, 100) == b"entered"
        assert os.read(read, 100) == b""
        sibling.channel.close()
        sibling.wait(DEADLINE)
        process.close()
        sibling.close()
    os.close(read)


def test_descriptors_that_the_owner_did_not_send_are_in_no_template():
    """Check that descriptors which the owner made inheritable are closed, too."""
    source = """
read, write = os.pipe()
os.set_inheritable(write, True)
templates = [Template().ready(), Template.new_exec().ready(), Template().fork().ready()]
os.close(write)
say(os.read(read, 1) == b"")
"""
    with Program(source) as program:
        assert program.read() is True


def test_a_process_that_ends_does_not_shut_down_a_connection_that_others_have():
    """Check that the end of a process closes its copy of the connection and does not shut it down."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
    with ours, peer, Template().send(ours) as template:
        for _ in range(3):
            template.fork().run(faulty.end_with_anything).wait(DEADLINE)
        assert not select.select([peer], [], [], 0.05)[0]
        ours.sendall(b"still open")
        assert peer.recv(100) == b"still open"


# --- Secrets ---


def secret():
    """Return a marker in two parts, which is nowhere in memory as a whole but where it was sent."""
    return os.urandom(8).hex().encode(), os.urandom(8).hex().encode()


def memory_count(template, parts):
    with template.fork().run(faulty.find_in_memory, *parts) as process:
        return int(process.channel.recv(100))


@pytest.mark.parametrize("size", [0, 200_000])
def test_the_arguments_of_one_process_are_not_in_the_memory_of_a_later_sibling(size):
    # A template never sees them, however they travel.
    first, second = secret()
    with Template() as template:
        template.fork().run(faulty.end_with_anything, first + second, bytes(size)).wait(DEADLINE)
        assert memory_count(template, (first, second)) == 0


@pytest.mark.parametrize("compiled", ["0", ""])
def test_the_environment_of_one_process_is_not_in_the_memory_of_a_later_sibling(compiled):
    # Attributes carry secrets too. The compiled part does not use the memory again soon, so they are overwritten.
    first, second = secret()
    with Template.new_exec(env={**os.environ, "ANYFORK_COMPILED": compiled}) as template:
        fork = template.fork(env={"TOKEN": (first + second).decode()})
        fork.run(faulty.end_with_anything).wait(DEADLINE)
        assert memory_count(template, (first, second)) == 0


def test_arguments_that_were_sent_to_the_template_itself_are_in_its_forks():
    # The search above finds what is there.
    first, second = secret()
    with Template() as template:
        template.send(first + second)
        with template.fork().run(faulty.find_in_memory_too, first, second) as process:
            assert int(process.channel.recv(100)) > 0


# --- Randomness ---

SOURCES = {
    "random": "random.random()",
    "a random.Random of the module": "random._inst.getrandbits(64)",
    "numpy's global generator": "numpy.random.random()",
    "numpy's default generator": "numpy.random.default_rng().random()",
    "numpy's normal numbers, of which it makes two": "numpy.random.standard_normal()",
    "random's normal numbers, of which it makes two": "random.gauss(0, 1)",
    "ssl": "ssl.RAND_bytes(8)",
    "uuid1": "uuid.uuid1().node, uuid.uuid1().clock_seq",
    "uuid4": "uuid.uuid4()",
    "secrets": "secrets.token_hex()",
    "os.urandom": "os.urandom(8)",
    "random.SystemRandom": "random.SystemRandom().random()",
    "multiprocessing's authkey": "bytes(multiprocessing.current_process().authkey)",
    "tempfile": "next(tempfile._get_candidate_names())",
}
PRELOADS = ["random", "uuid", "secrets", "multiprocessing", "tempfile"]


@pytest.mark.parametrize("source", SOURCES)
def test_two_processes_of_a_template_draw_different_randomness(source):
    # With generators that were used in the template already.
    expression = SOURCES[source]
    with Template().preload(*PRELOADS, *["numpy"] * ("numpy" in expression)) as template:
        template.prepare(faulty.evaluate, expression)
        assert len({answer(template, expression) for _ in range(3)}) == 3


@pytest.mark.parametrize("source", SOURCES)
def test_a_process_and_that_of_a_nested_template_draw_different_randomness(source):
    expression = SOURCES[source]
    with Template().preload(*PRELOADS, *["numpy"] * ("numpy" in expression)) as template:
        template.prepare(faulty.evaluate, expression)
        with template.fork() as nested:
            assert len({answer(template, expression), answer(nested, expression), answer(nested, expression)}) == 3


STREAMS = {
    "random": ("random.seed(5)", "random.random()"),
    "random's second normal number": ("random.seed(5), random.gauss(0, 1)", "random.gauss(0, 1)"),
    "numpy": ("numpy.random.seed(5)", "numpy.random.random()"),
    "numpy's second normal number": ("numpy.random.seed(5), numpy.random.randn()", "numpy.random.randn()"),
    "another generator in numpy's place": (
        "numpy.random.set_bit_generator(numpy.random.PCG64(5))",
        "numpy.random.random()",
    ),
}


@pytest.mark.parametrize("stream", STREAMS)
def test_no_process_goes_on_with_the_random_stream_of_its_template(stream):
    # With a seeded template: the next number of its stream is known.
    seeding, drawing = STREAMS[stream]
    names = ["numpy.random"] if "numpy" in seeding else ["random"]
    with Template().preload(*names) as template:
        template.prepare(faulty.evaluate, seeding)
        drawn = [answer(template, drawing) for _ in range(3)]
        next_of_template = answer(template, f"({seeding}, {drawing})[1]")
        assert len({*drawn, next_of_template}) == 4


# --- Output and exit handlers ---


def printed(template, function, *args):
    """Return what a process of the template writes to its standard output."""
    with template.fork(stdout=CHANNEL) as fork, fork.run(function, *args) as process:
        return process.channel.makefile().read()


def test_what_a_template_has_buffered_is_not_written_again_by_its_processes():
    read, write = os.pipe()
    with open(write, "wb") as file, Template().fork(stdout=file) as template:
        template.execute("import sys; sys.stdout.write('once ')")
        for _ in range(5):
            template.fork().run(faulty.print_text, "child ").wait(DEADLINE)
    template.close()
    with open(read) as output:
        assert sorted(output.read().split()) == ["child"] * 5 + ["once"]


def test_what_a_process_prints_is_flushed_at_its_end():
    with Template() as template:
        assert printed(template, faulty.print_text, "the end") == "the end"


HANDLER = "import atexit, os; atexit.register(os.write, 1, b'of the template ')"


def test_exit_handlers_of_the_template_do_not_run_in_its_processes():
    with Template().execute(HANDLER) as template:
        assert printed(template, faulty.print_text, "x") == "x"


def test_exit_handlers_of_the_process_run_at_its_end():
    """Check that the handlers run after the function and before the streams are flushed."""
    with Template().execute(HANDLER) as template:
        assert printed(template, faulty.register_handler) == "function handler"


def test_exit_handlers_of_a_template_run_once_at_the_templates_own_end():
    """Check that the end of a template runs them like the end of any program."""
    read, write = os.pipe()
    with open(write, "wb") as file, Template().fork(stdout=file) as template:
        template.execute(HANDLER)
        for _ in range(3):
            template.fork().run(faulty.end_with_anything).wait(DEADLINE)
    template.close()
    with open(read) as output:
        assert output.read() == "of the template "


def test_finalizers_of_the_template_do_not_run_in_its_processes():
    # Weakref.finalize hooks into the exit, too.
    code = """
import os, weakref
class Thing: pass
thing = Thing()
weakref.finalize(thing, os.write, 1, b'finalized')
"""
    with Template().execute(code) as template:
        assert printed(template, faulty.print_text, "x") == "x"


def test_finalizers_of_the_process_run_at_its_end():
    with Template().preload("weakref") as template:
        assert printed(template, faulty.register_finalizer) == "finalized"

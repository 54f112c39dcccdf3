"""What AnyEvent::Fork's own tests assert of processes, asserted of ours."""

from __future__ import annotations

import subprocess
import sys

import pytest
from deadlines import DEADLINE
from original_functions import receive_all
from original_owner import Pipe, Watch
from procfs import parent_of

import anyfork

# --- 00_load --------------------------------------------------------------------------------------------------------


def test_the_owners_side_loads_in_a_fresh_interpreter():
    program = "import anyfork; print(anyfork.Template.__name__)"
    assert subprocess.check_output([sys.executable, "-W", "error", "-c", program]) == b"Template\n"


def test_the_childs_side_loads_in_a_fresh_interpreter_without_the_owners_side():
    program = "import sys, _anyfork_child.__main__; print('anyfork' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-W", "error", "-c", program]) == b"False\n"


# --- 03_new ---------------------------------------------------------------------------------------------------------


def test_all_templates_of_a_program_are_forked_from_one_default_template():
    with anyfork.Template().ready() as one, anyfork.Template().ready() as other:
        assert parent_of(one.pid) == parent_of(other.pid)


SAY_173 = "import os; os.write(args[0].fileno(), b'173')"


def test_what_code_in_a_template_writes_to_a_pipe_it_was_sent_is_there_while_the_template_lives():
    with Pipe() as pipe, anyfork.Template().execute(SAY_173, pipe.write):
        pipe.write.close()
        assert pipe.readable(DEADLINE)
        assert pipe.read.read(100) == b"173"


def test_a_pipe_ends_when_the_template_that_was_sent_its_other_end_is_dropped():
    with Pipe() as pipe:
        template = anyfork.Template().execute(SAY_173, pipe.write).ready()
        del template
        assert pipe.take() == b"173"


# --- 04_tofrom ------------------------------------------------------------------------------------------------------

# Runs in the third process: it works on with two templates that it did not make, and tells when each has done its part.
WORK_ON = """
import anyfork

first_socket, first_pipe, second_socket, second_pipe, first_code, second_code = args
first, second = anyfork.Template.from_socket(first_socket), anyfork.Template.from_socket(second_socket)
first.execute(first_code, first_pipe).ready()
second.execute(second_code, second_pipe).ready()
first_pipe.close()
second_pipe.close()
"""
BEGIN = "import os; said = b'1'"  # queued in the first before it is given away
SAY_172 = "os.write(args[0].fileno(), said + b'72')"
SAY_174 = "import os; os.write(args[0].fileno(), b'174')"


class Three:
    """Two templates, one with queued code and one idle, and a third to which they are given."""

    def __init__(self) -> None:
        first, second = anyfork.Template().execute(BEGIN), anyfork.Template().ready()
        self.watches = (Watch(first.ready().pid), Watch(second.pid))
        first.execute("said += b''")
        self.pipes = (Pipe(), Pipe())
        self.given = (first.detach(), self.pipes[0].write, second.detach(), self.pipes[1].write)

    def gone(self) -> None:
        """Give up what was sent."""
        for file in self.given:
            file.close()

    def close(self) -> None:
        """Close everything."""
        self.gone()
        for pipe in self.pipes:
            pipe.read.close()
        for watch in self.watches:
            watch.__exit__()


@pytest.fixture
def three():
    three = Three()
    yield three
    three.close()


def test_a_template_works_on_with_two_templates_whose_sockets_it_was_sent(three):
    third = anyfork.Template().execute(WORK_ON, *three.given, SAY_172, SAY_174)
    three.gone()
    third.ready()
    third.detach().close()
    assert [pipe.take() for pipe in three.pipes] == [b"172", b"174"]


def test_templates_given_to_another_process_live_as_long_as_that_process_and_no_longer(three):
    third = anyfork.Template().execute(WORK_ON, *three.given, SAY_172, SAY_174)
    three.gone()
    third.ready()
    assert [watch.ended for watch in three.watches] == [False, False]
    third.close()
    for watch in three.watches:
        watch.wait()


def test_a_running_process_works_on_with_two_templates_whose_sockets_it_was_sent_by_alternating_sends(three):
    third = anyfork.Template().preload("anyfork", "original_functions")
    for file in three.given:
        third.send(file)
    three.gone()
    with third.run("original_functions:finish_two", SAY_172) as process:
        process.channel.settimeout(DEADLINE)
        pids = process.channel.recv(100)
    assert pids == " ".join(str(watch.pid) for watch in three.watches).encode()
    assert [pipe.take() for pipe in three.pipes] == [b"172", b"174"]


def test_a_template_given_away_keeps_what_was_done_and_queued_in_it_before():
    template = anyfork.Template().execute("words = ['from']").execute("words += ['before']")
    again = anyfork.Template.from_socket(template.send("queued").detach())
    say = "def say(channel, queued):\n    channel.sendall(' '.join([*words, queued]).encode())"
    with again.execute(say).run("say") as process:
        assert receive_all(process.channel) == b"from before queued"


def test_a_template_is_taken_over_in_turn_by_a_second_and_a_third_owner():
    template = anyfork.Template().execute("owners = 1").ready()
    pid = template.pid
    for _ in range(3):
        template = anyfork.Template.from_socket(template.detach()).execute("owners += 1")
    say = "def say(channel):\n    channel.sendall(b'%d' % owners)"
    assert template.ready().pid == pid
    with template.execute(say).run("say") as process:
        assert receive_all(process.channel) == b"4"


def test_a_detached_template_whose_socket_is_closed_ends():
    template = anyfork.Template().ready()
    with Watch(template.pid) as watch:
        template.detach().close()
        watch.wait()

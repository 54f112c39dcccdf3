"""Standard streams of a process that are pipes: files of its handle, and communicate(), in the blocking face."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import pytest
from conftest import eventually
from deadlines import DEADLINE
from owner_side import forked_template

import anyfork
from _anyfork_child.wire.descriptors import Owned
from anyfork import CHANNEL, DEVNULL, PIPE, STDOUT, aio
from anyfork._blocking.streams import _reader

ALL = {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE}
ECHO = "import os, sys; text = sys.stdin.read(); sys.stdout.write(text * 2); sys.stderr.write(text)"
BOTH = "import os; os.write(1, b'out '); os.write(2, b'err')"


template = pytest.fixture(forked_template)


def test_more_than_pipes_hold_goes_both_ways(template):
    with template.fork(**ALL).run_code(ECHO) as process:
        data = bytes(range(32, 127)) * 10_000
        assert process.communicate(data, DEADLINE) == (data * 2, data)
        assert process.returncode == 0


def test_the_streams_are_files(template):
    code = "import sys; print(sys.stdin.readline().upper(), end='', flush=True); sys.exit(sys.stdin.readline())"
    with template.fork(**ALL).run_code(code) as process:
        process.stdin.write(b"one\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"ONE\n"
        process.stdin.write(b"two")
        process.stdin.close()
        assert process.stderr.read() == b"two\n"
        assert process.wait(DEADLINE).code == 1
    assert process.stdout.closed


def test_a_file_that_two_threads_have_made_reads_on(template):
    with template.fork(stdout=PIPE).run_code("print('said')") as process:
        files = []

        def make(end):
            files.append(process.stdout)  # by another thread, in the middle
            return _reader(end)

        files.append(process._link.streams.open("stdout", make))
        assert files[0] is files[1]
        assert process.stdout.read() == b"said\n"
    assert process.stdout.closed


def test_a_function_writes_to_the_pipes_of_its_process(template):
    with template.fork(stdout=PIPE).run("child_side:print_unflushed", "said", "") as process:
        assert process.communicate(timeout=DEADLINE) == (b"said", None)
        assert (process.stdin, process.stderr) == (None, None)


@pytest.mark.parametrize(
    ("stdout", "expected"), [(PIPE, b"out err"), (CHANNEL, b"out err"), (DEVNULL, b""), ("file", b"out err")]
)
def test_stderr_goes_where_stdout_goes(template, stdout, expected, tmp_path):
    with open(tmp_path / "file", "w+b") as file:
        with template.fork(stdout=file if stdout == "file" else stdout, stderr=STDOUT).run_code(BOTH) as process:
            if stdout == CHANNEL:
                found = process.channel.makefile("rb").read()
            else:
                found = process.communicate(timeout=DEADLINE)[0] or b""
        assert found + (tmp_path / "file").read_bytes() == expected


@pytest.mark.parametrize("stdout", [PIPE, CHANNEL])
def test_stderr_goes_where_the_template_s_stdout_goes(template, stdout):
    with template.fork(stdout=stdout) as above, above.fork(stderr=STDOUT).run_code(BOTH) as process:
        if stdout == CHANNEL:
            assert process.channel.makefile("rb").read() == b"out err"
        else:
            assert process.wait(DEADLINE).code == 0
            with above.run_code("print('of the template')") as own:
                assert own.communicate(timeout=DEADLINE) == (b"out errof the template\n", None)


def test_a_clone_that_is_taken_over_instead_has_the_pipes(template):
    forked = template.fork(stdout=PIPE)
    with forked.fork(stdout=DEVNULL).run_code("pass"), forked.run_code("print('here')") as process:
        assert process.communicate(timeout=DEADLINE) == (b"here\n", None)


def test_a_new_interpreter_has_pipes():
    with anyfork.Template.new_exec(stdout=PIPE, stderr=STDOUT).run_code(BOTH) as process:
        assert process.communicate(timeout=DEADLINE) == (b"out err", None)


def test_after_a_timeout_nothing_is_lost(template):
    read, write = os.pipe()
    with template.fork(stdin=read, stdout=PIPE).run_code("print('one', flush=True); input(); print('two')") as process:
        os.close(read)
        with pytest.raises(TimeoutError, match="communicate"):
            process.communicate(timeout=0)
        os.write(write, b"\n")
        os.close(write)
        assert process.communicate(timeout=DEADLINE) == (b"one\ntwo\n", None)
        assert process.communicate() == (b"one\ntwo\n", None)
        with pytest.raises(anyfork.ArgumentError, match="without input"):
            process.communicate(b"more")


def test_a_limit_bounds_what_is_kept_and_the_process_goes_on(template):
    with template.fork(stdout=PIPE, stderr=PIPE).run_code("print('x' * 300_000)") as process:
        with pytest.raises(anyfork.OutputLimitError, match="more than 1000 bytes of stdout") as caught:
            process.communicate(timeout=DEADLINE, limit=1000)
        assert (caught.value.stream, process.poll()) == ("stdout", None)
        assert process.communicate(timeout=DEADLINE, limit=300_001) == (b"x" * 300_000 + b"\n", b"")


def test_what_was_read_into_a_buffer_is_not_lost(template):
    with template.fork(**ALL).run_code("print('one'); print('two'); print(input())") as process:
        process.stdin.write(b"thr")
        assert process.stdout.readline() == b"one\n"
        assert process.communicate(b"ee\n", DEADLINE) == (b"two\nthree\n", b"")


def test_a_process_may_leave_its_input_unread(template):
    with template.fork(stdin=PIPE).run_code("raise SystemExit(3)") as process:
        assert process.communicate(b"x" * 300_000, DEADLINE) == (None, None)
        assert process.returncode == 3


def test_without_pipes_it_waits_and_takes_no_input(template):
    with template.fork(stdout=DEVNULL).run_code("pass") as process:
        with pytest.raises(anyfork.ArgumentError, match="stdin=anyfork.PIPE"):
            process.communicate(b"lost")
        assert process.communicate(timeout=DEADLINE) == (None, None)
        assert process.returncode == 0


def test_closing_the_block_closes_the_streams_of_a_process_that_reads(template):
    with template.fork(stdin=PIPE).run_code("import sys; sys.exit(len(sys.stdin.read()))") as process:
        process.stdin.write(b"three")
    assert process.returncode == 5


def test_input_for_a_closed_stream_is_an_error(template):
    with template.fork(stdin=PIPE).run_code("input()") as process:
        process.stdin.close()
        with pytest.raises(anyfork.HandleError, match="stdin was closed"):
            process.communicate(b"late", DEADLINE)


def test_a_second_communicate_while_one_is_under_way_is_an_error_and_harms_nothing(template):
    # Both would write the same input, and each would read a part of the output.
    read, write = os.pipe()
    with template.fork(stdin=read, stdout=PIPE).run_code("print(input())") as process, ThreadPoolExecutor() as threads:
        os.close(read)
        first = threads.submit(process.communicate)
        eventually(lambda: process._link.streams._users)
        with pytest.raises(anyfork.HandleError, match="call it once"):
            process.communicate()
        os.write(write, b"one\n")
        os.close(write)
        assert first.result(DEADLINE) == process.communicate() == (b"one\n", None)


@pytest.mark.parametrize("data", ["text", 5, [1]])
def test_input_that_is_no_bytes_is_an_error_that_says_so(template, data):
    with template.fork(stdin=PIPE).run_code("input()") as process:
        with pytest.raises(anyfork.ArgumentError, match=rf"bytes as input, not {type(data).__name__}"):
            process.communicate(data)
        process.communicate(b"\n")


@pytest.mark.parametrize("limit", ["1", 1.5, -1])
def test_a_limit_that_is_no_number_of_bytes_is_an_error_that_says_so(template, limit):
    with template.fork(stdout=PIPE).run_code("print(1)") as process:
        with pytest.raises(anyfork.ArgumentError, match="a number of bytes"):
            process.communicate(limit=limit)
        assert process.communicate() == (b"1\n", None)


def test_streams_in_use_stay_with_their_handle(template):
    with template.fork(stdout=PIPE).run_code("print(1)") as process:
        assert process.stdout.readline() == b"1\n"
        with pytest.raises(anyfork.HandleError, match="in use"):
            aio.Process.from_blocking(process)


def test_pipes_do_not_lead_to_another_machine():
    with (
        anyfork.RemoteTemplate([sys.executable]) as remote,
        pytest.raises(anyfork.ArgumentError, match="stdout=PIPE"),
    ):
        remote.fork(stdout=PIPE)


def test_descriptors_have_one_owner_after_a_split():
    ends = Owned(chain.from_iterable([os.pipe()]))
    read, write = ends.split()
    assert ends.fds == []
    ends.close()
    write.close()
    assert os.read(read.fd, 1) == b""
    read.close()


def test_dropped_handles_leave_no_pipe(template):
    template.fork(**ALL)
    output = template.fork(stdout=PIPE).run_code("print('kept')").stdout
    assert output.read() == b"kept\n"

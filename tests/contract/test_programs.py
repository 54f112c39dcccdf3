"""run_program: the process becomes another program."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest
from deadlines import DEADLINE
from owner_side import ended, read_all

import anyfork


def output(template, argv, **attributes):
    """Return what a program prints."""
    with template.fork(stdout=anyfork.CHANNEL, **attributes).run_program(argv) as process:
        said = read_all(process.channel)
        assert process.wait(DEADLINE).code == 0
    return said


def test_a_program_is_found_by_the_path(template):
    assert output(template, ["echo", "found"]) == b"found\n"


def test_a_program_is_found_by_the_path_of_its_own_environment(template, tmp_path):
    program = tmp_path / "greet"
    program.write_text("#!/bin/sh\necho hello\n")
    program.chmod(0o755)
    assert output(template, ["greet"], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}) == b"hello\n"


def test_a_program_may_be_named_by_its_file(template):
    assert output(template, [Path("/bin/echo"), "found"]) == b"found\n"


def test_a_relative_name_is_looked_up_in_the_directory_of_the_process(template, tmp_path):
    program = tmp_path / "greet"
    program.write_text("#!/bin/sh\necho hello\n")
    program.chmod(0o755)
    assert output(template, ["./greet"], cwd=tmp_path) == b"hello\n"


def test_arguments_may_be_text_bytes_and_paths(template):
    argv = ["printf", "%s|", "größer", b"raw \xff", Path("a/b"), "", "two words"]
    assert output(template, argv) == "größer|".encode() + b"raw \xff|a/b||two words|"


def test_a_program_has_the_environment_of_the_process(template):
    assert output(template, ["/usr/bin/env"], env={"LC_CTYPE": "C.UTF-8"}) == b"LC_CTYPE=C.UTF-8\n"


def test_a_program_has_no_descriptors_but_the_standard_streams(template):
    with open(os.devnull) as file:
        template.send(file)
        # The fourth is the directory that ls reads.
        assert output(template, ["ls", "/proc/self/fd"]).split() == [b"0", b"1", b"2", b"3"]


def test_a_program_has_default_signals_and_none_blocked(template):
    status = output(template, ["cat", "/proc/self/status"]).decode()
    masks = dict(line.split(":\t") for line in status.splitlines() if line.startswith(("SigBlk", "SigIgn", "SigCgt")))
    ours = Path("/proc/self/status").read_text()
    inherited = int(next(line for line in ours.splitlines() if line.startswith("SigIgn")).split()[1], 16)
    own = sum(1 << (number - 1) for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT))
    inherited |= 3 << 31  # 32 and 33 are glibc's own, which its posix_spawn ignores in what it starts
    assert int(masks["SigBlk"], 16) == 0
    assert int(masks["SigIgn"], 16) & ~(inherited & ~own) == 0


def test_the_exit_code_of_a_program_is_the_status(template):
    assert ended(template.run_program(["sh", "-c", "exit 7"])).code == 7


def test_the_signal_that_ended_a_program_is_the_status(template):
    assert ended(template.run_program(["sh", "-c", "kill -TERM $$"])).signal == signal.SIGTERM


def test_a_program_that_ends_at_once_was_started(template):
    with template.run_program(["true"]) as process:
        assert process.wait(DEADLINE).code == 0


def test_the_handle_of_a_program_has_its_pid(template):
    assert int(output(template, ["sh", "-c", "echo $$"])) > 0
    with template.fork(stdout=anyfork.CHANNEL).run_program(["sh", "-c", "echo $$"]) as process:
        assert int(read_all(process.channel)) == process.pid


def test_a_program_can_be_signalled(template):
    with template.run_program(["sleep", "1000"]) as process:
        process.terminate()
        assert process.wait(DEADLINE).signal == signal.SIGTERM


def test_a_program_shows_its_own_command_line(template):
    with template.run_program(["sleep", "1000"]) as process:
        assert Path(f"/proc/{process.pid}/cmdline").read_bytes() == b"sleep\x001000\0"
        process.kill()


def test_usage_of_a_program_counts_what_it_waited_for(template):
    loop = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"
    usage = ended(template.run_program(["sh", "-c", loop])).usage
    assert usage is not None
    assert usage.user_time > 0


@pytest.mark.parametrize(
    ("argv", "number"),
    [
        (["no-such-program"], errno.ENOENT),
        (["/no/such/program"], errno.ENOENT),
        (["/etc/passwd"], errno.EACCES),
        (["/"], errno.EACCES),
        (["/etc/passwd/x"], errno.ENOTDIR),
        (["true", "x" * (4 << 20)], errno.E2BIG),
    ],
    ids=["not on the path", "no such file", "not executable", "directory", "below a file", "arguments too long"],
)
def test_a_program_that_cannot_be_executed_is_told(template, argv, number):
    with pytest.raises(anyfork.ProgramError, match="cannot be executed") as caught:
        template.run_program(argv, timeout=DEADLINE)
    assert (caught.value.program, caught.value.errno) == (argv[0], number)


def test_a_file_that_is_no_program_is_told(template, tmp_path):
    program = tmp_path / "nonsense"
    program.write_bytes(b"\0\1\2\3")
    program.chmod(0o755)
    with pytest.raises(anyfork.ProgramError) as caught:
        template.run_program([program], timeout=DEADLINE)
    assert (caught.value.program, caught.value.errno) == (str(program), errno.ENOEXEC)


def test_a_program_that_cannot_be_executed_leaves_the_template_alone(template):
    with pytest.raises(anyfork.ProgramError):
        template.fork().run_program(["no-such-program"], timeout=DEADLINE)
    assert output(template, ["echo", "still here"]) == b"still here\n"


def test_a_null_character_in_an_argument_is_told(template):
    with pytest.raises(anyfork.AnyforkError, match="null"):
        template.run_program(["echo", "a\0b"], timeout=DEADLINE)


def test_preparations_that_failed_are_told_instead(template):
    with pytest.raises(anyfork.PreloadError):
        template.preload("no_such_module").run_program(["true"], timeout=DEADLINE)

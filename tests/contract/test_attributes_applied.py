"""The attributes of fork and new_exec are real: applied in the new process, in one order, each refusal named."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import stat
import sys
from pathlib import Path

import child_side
import pytest
from attributes_applied_functions import NOBODY, open_to_others, print_title
from conftest import eventually, wait_for_end
from deadlines import DEADLINE
from owner_side import KINDS, REMOTE, ask, ended, output_of, owner_of, pipe, read_all
from procfs import runs

import anyfork

# What processes of another user need, who may not be allowed to read the standard library where it is installed.
NEEDED = ("child_side", "resource", "traceback", "pwd", "grp")
# Every kind of template gives attributes to its forks, and a fresh interpreter gets them as well.
OF_KINDS = {
    f"fork of {kind}": kind
    for kind in KINDS
    if kind not in ("trio", "uvloop")  # what is applied is the same, whatever the loop
}
MAKERS = [*OF_KINDS, "new_exec"]
# The system refuses it to everybody else. CI runs as root.
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="changing users needs root")


@pytest.fixture(scope="module")
def parents():
    """Provide a local template of each kind for all tests: what they load takes longer than most tests."""
    with contextlib.ExitStack() as stack:
        yield {
            kind: stack.enter_context(KINDS[kind]().preload(*NEEDED).ready(DEADLINE))
            for kind in OF_KINDS.values()
            if kind not in REMOTE
        }


def maker(name, parents):
    """Return a function that makes a new template with attributes."""
    if name == "new_exec":
        return anyfork.Template.new_exec
    kind = OF_KINDS[name]
    if kind in REMOTE:
        return lambda **attributes: KINDS[kind]().preload(*NEEDED).fork(**attributes)
    return parents[kind].fork


@pytest.fixture(params=MAKERS)
def made(request, parents):
    """Return a function that makes a new template with attributes."""
    return maker(request.param, parents)


@pytest.fixture(params=MAKERS)
def made_for_others(request, parents):
    """Return a function that makes a new template that may belong to another user."""
    if os.getuid() != 0:
        pytest.skip("changing users needs root")
    if request.param != "new_exec":
        return maker(request.param, parents)
    python = next(filter(open_to_others, (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3")), None)
    if python is None:
        pytest.skip("no interpreter is installed where other users can execute it")
    return lambda **attributes: anyfork.Template.new_exec(python=python, **attributes)


# --- Each of them ---------------------------------------------------------------------------------------------------


def test_cwd_is_the_directory(made, tmp_path):
    assert ask(made(cwd=tmp_path), "os.getcwd()") == str(tmp_path)


def test_cwd_may_be_text_or_bytes(made, tmp_path):
    path = tmp_path / "größer"
    path.mkdir()
    assert ask(made(cwd=os.fsencode(path)), "os.getcwd()") == ask(made(cwd=str(path)), "os.getcwd()") == str(path)


def test_cwd_may_be_an_open_directory(made, tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        template = made(cwd=fd)
    finally:
        os.close(fd)
    assert ask(template, "os.getcwd()") == str(tmp_path)


def test_env_is_the_whole_environment(made):
    # An interpreter that finds no locale sets this one (PEP 538), also in its environment.
    env = {"PATH": os.environ["PATH"], "GREETING": "hello = wörld", "LC_CTYPE": "C.UTF-8"}
    assert ask(made(env=env), "dict(os.environ)") == env


def test_env_reaches_programs(made):
    with made(env={"LC_CTYPE": "C.UTF-8"}, stdout=anyfork.CHANNEL).run_program(["/usr/bin/env"]) as process:
        assert read_all(process.channel) == b"LC_CTYPE=C.UTF-8\n"


def test_env_may_be_bytes_that_are_no_text(made):
    assert ask(made(env={b"RAW": b"\xff\xfe"}), "os.environb[b'RAW']") == b"\xff\xfe"


def test_umask_is_the_mask(made):
    assert ask(made(umask=0o027), "os.umask(0)") == 0o027


def test_nice_adds_to_the_priority(made):
    before = os.getpriority(os.PRIO_PROCESS, 0)
    assert ask(made(nice=3), "os.getpriority(os.PRIO_PROCESS, 0)") == before + 3


def test_rlimits_are_the_limits(made):
    template = made(rlimits={"NOFILE": (100, 200), resource.RLIMIT_CORE: 0, "RLIMIT_FSIZE": (1 << 20, 1 << 21)})
    expression = "[resource.getrlimit(x) for x in v]"
    numbers = (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE, resource.RLIMIT_FSIZE)
    assert ask(template, expression, *numbers) == [(100, 200), (0, 0), (1 << 20, 1 << 21)]


def test_new_session_makes_the_process_its_leader(made):
    assert ask(made(new_session=True), "os.getsid(0) == os.getpgrp() == os.getpid()")


def test_without_new_session_the_process_stays_in_the_session_of_its_owner(made):
    assert ask(made(new_session=False), "os.getsid(0)") == os.getsid(0)


def test_user_by_number_sets_all_three_ids(made_for_others):
    assert ask(made_for_others(user=NOBODY), "os.getresuid()") == (NOBODY,) * 3


def test_user_by_name(made_for_others):
    assert ask(made_for_others(user="nobody"), "os.getuid()") == NOBODY


@needs_root
def test_group_by_number_sets_all_three_ids(made):
    assert ask(made(group=12345), "os.getresgid()") == (12345,) * 3


@needs_root
def test_group_by_name(made):
    import grp

    assert ask(made(group="daemon"), "os.getgid()") == grp.getgrnam("daemon").gr_gid


@needs_root
def test_extra_groups_replace_the_groups(made):
    import grp

    expected = sorted([4321, grp.getgrnam("daemon").gr_gid])
    assert ask(made(extra_groups=[4321, "daemon"]), "sorted(os.getgroups())") == expected


def test_user_group_and_extra_groups_go_together(made_for_others):
    expression = "(os.getuid(), os.getgid(), os.getgroups())"
    assert ask(made_for_others(user=NOBODY, group=NOBODY, extra_groups=[]), expression) == (NOBODY, NOBODY, [])


def test_a_process_of_another_user_cannot_come_back(made_for_others):
    with made_for_others(user=NOBODY) as template, template.fork(user=0) as back:
        with pytest.raises(anyfork.AttributeRefusedError) as caught:
            back.ready(DEADLINE)
        assert (caught.value.attribute, caught.value.errno) == ("user", errno.EPERM)


def test_attributes_that_are_none_are_as_if_they_were_not_given(made):
    assert ask(made(cwd=None, umask=None, nice=None, title=None, env=None, user=None), "os.getcwd()") == os.getcwd()


@pytest.mark.untraced
def test_a_fork_inherits_what_its_template_was_given(made, tmp_path):
    with made(cwd=tmp_path, umask=0o027, env={"LC_CTYPE": "C.UTF-8"}) as template:
        expression = "(os.getcwd(), os.umask(0), dict(os.environ))"
        assert ask(template.fork(), expression) == (str(tmp_path), 0o027, {"LC_CTYPE": "C.UTF-8"})


def test_attributes_of_a_fork_do_not_change_its_template(template, tmp_path):
    ended(template.fork(cwd=tmp_path, umask=0o777, env={}, nice=5).run(child_side.enter))
    expression = "(os.getcwd(), 'PATH' in os.environ, os.getpriority(os.PRIO_PROCESS, 0))"
    assert ask(template, expression) == (os.getcwd(), True, os.getpriority(os.PRIO_PROCESS, 0))


# --- Standard streams -----------------------------------------------------------------------------------------------


def test_stdout_and_stderr_may_be_files(made, tmp_path):
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("wb") as err:
        ended(made(stdout=out, stderr=err).run(child_side.print_unflushed, "to out", "to err"))
    assert ((tmp_path / "out").read_text(), (tmp_path / "err").read_text()) == ("to out", "to err")


def test_what_a_file_buffers_comes_before_what_the_process_writes(made, tmp_path):
    with (tmp_path / "out").open("w") as out:
        out.write("owner, ")
        ended(made(stdout=out).run(child_side.print_unflushed, "process", ""))
    assert (tmp_path / "out").read_text() == "owner, process"


def test_stdin_may_be_a_file(made, tmp_path):
    (tmp_path / "in").write_text("from a file\n")
    with (tmp_path / "in").open() as file:
        template = made(stdin=file)
    assert ask(template, "sys.stdin.read()") == "from a file\n"


def test_streams_may_be_descriptors_and_are_the_owners_to_close(made):
    with pipe() as (read, write):
        template = made(stdout=write)
        os.close(write)
        ended(template.run(child_side.print_unflushed, "through a pipe", ""))
        assert os.read(read, 100) == b"through a pipe"
        assert os.read(read, 100) == b""


def test_stderr_may_be_the_same_descriptor_as_stdout(made):
    with pipe() as (read, write):
        ended(made(stdout=write, stderr=write).run_program(["sh", "-c", "echo out; echo err >&2"]))
        assert os.read(read, 100) == b"out\nerr\n"


def test_streams_may_be_sockets(made):
    import socket

    ours, theirs = socket.socketpair()
    with ours, theirs:
        ended(made(stdout=theirs).run(child_side.print_unflushed, "through a socket", ""))
        assert ours.recv(100) == b"through a socket"


def test_devnull_reads_nothing_and_swallows_everything(made):
    template = made(stdin=anyfork.DEVNULL, stdout=anyfork.DEVNULL, stderr=anyfork.DEVNULL)
    expression = "(sys.stdin.read(), [os.readlink(f'/proc/self/fd/{fd}') for fd in (0, 1, 2)])"
    assert ask(template, expression) == ("", ["/dev/null"] * 3)


def test_channel_as_stdout_is_the_channel(made):
    with made(stdout=anyfork.CHANNEL).run(child_side.print_unflushed, "on the channel", "") as process:
        assert read_all(process.channel) == b"on the channel"


def test_channel_as_stdin_and_stdout_makes_a_filter_of_a_program(made):
    with made(stdin=anyfork.CHANNEL, stdout=anyfork.CHANNEL).run_program(["tr", "a-z", "A-Z"]) as process:
        process.channel.sendall(b"louder\n")
        process.channel.shutdown(1)
        assert read_all(process.channel) == b"LOUDER\n"


def test_channel_as_stderr_brings_the_traceback(made):
    with made(stderr=anyfork.CHANNEL).run(child_side.fail, "on the channel") as process:
        assert read_all(process.channel).endswith(b"ValueError: on the channel\n")


def test_what_a_step_prints_does_not_get_into_the_channel(made):
    with pipe() as (read, write):
        template = made(stdout=write).execute("print('prepared')").fork(stdout=anyfork.CHANNEL)
        with template.run(child_side.print_unflushed, "running", "") as process:
            assert read_all(process.channel) == b"running"
        os.close(write)


def test_a_stream_given_before_is_replaced_by_one_given_later(template, tmp_path):
    with pipe() as (read, write), (tmp_path / "out").open("w") as out:
        with template.fork(stdout=write) as first:
            ended(first.fork(stdout=out).run(child_side.print_unflushed, "to the file", ""))
        os.close(write)
        assert os.read(read, 100) == b""
    assert (tmp_path / "out").read_text() == "to the file"


def test_a_text_reaches_a_program_whose_channel_is_only_stdin(made, tmp_path):
    with (tmp_path / "out").open("w") as out:
        with made(stdin=anyfork.CHANNEL, stdout=out).run_program(["cat"]) as process:
            process.channel.sendall(b"through cat")
    assert (tmp_path / "out").read_text() == "through cat"


# --- Titles ---------------------------------------------------------------------------------------------------------


def shown(pid):
    """Return the command line and the name of a process as ps shows them."""
    line = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()
    return line, Path(f"/proc/{pid}/comm").read_text().rstrip("\n")


def test_a_title_is_the_command_line_and_its_begin_the_name(made):
    with made(title="crawler of example.org").ready() as template:
        eventually(lambda: shown(template.pid) == ("crawler of example.org", "crawler-of-exam"))


def test_a_title_stays_while_a_function_runs(made):
    with made(title="worker 7").run(child_side.say_and_stay) as process:
        process.channel.recv(1)
        assert shown(process.pid) == ("worker 7", "worker-7")


def test_a_title_is_no_longer_than_the_command_line_that_was(made):
    with made(title="x" * 10_000).run(child_side.say_and_stay) as process:
        process.channel.recv(1)
        assert set(shown(process.pid)[0]) == {"x"}


def test_an_idle_template_says_whose_it_is(new_template):
    with new_template().ready() as template:
        kind = "anyfork/exec" if "new_exec" in repr(new_template.__code__.co_names) else "anyfork"
        owner = owner_of(new_template)
        eventually(lambda: shown(template.pid)[0] == f"{owner} {kind}", lambda: f"{shown(template.pid)}")


def test_a_running_process_shows_its_function(new_template):
    with new_template().run(child_side.say_and_stay) as process:
        process.channel.recv(1)
        assert shown(process.pid)[0] == f"{owner_of(new_template)} child_side:say_and_stay"


# --- Order and refusals ---------------------------------------------------------------------------------------------

REFUSED = {
    "a missing directory": ({"cwd": "/no/such/directory"}, "cwd", errno.ENOENT),
    "a directory that is a file": ({"cwd": "/etc/passwd"}, "cwd", errno.ENOTDIR),
    "an unknown user": ({"user": "no-such-user"}, "user", 0),
    "an unknown group": ({"group": "no-such-group"}, "group", 0),
    "an unknown extra group": ({"extra_groups": [1, "no-such-group"]}, "extra_groups", 0),
    "a soft limit above the hard one": ({"rlimits": {"NOFILE": (200, 100)}}, "rlimits", 0),
    "a limit that does not exist": ({"rlimits": {9999: (1, 1)}}, "rlimits", 0),
    "a user number that is none": ({"user": 1 << 40}, "user", 0),
}
PRIVILEGED = {
    "a limit above the hard one": ({"rlimits": {"NOFILE": 1 << 19}}, "rlimits", {errno.EPERM, 0}),
    "a better priority": ({"nice": -5}, "nice", {errno.EPERM, errno.EACCES}),
    "another user": ({"user": 0}, "user", {errno.EPERM}),
    "another group": ({"group": 0}, "group", {errno.EPERM}),
    "other extra groups": ({"extra_groups": [0]}, "extra_groups", {errno.EPERM}),
}


@pytest.mark.parametrize(("attributes", "name", "number"), REFUSED.values(), ids=REFUSED)
def test_a_refused_attribute_is_named(made, attributes, name, number):
    with made(**attributes) as template, pytest.raises(anyfork.AttributeRefusedError, match=f"{name}=: ") as caught:
        template.ready(DEADLINE)
    assert (caught.value.attribute, caught.value.errno) == (name, number)


@needs_root
@pytest.mark.parametrize(("attributes", "name", "numbers"), PRIVILEGED.values(), ids=PRIVILEGED)
def test_what_an_unprivileged_process_is_refused_is_named(template, attributes, name, numbers):
    with (
        template.preload(*NEEDED).fork(
            rlimits={"NOFILE": 100}, user=NOBODY, group=NOBODY, extra_groups=[]
        ) as unprivileged,
        unprivileged.fork(**attributes) as refused,
    ):
        with pytest.raises(anyfork.AttributeRefusedError) as caught:
            refused.run(child_side.enter, timeout=DEADLINE)
        assert caught.value.attribute == name
        assert caught.value.errno in numbers
        assert unprivileged.ready(DEADLINE) is unprivileged


def test_a_refused_attribute_leaves_the_template_alone(template):
    with pytest.raises(anyfork.AttributeRefusedError):
        template.fork(cwd="/no/such/directory").ready(DEADLINE)
    assert ask(template.fork(), "v", 1) == [1]


def test_a_refused_attribute_refuses_programs_too(made):
    with pytest.raises(anyfork.AttributeRefusedError, match="cwd="):
        made(cwd="/no/such/directory").run_program(["true"], timeout=DEADLINE)


def test_the_first_attribute_in_the_fixed_order_is_the_one_that_is_refused(made):
    # The order is that of the documentation, whatever the order of the call.
    order = ["rlimits", "cwd", "extra_groups", "group", "user"]
    refused = {
        "user": "no-such-user",
        "group": "no-such-group",
        "extra_groups": ["no-such-group"],
        "cwd": "/no/such/directory",
        "rlimits": {"NOFILE": (200, 100)},
    }
    seen = []
    while refused:
        with made(**refused) as template, pytest.raises(anyfork.AttributeRefusedError) as caught:
            template.ready(DEADLINE)
        seen.append(caught.value.attribute)
        del refused[caught.value.attribute]
    assert seen == order


def test_privileges_are_used_before_they_are_given_up(made_for_others, tmp_path):
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    template = made_for_others(
        user=NOBODY, group=NOBODY, extra_groups=[], cwd=private, nice=-1, rlimits={"NOFILE": 5000}
    )
    expression = "(os.getuid(), os.getgid(), resource.getrlimit(resource.RLIMIT_NOFILE))"
    assert ask(template, expression) == (NOBODY, NOBODY, (5000, 5000))


# --- Detached -------------------------------------------------------------------------------------------------------

DETACHED_OWNER = """
import os, sys, anyfork
sys.path.insert(0, {tests!r})
import child_side
go, said = (anyfork.Descriptor(int(fd)) for fd in sys.argv[1:])
template = {make}
for name, detached in (("detached", True), ("attached", False)):
    process = template.fork(detached=detached).run("child_side:stay_beyond", go, said, name)
    print(process.pid)
    process.close()
"""


@pytest.mark.untraced
@pytest.mark.parametrize(
    "make", ["anyfork.Template()", "anyfork.Template.new_exec()", "anyfork.Template().fork().fork()"]
)
def test_a_detached_process_survives_the_end_of_its_owner_and_others_do_not(make):
    program = DETACHED_OWNER.format(tests=os.path.dirname(child_side.__file__), make=make)
    with pipe() as (go, tell), pipe() as (listen, said):
        pids = output_of("-c", program, str(go), str(said), pass_fds=(go, said)).split()
        os.close(go)
        os.close(said)
        wait_for_end(pids[1])
        os.write(tell, b"gg")
        with os.fdopen(os.dup(listen), "rb") as file:
            assert file.read() == b"detached"
    eventually(lambda: not runs(pids[0]))


# --- new_exec -------------------------------------------------------------------------------------------------------


def test_a_fresh_interpreter_sees_the_present_directory_and_environment_and_a_fork_those_of_its_template(
    tmp_path, monkeypatch
):
    old = anyfork.Template().ready()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PRESENT", "now")
    with old, old.fork() as fork, anyfork.Template.new_exec() as fresh:
        expression = "(os.getcwd(), os.environ.get('PRESENT'))"
        seen = ask(fork, expression), ask(fresh, expression)
    assert seen[1] == (str(tmp_path), "now")
    assert seen[0] != seen[1]


def test_a_fresh_interpreter_sees_the_present_limits_umask_and_affinity(tmp_path):
    program = """
import os, resource, sys, anyfork
sys.path.insert(0, sys.argv[1])
from owner_side import ask
with anyfork.Template().ready():
    os.umask(0o071)
    resource.setrlimit(resource.RLIMIT_NOFILE, (333, 444))
    os.setpriority(os.PRIO_PROCESS, 0, 2)
    os.sched_setaffinity(0, [max(os.sched_getaffinity(0))])
    expected = (0o071, (333, 444), 2, os.sched_getaffinity(0))
    expression = ("(os.umask(0), resource.getrlimit(resource.RLIMIT_NOFILE), "
                  "os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0))")
    print(ask(anyfork.Template.new_exec(), expression) == expected)
"""
    assert output_of("-c", program, os.path.dirname(child_side.__file__), cwd=tmp_path) == "True\n"


def test_a_fresh_interpreter_has_a_hash_seed_of_its_own():
    seen = set()
    for _ in range(3):
        with anyfork.Template.new_exec() as fresh:
            seen.add(ask(fresh, "hash('anyfork')"))
    assert len(seen) == 3


def test_forks_of_one_template_share_its_hash_seed(template):
    assert len({ask(template.fork(), "hash('anyfork')") for _ in range(3)}) == 1


def test_a_fresh_interpreter_shares_no_modules(template):
    template.preload("wave").ready()
    assert not ask(anyfork.Template.new_exec(), "'wave' in sys.modules")


def test_a_template_has_the_module_path_and_the_arguments_of_the_program(template):
    assert ask(template, "(sys.path, sys.argv)") == ([part or os.getcwd() for part in sys.path], sys.argv)


def test_a_template_has_no_descriptors_of_its_owner(template, tmp_path):
    with (tmp_path / "secret").open("w") as secret:
        os.set_inheritable(secret.fileno(), True)
        with anyfork.Template.new_exec() as fresh:
            links = "[os.readlink(f'/proc/self/fd/{x}') for x in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{x}')]"
            for made in (template, fresh):
                assert not any("secret" in link for link in ask(made, links))


def test_the_mode_of_a_new_file_follows_the_umask(made, tmp_path):
    template = made(umask=0o077, cwd=tmp_path)
    ask(template, "open('made', 'w').close()")
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o600


def test_a_signal_to_the_session_of_the_owner_does_not_reach_a_new_session(made):
    with made(new_session=True).run(child_side.say_and_stay) as process:
        process.channel.recv(1)
        assert os.getpgid(process.pid) == process.pid != os.getpgrp()
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(DEADLINE).signal == signal.SIGTERM


def test_a_fork_with_other_attributes_inherits_channel_and_title(made):
    with made(stdout=anyfork.CHANNEL, title="told once") as template:
        process = template.fork(umask=0o077).run(print_title)
    with process:
        assert read_all(process.channel) == b"told once"


def test_a_title_and_another_user_go_together(made_for_others):
    with made_for_others(title="as nobody", user=NOBODY).ready() as template:
        assert shown(template.pid)[0] == "as nobody"
        assert ask(template.fork(), "os.getuid()") == NOBODY

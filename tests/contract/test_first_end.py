"""anyfork.wait returns when the first of many processes has ended."""

from __future__ import annotations

import signal
import threading

import pytest
from owner_side import DEADLINE

import anyfork


def sleeper(template):
    return template.fork(stdin=anyfork.CHANNEL, stdout=anyfork.DEVNULL).run_code("import sys; sys.stdin.read()")


def test_the_first_process_that_ends_is_returned():
    with anyfork.Template() as template, sleeper(template) as one, sleeper(template) as other:
        assert anyfork.wait([one, other], timeout=0) == []
        other.channel.close()
        assert anyfork.wait([one, other], DEADLINE) == [other]
        assert other.returncode == 0
        assert anyfork.wait([one, other]) == [other]
        one.kill()
        assert one.wait(DEADLINE).signal == signal.SIGKILL
        assert anyfork.wait([one, other]) == [one, other]


def test_processes_that_wait_elsewhere_may_be_watched_too():
    with anyfork.Template() as template, sleeper(template) as one, sleeper(template) as other:
        threads = [threading.Thread(target=one.wait) for _ in range(3)]
        for thread in threads:
            thread.start()
        one.kill()
        assert anyfork.wait([other, one], DEADLINE) == [one]
        for thread in threads:
            thread.join()


def test_a_process_that_was_never_born_has_ended():
    with anyfork.Template().preload("no_such_module") as template:
        process = template.fork().start("os:getpid")
        assert anyfork.wait([process], DEADLINE) == [process]
        assert "no_such_module" in process.wait(DEADLINE).error


def test_no_processes_have_no_first_end():
    assert anyfork.wait([]) == []


def test_a_process_that_is_not_in_a_list_is_an_error_that_says_so(template):
    with template.fork().run_code("pass") as process:
        with pytest.raises(anyfork.ArgumentError, match=r"wait\(\[process\]\)"):
            anyfork.wait(process)


@pytest.mark.parametrize("wrong", [[3], [anyfork.Process]])
def test_what_is_no_process_is_an_error(wrong):
    with pytest.raises(anyfork.ArgumentError, match="needs processes"):
        anyfork.wait(wrong)
    with pytest.raises(anyfork.ArgumentError, match="timeout"):
        anyfork.wait([], timeout=float("nan"))

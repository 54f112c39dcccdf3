"""Owners of an Executor are killed, or run out of descriptors: nothing stays, and nothing hangs."""

from __future__ import annotations

import pytest
from programs import Program

SCENES = {
    "idle": "kept = anyfork.Executor(max_workers=2); list(kept.map(abs, range(100))); say('ready')",
    "jobs that run and jobs that wait": """
        kept = anyfork.Executor(max_workers=2)
        jobs = [kept.submit(__import__('time').sleep, 60) for _ in range(100)]
        while kept.stats().running < 2: threading.Event().wait(0.01)
        say('ready')
    """,
    "a stream of small jobs": """
        kept = anyfork.Executor(max_workers=2)
        kept.submit(abs, 1).result()
        say('ready')
        while True:
            list(kept.map(abs, range(1000)))
    """,
    "workers that are being started": """
        kept = anyfork.Executor(max_workers=4)
        jobs = [kept.submit(abs, 1) for _ in range(100)]
        say('ready')
    """,
}


@pytest.mark.parametrize("scene", SCENES)
def test_nothing_survives_an_owner_that_is_killed(scene):
    with Program(SCENES[scene] + "\n" if "\n" not in SCENES[scene] else SCENES[scene]) as program:
        assert program.read() == "ready"
        program.kill()
        program.wait_for(())


def test_an_owner_without_descriptors_loses_no_job():
    source = """
        kept = anyfork.Executor(max_workers=4)
        kept.submit(abs, 1).result()
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        held = []
        try:
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        jobs = [kept.submit(abs, -n) for n in range(200)]
        say([future.result(20) for future in jobs] == list(range(200)))
        say(list(kept.map(abs, range(200))) == list(range(200)))
        for fd in held:
            os.close(fd)
        say(len({future.result(20) for future in [kept.submit(os.getpid) for _ in range(100)]}) >= 1)
        kept.shutdown()
        say("through")
    """
    with Program(source) as program:
        assert [program.read() for _ in range(4)] == [True, True, True, "through"]


def test_an_owner_without_descriptors_from_the_beginning_is_told():
    source = """
        held = []
        kept = anyfork.Executor(max_workers=2)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        try:
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        try:
            kept.submit(abs, -1).result(20)
        except OSError as error:
            say(error.errno == errno.EMFILE)
        for fd in held:
            os.close(fd)
        say(kept.submit(abs, -1).result(20))
        kept.shutdown()
        say("through")
    """
    with Program(source) as program:
        assert [program.read() for _ in range(3)] == [True, 1, "through"]

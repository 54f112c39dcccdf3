"""How many workers a pool has at most, unless it is told: as many as there are CPUs for this program."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from math import inf

import pytest
from conftest import eventually

from anyfork._system.limits import cpu_quota, usable_cpus

V1 = "4:memory:/a\n2:cpu,cpuacct:{}\n1:name=systemd:/x\n"
V2 = "0::{}\n"
MOUNT_V1 = "33 31 0:30 {root} {directory} rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
MOUNT_V2 = "41 31 0:38 {root} {directory} rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
OTHERS = "23 1 254:0 / / rw - ext4 /dev/vda rw\n35 31 0:32 / /memory rw - cgroup cgroup rw,memory\n"


@pytest.fixture
def quota(tmp_path):
    """Return a function that lays out files of control groups and says what quota they give."""

    def read(groups, mount, root, files):
        directory = tmp_path / "groups"
        (tmp_path / "self").mkdir()
        (tmp_path / "self" / "cgroup").write_text(groups)
        (tmp_path / "self" / "mountinfo").write_text(OTHERS + mount.format(root=root, directory=directory))
        for name, text in files.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_text(text)
        return cpu_quota(str(tmp_path))

    return read


@pytest.mark.parametrize(
    ("group", "root", "files", "expected"),
    [
        ("/", "/", {"cpu.max": "100000 100000\n"}, 1.0),
        ("/", "/", {"cpu.max": "max 100000\n"}, inf),
        ("/", "/", {}, inf),
        ("/a/b", "/", {"a/cpu.max": "50000 100000\n", "a/b/cpu.max": "max 100000\n"}, 0.5),
        ("/docker/1", "/docker/1", {"cpu.max": "150000 100000\n"}, 1.5),
        ("/docker/1/x", "/docker/1", {"x/cpu.max": "300000 100000\n", "cpu.max": "max 100000"}, 3.0),
        ("/elsewhere", "/docker/1", {"cpu.max": "200000 100000\n"}, 2.0),
        ("/../other", "/", {"cpu.max": "200000 100000\n"}, 2.0),
    ],
)
def test_the_least_quota_of_the_groups_above_counts(quota, group, root, files, expected):
    assert quota(V2.format(group), MOUNT_V2, root, files) == expected


@pytest.mark.parametrize(("value", "expected"), [("-1\n", inf), ("100000\n", 1.0), ("250000\n", 2.5)])
def test_version_1_is_read_too(quota, value, expected):
    files = {"a/cpu.cfs_quota_us": value, "a/cpu.cfs_period_us": "100000\n"}
    assert quota(V1.format("/a"), MOUNT_V1, "/", files) == expected


def test_without_proc_there_is_no_quota(tmp_path):
    assert cpu_quota(str(tmp_path)) == inf


def test_affinity_counts():
    code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); from anyfork._system.limits import usable_cpus as n; print(n())"
    assert subprocess.check_output([sys.executable, "-c", code]) == b"1\n"


def test_all_pools_respect_the_quota_of_a_real_control_group():
    # As in ``docker run --cpus=1``.
    group = f"/sys/fs/cgroup/cpu/anyfork-test-{os.getpid()}"
    quota = "cpu.cfs_quota_us", "100000"
    if not os.path.exists("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"):
        group = f"/sys/fs/cgroup/anyfork-test-{os.getpid()}"
        quota = "cpu.max", "100000 100000"
    try:
        os.mkdir(group)
        with open(f"{group}/{quota[0]}", "w") as file:
            file.write(quota[1])
    except OSError as error:
        if os.path.isdir(group):
            os.rmdir(group)
        pytest.skip(f"no control group with a CPU quota can be made here: {error}")
    code = """if 1:
        import os, sys, asyncio
        with open(sys.argv[1], "w") as file: file.write(str(os.getpid()))
        import anyfork, anyfork.aio
        async def pool():
            async with anyfork.aio.Pool() as pool: return pool._pool_loop.scheduler.limits.max_workers
        if __name__ == "__main__":
            with anyfork.Executor() as executor, anyfork.get_context().Pool() as processes:
                print(executor._max_workers, asyncio.run(pool()), processes._processes)
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, f"{group}/cgroup.procs"], capture_output=True, text=True, timeout=50
        )
        assert (done.stdout, done.stderr) == ("1 1 1\n", "")
    finally:
        eventually(lambda: removed(group), "its processes stay")  # the kernel is late to count out those that ended


def removed(group):
    try:
        os.rmdir(group)
    except OSError as error:
        assert error.errno == errno.EBUSY  # noqa: PT017  # anything else is no reason to try again
        return False
    return True


def test_there_is_always_a_worker():
    assert 1 <= usable_cpus() <= (os.cpu_count() or 1)

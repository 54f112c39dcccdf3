"""Whether memory is short: on the machine, or in one of the control groups of this program."""

from __future__ import annotations

import pytest

from anyfork._system.limits import memory_is_short

MEMINFO = "MemTotal:       1000000 kB\nMemFree:          20000 kB\nMemAvailable:   {} kB\nHugePages_Total:       0\n"
MOUNT_V1 = "33 31 0:30 / {} rw,relatime - cgroup cgroup rw,memory\n"
MOUNT_V2 = "41 31 0:38 / {} rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = ("4:memory:/a/b\n", MOUNT_V1, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2 = ("0::/a/b\n", MOUNT_V2, "memory.max", "memory.current", "inactive_file")


@pytest.fixture
def machine(tmp_path):
    """Return a function that lays out files of /proc and of control groups, and says whether memory is short there."""

    def look(available, version=V2, **groups):
        group, mount, limit, used, cache = version
        (tmp_path / "self").mkdir()
        (tmp_path / "meminfo").write_text(MEMINFO.format(available))
        (tmp_path / "self" / "cgroup").write_text(group)
        (tmp_path / "self" / "mountinfo").write_text(mount.format(tmp_path / "groups"))
        for path, (most, now, files) in groups.items():
            directory = tmp_path / "groups" / path.replace("_", "/")
            directory.mkdir(parents=True, exist_ok=True)
            (directory / limit).write_text(f"{most}\n")
            (directory / used).write_text(f"{now}\n")
            (directory / "memory.stat").write_text(f"anon 1\n{cache} {files}\n")
        return memory_is_short(str(tmp_path))

    return look


@pytest.mark.parametrize(("available", "short"), [(900_000, False), (51_000, False), (49_000, True)])
def test_the_machine_counts(machine, available, short):
    assert machine(available) is short


@pytest.mark.parametrize("version", [V1, V2], ids=["v1", "v2"])
@pytest.mark.parametrize(
    ("inner", "outer", "short"),
    [
        ((100_000, 50_000, 0), (200_000, 60_000, 0), False),
        ((100_000, 99_000, 0), (200_000, 99_000, 0), True),
        ((100_000, 99_000, 40_000), (200_000, 99_000, 40_000), False),  # files that the kernel drops
        ((100_000, 50_000, 0), (200_000, 199_000, 0), True),
        (("max", 50_000, 0), (9223372036854771712, 60_000, 0), False),
    ],
)
def test_the_groups_of_the_program_count(machine, version, inner, outer, short):
    assert machine(900_000, version, a_b=inner, a=outer) is short


def test_without_proc_nothing_is_known(tmp_path):
    assert memory_is_short(str(tmp_path)) is False

"""The public interface is what tests/public_interface.txt says: a change of it is meant, and has a line in CHANGELOG.md."""

from __future__ import annotations

import public_interface


def test_the_public_interface_is_the_one_that_was_written_down():
    written = public_interface.WRITTEN.read_text().splitlines()
    there = public_interface.lines()
    assert ([line for line in written if line not in there], [line for line in there if line not in written]) == (
        [],
        [],
    ), "gone, and new; if that is meant: python tests/public_interface.py, and a line in CHANGELOG.md"
    assert len(written) == len(there)

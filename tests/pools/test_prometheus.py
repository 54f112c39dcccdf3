"""The numbers of pools as text for Prometheus."""

from __future__ import annotations

import re
from dataclasses import fields

import observed_faces
import pytest
from observed_faces import opened

from anyfork import PoolStats
from anyfork.contrib.prometheus import WHAT, exposition

LINE = re.compile(r'# (HELP|TYPE) anyfork_pool_\w+ .+|anyfork_pool_\w+\{pool="(?:[^"\\\n]|\\["\\n])*"\} [0-9.e+]+')


@pytest.mark.parametrize("kind", observed_faces.POOLS)
def test_the_text_has_the_numbers_of_each_pool(kind):
    with opened(kind) as face:
        face.call(abs, -1)
        text = exposition({"resize": face.stats(), 'a "b"\\\n': face.stats()})
    lines = text.splitlines()
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    assert 'anyfork_pool_submitted_total{pool="resize"} 1' in lines
    assert 'anyfork_pool_workers{pool="a \\"b\\"\\\\\\n"} 1' in lines
    (private,) = re.findall(r'^anyfork_pool_private_bytes\{pool="resize"\} (\d+)$', text, re.MULTILINE)
    assert int(private) > 0


def test_every_number_is_told():
    assert {field.name for field in fields(PoolStats)} - {"pids"} == {*WHAT}


def test_no_pools_are_no_error():
    assert 'pool="' not in exposition({})

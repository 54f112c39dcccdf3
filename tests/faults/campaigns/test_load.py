"""The load, the killed owners and the random bytes of the campaigns, in their short forms."""

from __future__ import annotations

import random

import pytest

from . import fuzz, load, owners

SOME, MANY = 600, 10_000  # jobs


@pytest.mark.parametrize("face", ["executor", "worker", *load.LOOPS])
def test_the_books_balance_though_workers_and_templates_are_killed(face):
    book = load.soak(face, SOME, seed=1)
    assert not book.faults


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("face", load.FACES)
def test_the_books_balance_after_many_jobs(face):
    book = load.soak(face, MANY, seed=2)
    assert not book.faults
    assert book.strikes


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("scene", owners.SCENES)
def test_nothing_is_left_of_owners_that_are_killed_at_any_moment(scene):
    chance = random.Random(scene)
    for _ in range(5):
        assert not owners.kill_owner(scene, chance.random() * 0.05)


@pytest.mark.parametrize("decoder", fuzz.DECODERS)
def test_a_decoder_understands_what_comes_or_says_that_it_does_not(decoder):
    chance = random.Random(decoder)
    for _ in range(2000):
        fuzz.DECODERS[decoder](chance.randbytes(chance.randrange(200)))

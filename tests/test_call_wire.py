"""The wire format of calls, without I/O: any bytes, cut anywhere, and the frames of the original beside ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from _anyfork_child.wire import call_messages as wire
from _anyfork_child.wire.call_messages import HEADER, HEADER_SIZE, IN_FILE, MAX_BODY, Inbox
from _anyfork_child.wire.frames import LOST_DESCRIPTOR, ProtocolError

KINDS = st.sampled_from(sorted(wire.KINDS))
NUMBERS = st.integers(0, 0xFFFFFFFF)
MESSAGES = st.lists(st.tuples(KINDS, NUMBERS, NUMBERS, st.binary(max_size=200)), max_size=8)


def pack(kind, number, detail, body, flags=0, count=0):
    return HEADER.pack(len(body), number, detail, kind, flags, count) + body


def feed(inbox, data, cuts):
    """Return what an inbox makes of bytes that come in pieces."""
    found = []
    for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True):
        found += inbox.take(data[start:stop])
    return found


def test_the_header_is_byte_exact():
    assert pack(wire.CALL, 1, 2, b"body").hex(" ") == "04 00 00 00 01 00 00 00 02 00 00 00 01 00 00 00 62 6f 64 79"


@given(messages=MESSAGES, data=st.data())
def test_messages_come_out_as_they_went_in_however_they_are_cut(messages, data):
    stream = b"".join(pack(*message) for message in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    inbox = Inbox()
    found = feed(inbox, stream, cuts)
    assert [(kind, number, detail, body) for kind, number, detail, _, body, _ in found] == messages
    assert inbox.idle


@given(data=st.binary(max_size=400), cut=st.integers(0, 400))
def test_any_bytes_are_messages_or_an_error_and_never_more(data, cut):
    inbox = Inbox()
    try:
        found = inbox.take(data[:cut]) + inbox.take(data[cut:])
    except ProtocolError:
        return
    assert sum(HEADER_SIZE + len(message[4]) for message in found) <= len(data)


@given(sets=st.lists(st.lists(st.integers(3, 100), min_size=1, max_size=5), max_size=6))
def test_descriptors_belong_to_their_messages(sets):
    inbox = Inbox()
    found = []
    for number, fds in enumerate(sets):
        data = pack(wire.RESULT, number, 0, b"body", 0, len(fds)) + pack(wire.EVENT, number, 0, b"")
        found += inbox.take(data[:7], fds)
        found += inbox.take(data[7:])
    assert [list(message[5]) for message in found if message[0] == wire.RESULT] == sets
    assert inbox.unclaimed() == []


def test_descriptors_that_were_lost_are_marked():
    inbox = Inbox()
    ((*_, fds),) = inbox.take(pack(wire.CALL, 1, 0, b"", 0, 5), [7, 8], truncated=True)
    assert list(fds) == [7, 8, *[LOST_DESCRIPTOR] * 3]


@pytest.mark.parametrize(
    ("data", "fds"),
    [
        (HEADER.pack(MAX_BODY + 1, 1, 0, wire.CALL, 0, 0), ()),
        (HEADER.pack(0, 1, 0, 0, 0, 0), ()),
        (HEADER.pack(0, 1, 0, 255, 0, 0), ()),
        (HEADER.pack(0, 1, 0, wire.CALL, IN_FILE, 0), ()),
        (HEADER.pack(0, 1, 0, wire.CALL, 3, 2), (5, 6)),
        (HEADER.pack(0, 1, 0, wire.CALL, 0, 2), (5,)),
        (HEADER.pack(0, 1, 0, wire.CALL, 0, 1), (5, 6)),
    ],
)
def test_what_is_no_message_is_refused(data, fds):
    with pytest.raises(ProtocolError):
        Inbox().take(data, fds)


def test_unclaimed_descriptors_are_given_back():
    inbox = Inbox()
    inbox.take(pack(wire.CALL, 1, 0, b"long", 0, 2)[:-1], [5, 6])
    assert inbox.unclaimed() == [5, 6]

"""The frames, without I/O: whatever comes, cut wherever, is a frame or an error, and nothing behind it is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from _anyfork_child.wire.frames import (
    DESCRIPTORS_A_MESSAGE,
    FORK,
    HEADER,
    HEADER_SIZE,
    IN_FILE,
    KINDS,
    LOST_DESCRIPTOR,
    MAX_BODY,
    MAX_DESCRIPTORS,
    PING,
    SEND,
    VERSION,
    Decoder,
    Frame,
    ProtocolError,
    messages,
    usual_frame,
)

BOUNDARIES = [0, 1, 2, 252, 253, 254, 505, 506, 507, 759, 760]  # numbers of descriptors around the kernel's limit
NUMBERS = st.integers(-(1 << 63), (1 << 63) - 1)


@st.composite
def frames(draw):
    """Draw a frame that may be sent. Its descriptors are numbers that nobody opens."""
    count = draw(st.sampled_from(BOUNDARIES) | st.integers(0, 20))
    in_file = draw(st.booleans()) and count > 0
    kind = draw(st.sampled_from(sorted(KINDS))) | (IN_FILE if in_file else 0)
    value = draw(st.integers(0, (1 << 63) - 1) if in_file else NUMBERS)
    return Frame(kind, value, draw(st.binary(max_size=300)), list(range(1000, 1000 + count)))


@st.composite
def headers(draw):
    """Draw the header of something, often nearly right."""
    version = draw(st.sampled_from([VERSION] * 5 + [0, VERSION + 1, 255]))
    kind = draw(st.sampled_from(sorted(KINDS)) | st.integers(0, 255))
    length = draw(st.integers(0, 40) | st.sampled_from([MAX_BODY, MAX_BODY + 1, 0xFFFFFFFF]))
    return HEADER.pack(version, kind, draw(st.integers(0, 5) | st.just(0xFFFF)), length, draw(NUMBERS))


def stream_of(sent):
    """Return what a socket carries: all bytes, and which descriptors stand at which of them."""
    data, rights = bytearray(), {}
    for frame in sent:
        for part, fds in messages(frame):
            if fds:
                rights[len(data)] = list(fds)
            data += part
    return bytes(data), rights


class Stream:
    """A socket to read from: a read stops where the cuts say and, as the kernel's, before the next descriptors."""

    def __init__(self, data, rights, cuts):
        self.data = data
        self.rights = rights
        self.cuts = cuts
        self.at = 0
        self.reads = 0

    def recv(self, wanted):
        limit = self.cuts[self.reads % len(self.cuts)] if self.cuts else wanted
        self.reads += 1
        end = min(self.at + min(wanted, limit), len(self.data), *[at for at in self.rights if at > self.at])
        piece, fds = self.data[self.at : end], self.rights.get(self.at, [])
        self.at = end
        return piece, fds

    def next_frame(self, decoder):
        """Return one frame, as Channel.receive reads it, or None at the end."""
        while self.at < len(self.data):
            assert decoder.wanted > 0
            frame = decoder.feed(*self.recv(decoder.wanted))
            if frame is not None:
                return frame
        return None


def same(frame, other):
    return all(getattr(frame, name) == getattr(other, name) for name in ("kind", "value", "body")) and [*frame.fds] == [
        *other.fds
    ]


CUTS = st.lists(st.integers(1, 400), max_size=8)


@given(st.lists(frames(), max_size=5), CUTS)
def test_valid_streams_cut_anywhere_reassemble(sent, cuts):
    stream, decoder = Stream(*stream_of(sent), cuts), Decoder()
    for frame in sent:
        got = stream.next_frame(decoder)
        assert got is not None
        assert same(got, frame)
    assert stream.at == len(stream.data)
    assert decoder.idle


@given(frames(), st.binary(max_size=100), CUTS)
def test_nothing_is_read_behind_a_frame(frame, behind, cuts):
    data, rights = stream_of([frame])
    stream = Stream(data + behind, rights, cuts)
    stream.next_frame(Decoder())
    assert stream.at == len(data)


@given(frames(), st.integers(0, 10_000), CUTS)
def test_a_stream_that_ends_inside_a_frame_is_not_idle(frame, end, cuts):
    data, rights = stream_of([frame])
    end = 1 + end % (len(data) - 1)
    decoder = Decoder()
    assert Stream(data[:end], rights, cuts).next_frame(decoder) is None
    assert not decoder.idle


@given(st.binary(max_size=200), CUTS)
def test_any_bytes_are_frames_or_a_protocol_error(data, cuts):
    check_robust(data, {}, cuts)


@given(st.lists(headers() | st.binary(max_size=40), max_size=6), CUTS)
def test_bytes_that_look_like_frames_are_frames_or_a_protocol_error(parts, cuts):
    check_robust(b"".join(parts), {}, cuts)


@given(
    st.lists(headers() | st.binary(max_size=40), max_size=6),
    st.dictionaries(st.integers(0, 100), st.lists(st.integers(3, 1000), min_size=1, max_size=5), max_size=5),
    CUTS,
)
def test_descriptors_at_any_byte_are_in_a_frame_or_with_the_decoder(parts, rights, cuts):
    # Whoever drops the decoder closes them: none may be forgotten.
    check_robust(b"".join(parts), rights, cuts)


def check_robust(data, rights, cuts):
    """Read to the end or to the error: no other exception, every descriptor accounted for, limits kept."""
    stream, decoder, seen = Stream(data, rights, cuts), Decoder(), []
    while True:
        wanted = decoder.wanted
        assert 0 < wanted <= max(HEADER_SIZE, MAX_BODY)
        if stream.at >= len(data):
            break
        piece, fds = stream.recv(wanted)
        seen += fds
        try:
            frame = decoder.feed(piece, fds)
        except ProtocolError:
            break
        if frame is not None:
            assert len(frame.body) <= MAX_BODY
            assert [fd for fd in frame.fds if fd != LOST_DESCRIPTOR] == seen
            seen = []
    assert [fd for fd in decoder.fds if fd != LOST_DESCRIPTOR] == seen


@given(frames(), st.data())
def test_a_stream_goes_on_behind_a_message_that_lost_descriptors(frame, data):
    # MSG_CTRUNC: what could not be installed is LOST_DESCRIPTOR, at the end of its message.
    decoder, expected, got = Decoder(), [], None
    for part, fds in messages(frame):
        kept = data.draw(st.integers(0, len(fds)))
        expected += [*fds[:kept], *[LOST_DESCRIPTOR] * (len(fds) - kept)]
        piece = part[: decoder.wanted]
        got = decoder.feed(piece, fds[:kept], kept < len(fds))
        while got is None and len(piece) < len(part):
            more = part[len(piece) : len(piece) + decoder.wanted]
            piece += more
            got = decoder.feed(more)
    assert got is not None
    assert list(got.fds) == expected
    assert decoder.idle


@given(frames())
def test_no_message_carries_more_descriptors_than_the_kernel_takes(frame):
    assert all(len(fds) <= DESCRIPTORS_A_MESSAGE for _, fds in messages(frame))


@given(frames())
def test_descriptors_never_travel_without_a_byte(frame):
    assert all(part for part, _ in messages(frame))


def test_a_body_of_the_largest_size_travels():
    frame = Frame(SEND, 0, bytes(MAX_BODY))
    got = Stream(*stream_of([frame]), [65536]).next_frame(Decoder())
    assert same(got, frame)


@pytest.mark.parametrize(
    "frame",
    [Frame(SEND, 0, bytes(MAX_BODY + 1)), Frame(SEND, 0, b"", [3] * (MAX_DESCRIPTORS + 1))],
    ids=["a body", "descriptors"],
)
def test_a_frame_above_a_limit_is_not_sent(frame):
    with pytest.raises(ProtocolError):
        messages(frame)


BROKEN = {
    "another version": HEADER.pack(VERSION + 1, PING, 0, 0, 0),
    "no kind": HEADER.pack(VERSION, 0, 0, 0, 0),
    "an unknown kind": HEADER.pack(VERSION, 31, 0, 0, 0),
    "a body above the limit": HEADER.pack(VERSION, SEND, 0, MAX_BODY + 1, 0),
    "a body in a file without one": HEADER.pack(VERSION, SEND | IN_FILE, 0, 0, 10),
    "a file of negative size": HEADER.pack(VERSION, SEND | IN_FILE, 1, 0, -1),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_header_is_an_error_at_its_last_byte(broken):
    decoder, data = Decoder(), BROKEN[broken]
    assert decoder.feed(data[:-1]) is None
    with pytest.raises(ProtocolError):
        decoder.feed(data[-1:])


def test_more_descriptors_than_announced_are_an_error():
    with pytest.raises(ProtocolError, match="announced"):
        Decoder().feed(HEADER.pack(VERSION, SEND, 1, 0, 0), [3, 4])


def test_a_filler_without_descriptors_is_an_error():
    decoder = Decoder()
    decoder.feed(HEADER.pack(VERSION, SEND, 2, 0, 0), [3])
    with pytest.raises(ProtocolError, match="announced"):
        decoder.feed(b"\0")


def test_descriptors_in_the_middle_of_a_body_are_an_error():
    decoder = Decoder()
    decoder.feed(HEADER.pack(VERSION, SEND, 0, 5, 0))
    with pytest.raises(ProtocolError, match="announced"):
        decoder.feed(b"x", [3])


def test_parts_of_attributes_are_wiped_when_they_are_put_together():
    decoder, parts = Decoder(), [bytearray(b"sec"), bytearray(b"re"), bytearray(b"t")]
    decoder.feed(HEADER.pack(VERSION, FORK, 0, 6, 0))
    *_, frame = map(decoder.feed, parts)
    assert frame.body == b"secret"
    assert not any(map(any, parts))


def test_the_header_is_as_documented():
    # version, kind, descriptors, length, value; little endian. What is on the wire must not change unnoticed.
    assert messages(Frame(PING, 0x0102, b"ab", [7])) == [
        (b"\x01\x07\x01\x00\x02\x00\x00\x00\x02\x01\x00\x00\x00\x00\x00\x00ab", [7])
    ]


@given(frames())
def test_a_usual_frame_is_what_a_decoder_makes_of_the_same_message(frame):
    [(data, fds), *others] = messages(frame)
    found = usual_frame(data, fds)
    if others or frame.kind & IN_FILE:
        assert found == 0
        return
    decoder = Decoder()
    wanted = decoder.feed(data[:HEADER_SIZE], fds)
    same = wanted if frame.body == b"" else decoder.feed(data[HEADER_SIZE:])
    assert (found.kind, found.value, found.body, [*found.fds]) == (same.kind, same.value, same.body, [*same.fds])
    assert usual_frame(data[:HEADER_SIZE], fds) == len(frame.body) or not frame.body
    assert usual_frame(data[: HEADER_SIZE - 1], fds) == 0
    assert usual_frame(data, [*fds, 7]) == 0
    assert usual_frame(data + b"x", fds) == 0


@given(headers())
def test_an_unusual_header_is_left_to_the_decoder(header):
    found = usual_frame(header, ())
    try:
        frame = Decoder().feed(header)
    except ProtocolError:
        assert found == 0
    else:
        assert found == 0 or frame is not None or found > 0

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.worker.protocol import FrameError, FrameReader, Message, encode_frame

HEADERS = st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=5), max_size=4)
FRAMES = st.lists(st.builds(Message, HEADERS, st.lists(st.binary(max_size=300), max_size=3)), max_size=5)


class Stream:
    """A connection that does not wait: hands out bytes in pieces, and says so when there are none for now."""

    def __init__(self, pieces, ends=False):
        self.pieces, self.ends = list(pieces), ends

    def recv_into(self, target):
        if not self.pieces:
            if self.ends:
                return 0
            raise BlockingIOError
        piece = self.pieces.pop(0)
        if not piece:
            raise InterruptedError
        count = min(len(piece), len(target))
        target[:count] = piece[:count]
        if count < len(piece):
            self.pieces.insert(0, piece[count:])
        return count


def sent(*frames):
    return b"".join(bytes(part) for frame in frames for part in encode_frame(frame))


def read_all(reader, stream):
    frames = []
    while stream.pieces:
        frame = reader.read(stream)
        if frame is not None:
            frames.append(frame)
    return frames


@given(FRAMES, st.lists(st.integers(0, 400), max_size=30))
def test_frames_arrive_as_they_were_sent_however_they_are_cut(frames, cuts):
    stream, pieces = sent(*frames), []
    for cut in cuts:
        pieces.append(stream[:cut])
        stream = stream[cut:]
    reader = FrameReader(1000)
    received = read_all(reader, Stream([*pieces, stream]))
    assert [(frame.header, bytes(frame.payload)) for frame in received] == [
        (f.header, bytes(f.payload)) for f in frames
    ]
    assert reader.read(Stream([])) is None


def test_a_payload_is_not_copied_on_its_way_out():
    payload = bytearray(b"voxels")
    _, part = encode_frame(Message({}, (payload,)))
    payload[0] = ord("V")
    assert bytes(part) == b"Voxels"


def test_the_end_of_the_stream_is_told_from_no_more_for_now():
    reader = FrameReader(1000)
    half = sent(Message({"a": 1}))[:-3]
    assert reader.read(Stream([half])) is None
    with pytest.raises(EOFError):
        reader.read(Stream([], ends=True))


@pytest.mark.parametrize(
    "stream",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack("<4sIQ", b"FSW2", 101, 0),
        struct.pack("<4sIQ", b"FSW2", 2, 1001),
        struct.pack("<4sIQ", b"FSW2", 2, 0) + b"[]",
        struct.pack("<4sIQ", b"FSW2", 2, 0) + b"{\xff",
        struct.pack("<4sIQ", b"FSW2", 0, 0),
    ],
)
def test_what_is_no_frame_is_refused_before_memory_is_set_aside(stream):
    with pytest.raises(FrameError):
        FrameReader(1000, 100).read(Stream([stream]))


@given(st.binary(max_size=200), st.integers(0, 100), st.integers(0, 255))
def test_noise_is_refused_or_waited_out(noise, place, value):
    """Whatever a broken process sends: an error of ours, or nothing yet."""
    stream = bytearray(sent(Message({"type": "progress"}, (b"12345",))) + noise)
    stream[place % len(stream)] = value
    reader, source = FrameReader(1000, 1000), Stream([bytes(stream)])
    try:
        read_all(reader, source)
    except FrameError:
        return


def test_numbers_that_json_does_not_know_are_not_sent():
    with pytest.raises(ValueError, match="JSON"):
        encode_frame(Message({"score": float("nan")}))

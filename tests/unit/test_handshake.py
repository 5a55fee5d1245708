"""Frames between a client and its supervisors."""

import pytest

from container_magic.process import handshake


def test_frames_come_out_as_they_went_in_whatever_pieces_they_come_in():
    """Text outside ASCII and nothing at all, byte by byte."""
    sent = [{"op": "start", "text": "grüße\udcff"}, {}, {"op": "x", "fds": [1, 2]}]
    reader, found = handshake.FrameReader(), []
    for byte in b"".join(map(handshake.frame, sent)):
        found += reader.feed(bytes([byte]))
    assert found == sent


def test_start_that_is_written_by_hand_is_the_frame_that_json_makes():
    """It is on the way of every run that finds a container: there is no time to have it encoded."""
    begun = 12345.678901234
    by_json = handshake.frame({"op": "start", "run": 7, "fds": 0, "begun": begun})
    assert handshake.started_frame(7, begun) == by_json


@pytest.mark.parametrize("body", [b"[1]", b"{", b"\xff\xfe", b'"text"', b"{} {}"])
def test_what_is_no_object_is_a_value_error(body):
    """Whatever is wrong with a frame is one kind of error."""
    with pytest.raises(ValueError):
        handshake.FrameReader().feed(len(body).to_bytes(4, "little") + body)

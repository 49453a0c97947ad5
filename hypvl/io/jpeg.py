"""The frame of a JPEG file, read as libjpeg reads it: what it will allocate and how often it will pass over it."""

import re
import struct
from typing import NamedTuple

_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = 0xD8, 0xD9, 0xDA
# A marker that has a length. libjpeg passes over everything else: bytes that are no marker, stuffed zeros (FF 00),
# fill bytes (FF FF), restarts (D0-D7) and 01, which have none.
_MARKER = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd7])")


class JpegFrame(NamedTuple):
    """What a JPEG file will become.

    Attributes:
        height: Pixels.
        width: Pixels.
        channels: Of the file: 1 grey, 3 colours, 4 CMYK.
        scans: Passes over the image, 1 where the first one holds everything; counting ends one above ``max_scans``.
    """

    height: int
    width: int
    channels: int
    scans: int


def jpeg_frame(data: bytes, *, max_scans: int) -> JpegFrame | None:
    """The frame of a JPEG file, found without decoding; None where libjpeg finds none.

    The first frame header counts, wherever the marker reader of libjpeg finds it: also behind bytes that are no
    markers and behind segments that claim an impossible length.
    """
    frame: JpegFrame | None = None
    several = False  # scans: coefficients are held in memory until the last one
    at = 2  # behind the start of the image
    while match := _MARKER.search(data, at):
        marker, at = match[1][0], match.end()
        if marker in (_START_OF_IMAGE, _END_OF_IMAGE):
            break
        if marker in _START_OF_FRAME and frame is None:
            if at + 8 > len(data):
                break
            height, width, channels = struct.unpack_from(">HHB", data, at + 3)
            frame = JpegFrame(height, width, channels, 0)
            several = marker in _PROGRESSIVE
        elif marker == _START_OF_SCAN:
            if frame is None:
                break
            components = data[at + 2] if at + 2 < len(data) else 0
            frame = frame._replace(scans=frame.scans + 1)
            several = several or components < frame.channels
            if not several or frame.scans > max_scans:
                break
        at += max(2, int.from_bytes(data[at : at + 2], "big"))
    return frame

"""Decoders that see damage and go on: made to stop, by their options or by listening to what they log."""

import av
import av.logging

from lary_worker.media.binary import DamagedError

_OPTIONS = {
    # Measured on flipped bytes of small clips: half of those that change an MJPEG picture are seen so, and none else.
    "mjpeg": {"err_detect": "explode"},
    # Compares pictures with the hash that some encoders send with them.
    "hevc": {"err_detect": "crccheck+explode"},
}


def make_strict(stream: av.VideoStream) -> None:
    """Before the first packet: the codec's own checks become errors. On whole clips nothing changes."""
    context = stream.codec_context
    context.options = _OPTIONS.get(context.codec.canonical_name, {})


def decode(packet: av.Packet, codec: str) -> list[av.VideoFrame]:
    """The pictures of a packet. Raises FFmpegError, and DamagedError for what FFV1's decoder only logs."""
    if codec != "ffv1":
        return _pictures(packet)
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture() as heard:
            pictures = _pictures(packet)
    finally:
        av.logging.set_level(level)
    for _, _, message in heard:
        # It conceals such a slice with the one of the picture before and marks nothing.
        if "CRC mismatch" in message:
            raise DamagedError(0, f"is damaged: {message.strip()}")
    return pictures


def _pictures(packet: av.Packet) -> list[av.VideoFrame]:
    return [frame for frame in packet.decode() if isinstance(frame, av.VideoFrame)]

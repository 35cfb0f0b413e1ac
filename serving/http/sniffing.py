"""What an upload is, by its own first bytes and never by its name or declared type: told before a decoder sees it."""

import re

from data_shards.decode import is_container
from data_shards.errors import ClipError

__all__ = ["HEAD_BYTES", "check_clip"]

HEAD_BYTES = 4096
# What ffmpeg would take for a list of other files or addresses. Its probe for SDP looks at every line (libavformat/rtsp.c,
# sdp_probe) and that for DASH for the tag anywhere, so a container's first bytes before them do not make them harmless.
_FOLLOWED = re.compile(rb"\A\s*#EXTM3U|\A\s*ffconcat|\A\s*\[playlist\]|(?:\A|[\r\n])c=IN IP|<MPD[\s>]|<SmoothStreamingMedia")
_KINDS: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"\s*(<!doctype html|<html|<head|<script|<body)", re.IGNORECASE), "a web page"),
    (re.compile(rb"\s*(<\?xml|<svg)", re.IGNORECASE), "an XML file"),
    (re.compile(rb"PK\x03\x04|PK\x05\x06|\x1f\x8b|7z\xbc\xaf|Rar!|\xfd7zXZ|BZh|\x28\xb5\x2f\xfd"), "an archive"),
    (re.compile(rb"\x89PNG|\xff\xd8\xff|GIF8|BM|II\*\x00|MM\x00\*|RIFF....WEBP", re.DOTALL), "a picture"),
    (re.compile(rb"ID3|RIFF....WAVE|fLaC|\xff[\xf1\xf9\xfb\xf3]", re.DOTALL), "a sound file"),
    (re.compile(rb"%PDF"), "a PDF"),
    (re.compile(rb"\x7fELF|MZ|#!"), "a program"),
)
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1f]")


def check_clip(clip: bytes) -> None:
    """ClipError, which says what the upload is, where it is no video container, or might lead a decoder to other files. clip:
    its first HEAD_BYTES, or all of it."""
    head = clip[:HEAD_BYTES]
    if not head:
        raise ClipError("the upload is empty; send a video file")
    if _FOLLOWED.search(head):
        raise ClipError(
            "not a video container but a list of other files or addresses, which is not followed; send the video itself"
        )
    if not _BINARY.search(head):
        kind = next((name for pattern, name in _KINDS if pattern.match(head)), "text")
        raise ClipError(f"not a video container but {kind}; send a video file")
    if not is_container(head):
        kind = next((f" but {name}" for pattern, name in _KINDS if pattern.match(head)), "")
        readable = "avi, mp4, mov, mkv, webm, mpeg, ts, flv, ogg or wmv"
        raise ClipError(f"not a video container{kind}; send a video file ({readable})")

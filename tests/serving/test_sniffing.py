"""What an upload is, by its bytes: lists of other files are told from clips, whatever they begin with."""

from pathlib import Path

import pytest

from data_shards.errors import ClipError
from serving.http.sniffing import check_clip

SDP = b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 10.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"


@pytest.mark.parametrize(
    ("clip", "reason"),
    [
        (b"", "the upload is empty"),
        (b"#EXTM3U\n#EXT-X-VERSION:3\nfile:///etc/passwd\n", "a list of other files or addresses"),
        (b"\n\n#EXTM3U\nhttp://10.0.0.1/a.ts\n", "a list of other files or addresses"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "a list of other files or addresses"),
        (SDP, "a list of other files or addresses"),
        (b"FLV\n" + SDP, "a list of other files or addresses"),
        (b"OggS\r\n" + SDP, "a list of other files or addresses"),
        (b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isom\n" + SDP, "a list of other files or addresses"),
        (b"G\n" + SDP.ljust(186) + b"G", "a list of other files or addresses"),
        (b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011">', "a list of other files or addresses"),
        (b"[playlist]\nFile1=http://10.0.0.1/", "a list of other files or addresses"),
        (b"<!DOCTYPE html><script>alert(1)</script>", "a web page"),
        (b"  <HTML><body>", "a web page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an XML file"),
        (b"G" + b"just text that has a G where a packet would begin".ljust(187) + b"G", "text"),
        (b"skipFLV nothing but words", "text"),
        (b"FLV nothing but words", "text"),
        (b"PK\x03\x04" + b"\x00" * 100, "an archive"),
        (b"\x89PNG\r\n\x1a\n" + b"\x00" * 100, "a picture"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt " + b"\x00" * 100, "a sound file"),
        (b"%PDF-1.7\n\x00", "a PDF"),
        (b"\x7fELF\x02\x01\x01\x00", "a program"),
        (b"\x00" * 5000, "avi, mp4, mov"),
    ],
)
def test_what_is_no_clip_is_called_what_it_is(clip: bytes, reason: str) -> None:
    with pytest.raises(ClipError, match=reason):
        check_clip(clip)


def test_every_shared_video_passes(real_data: Path) -> None:
    videos = sorted((real_data / "videos").iterdir())
    assert videos
    for video in videos:
        check_clip(video.read_bytes()[:8192])


def test_simulated_clips_pass(simulated_folder: Path) -> None:
    for clip in sorted((simulated_folder / "clips").iterdir())[:4]:
        check_clip(clip.read_bytes())

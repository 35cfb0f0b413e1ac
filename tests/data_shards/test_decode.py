"""Decoding real and hand-made videos: which frames, which way up, and a named reason where it cannot be done."""

import re
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from data_shards.decode import DecodeLimits, decode_clip
from data_shards.decode_in_order import starts_by_packets, starts_in_order
from data_shards.errors import ClipError


def same_size(width: int, height: int) -> tuple[int, int]:
    return width, height


def write_video(path: Path, times_s: list[float], *, size: tuple[int, int] = (64, 48), with_audio_only: bool = False) -> Path:
    """An H.264 mp4 whose frame i has brightness 10 + 6 i, shown from times_s[i] on."""
    with av.open(str(path), "w") as container:
        if with_audio_only:
            stream = container.add_stream("aac", rate=16000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 16000
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                container.mux(packet)
            return path
        stream = container.add_stream("libx264", rate=30, options={"crf": "4"})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for number, time_s in enumerate(times_s):
            pixels = np.full((size[1], size[0], 3), 10 + 6 * number, np.uint8)
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.pts, picture.time_base = round(time_s * 1000), Fraction(1, 1000)
            for packet in stream.encode(picture):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path


def frame_numbers(frames_THWC: np.ndarray) -> list[int]:
    return [round((float(frame.mean()) - 10) / 6) for frame in frames_THWC]


def test_frames_are_spread_evenly_at_a_constant_rate(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [i / 10 for i in range(20)])
    clip = decode_clip(path, num_frames=5, frame_size=same_size)
    # the centres of five equal parts of 20 frames
    assert frame_numbers(clip.frames_THWC) == [2, 6, 10, 14, 18]
    assert clip.times_T.tolist() == pytest.approx([0.2, 0.6, 1.0, 1.4, 1.8])
    assert clip.fps == pytest.approx(10, rel=0.1)


def test_a_variable_rate_is_sampled_in_seconds_not_in_frames(tmp_path: Path) -> None:
    # ten frames in the first second, then one each second: frame 9 is on screen from 0.9 s to 2 s
    path = write_video(tmp_path / "a.mp4", [i / 10 for i in range(10)] + [2.0, 3.0, 4.0])
    clip = decode_clip(path, num_frames=4, frame_size=same_size)
    assert frame_numbers(clip.frames_THWC)[1:3] == [9, 10]
    assert np.all(np.diff(clip.times_T) >= 0)


def test_a_clip_with_too_few_frames_repeats_them(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [0.0, 0.1, 0.2])
    clip = decode_clip(path, num_frames=6, frame_size=same_size)
    assert frame_numbers(clip.frames_THWC) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("name", ["swiz3n.mpg", "bbaf2n.mpg"])
def test_a_program_stream_gives_the_frames_that_are_asked_for(real_data: Path, name: str) -> None:
    # decord seeks in these by guess, and its frames come twelve late
    path = real_data / "videos" / name
    with av.open(str(path)) as container:
        whole = [frame.to_ndarray(format="rgb24").astype(float) for frame in container.decode(video=0)]
    clip = decode_clip(path, num_frames=15, frame_size=same_size)
    nearest = [int(np.argmin([np.abs(frame - other).mean() for other in whole])) for frame in clip.frames_THWC]
    assert nearest == [int((part + 0.5) * 5) for part in range(15)]
    assert (clip.num_frames, clip.fps, clip.duration_s) == (75, 25.0, 3.0)


@pytest.mark.parametrize("container", ["ts", "mpg"])
def test_a_stream_without_an_index_is_sampled_evenly(tmp_path: Path, container: str) -> None:
    path = tmp_path / f"a.{container}"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(40):
            pixels = np.full((48, 64, 3), 10 + 6 * number, np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode(None))
    clip = decode_clip(path, num_frames=8, frame_size=same_size)
    assert frame_numbers(clip.frames_THWC) == [2, 7, 12, 17, 22, 27, 32, 37]
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])  # cut short: what is there is read
    assert decode_clip(path, num_frames=4, frame_size=same_size).num_frames < 40


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_what_a_browser_recorded_has_no_duration_in_its_header_and_is_sampled_evenly(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "a.webm"
    with av.open(str(path), "w", options={"live": "1"}) as output:  # the muxer then cannot go back to write a duration
        stream = output.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(40):
            pixels = np.full((48, 64, 3), 10 + 6 * number, np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode(None))
    with av.open(str(path)) as container:
        assert container.duration is None
    clip = decode_clip(path, num_frames=8, frame_size=same_size)
    assert frame_numbers(clip.frames_THWC) == [2, 7, 12, 17, 22, 27, 32, 37]
    assert clip.duration_s == pytest.approx(1.6, abs=0.01)


def test_what_a_browser_recorded_of_an_unsteady_camera_is_sampled_evenly(tmp_path: Path) -> None:
    path = tmp_path / "a.webm"
    at_ms = [max(0, 40 * number + (0, 7, -9, 4, 11, -3, 0)[number % 7]) for number in range(40)]
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libvpx", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for number, time_ms in enumerate(at_ms):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 10 + 6 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    default_duration, void = re.compile(rb"\x23\xe3\x83\x84....", re.DOTALL), b"\xec\x86" + bytes(6)
    path.write_bytes(default_duration.sub(lambda found: void, path.read_bytes(), count=1))
    with av.open(str(path)) as container:  # like a browser's: it says no time from frame to frame
        assert container.streams.video[0].average_rate is None
        assert container.duration is not None
    clip = decode_clip(path, num_frames=8, frame_size=same_size)
    assert frame_numbers(clip.frames_THWC) == [2, 7, 12, 17, 22, 27, 32, 37]
    assert clip.times_T.tolist() == [at_ms[number] / 1000 for number in frame_numbers(clip.frames_THWC)]
    assert clip.fps == pytest.approx(25, rel=0.01)  # not the container's clock, 1000 a second
    assert clip.duration_s == pytest.approx(1.6, abs=0.02)


@pytest.mark.parametrize("damaged", [None, 5])
def test_a_packet_that_gives_no_picture_does_not_shift_the_frames(tmp_path: Path, damaged: int | None) -> None:
    """The frames' numbers are first guessed from the packets; where one gives no picture they are counted again."""
    path = tmp_path / "a.webm"
    with av.open(str(path), "w", options={"live": "1"}) as output:
        stream = output.add_stream("libvpx", rate=25, options={"g": "1"})  # each frame for itself
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        packets = []
        for number in range(40):
            pixels = np.full((48, 64, 3), 10 + 6 * number, np.uint8)
            packets += stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24"))
        for number, packet in enumerate([*packets, *stream.encode(None)]):
            if number == damaged:
                broken = av.Packet(b"\x10" + bytes(40))  # says that it is a key frame, and is none
                broken.pts, broken.dts, broken.time_base, broken.stream = packet.pts, packet.dts, packet.time_base, stream
                output.mux(broken)
            else:
                output.mux(packet)
    told_N = starts_by_packets(path, max_frames=100)
    found_N, _ = starts_in_order(path, max_frames=100)
    assert told_N is not None
    assert (len(told_N), len(found_N)) == (41, 41 if damaged is None else 40)
    clip = decode_clip(path, num_frames=40, frame_size=same_size)
    on_screen = [4 if number == damaged else number for number in range(40)]
    assert frame_numbers(clip.frames_THWC) == on_screen
    assert starts_by_packets(path, max_frames=39) is None


def test_a_recording_of_one_frame_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.webm"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libvpx", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        output.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 70, np.uint8), format="rgb24")))
        output.mux(stream.encode(None))
    clip = decode_clip(path, num_frames=3, frame_size=same_size)
    assert frame_numbers(clip.frames_THWC) == [10, 10, 10]
    assert (clip.num_frames, clip.duration_s) == (1, 0.04)


@pytest.mark.parametrize(("name", "quarter_turns"), [("rot_0.mov", 0), ("rot_90.mov", 3), ("rot_180.mov", 2)])
def test_rotated_recordings_come_out_upright(real_data: Path, name: str, quarter_turns: int) -> None:
    path = real_data / "videos" / name
    with av.open(str(path)) as container:
        as_stored = next(container.decode(video=0)).to_ndarray(format="rgb24")  # PyAV leaves the rotation out
    upright = decode_clip(path, num_frames=3, frame_size=same_size).frames_THWC[0]

    def distance(turns: int) -> float:
        turned = np.rot90(as_stored, turns)
        return float(np.abs(turned.astype(float) - upright).mean()) if turned.shape == upright.shape else np.inf

    assert distance(quarter_turns) < 3
    assert min(distance(turns) for turns in range(4) if turns != quarter_turns) > 10


def test_every_shared_clip_but_the_damaged_one_is_decoded(real_data: Path) -> None:
    failed = {}
    for path in sorted((real_data / "videos").iterdir()):
        try:
            clip = decode_clip(path, num_frames=4, frame_size=lambda w, h: (64, 48))
            assert clip.frames_THWC.shape == (4, 48, 64, 3), path.name
            assert clip.frames_THWC.std() > 5, f"{path.name} came out blank"
        except ClipError as error:
            failed[path.name] = str(error)
    assert list(failed) == ["corrupted.mp4"]
    assert failed["corrupted.mp4"] == "corrupted.mp4: damaged, cannot be decoded (Error sending packet); re-encode it"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"hello, I am a text file", "not a video container"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n/etc/passwd\n", "not a video container"),
        (b"ffconcat version 1.0\nfile '/etc/passwd'\n", "not a video container"),
        (b"\x00\x00\x00\x20ftypisom" + b"\x00" * 64, "damaged"),
        (b"RIFF\x00\x10\x00\x00AVI " + b"\xff" * 200, "no video stream"),
        (b"\x1a\x45\xdf\xa3" + b"\x11" * 200, "damaged"),
    ],
)
def test_what_is_no_video_gets_a_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(ClipError, match=reason):
        decode_clip(path, num_frames=4, frame_size=same_size)


def test_a_codec_nobody_knows_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [0.0, 0.1, 0.2])
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(ClipError, match=r"codec|damaged"):
        decode_clip(path, num_frames=4, frame_size=same_size)


def test_sound_alone_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [], with_audio_only=True)
    with pytest.raises(ClipError, match="no video stream"):
        decode_clip(path, num_frames=4, frame_size=same_size)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match="No such file"):
        decode_clip(tmp_path / "none.mp4", num_frames=4, frame_size=same_size)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (DecodeLimits(max_pixels=1000), "over the limit of 1000 pixels"),
        (DecodeLimits(max_duration_s=0.5), "over the limit of 0 s"),
        (DecodeLimits(max_frames=3), "20 frames where 1 to 3"),
        (DecodeLimits(max_aspect=1.1), "no picture of a person"),
    ],
)
def test_each_limit_is_kept(tmp_path: Path, limits: DecodeLimits, reason: str) -> None:
    path = write_video(tmp_path / "a.mp4", [i / 10 for i in range(20)])
    with pytest.raises(ClipError, match=reason):
        decode_clip(path, num_frames=4, frame_size=same_size, limits=limits)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_recording_is_refused_or_read_never_a_crash(tmp_path: Path, share: float) -> None:
    whole = write_video(tmp_path / "a.mp4", [i / 10 for i in range(40)]).read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ClipError, match=r"cut\.mp4"):
        decode_clip(path, num_frames=4, frame_size=same_size)

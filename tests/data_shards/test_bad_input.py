"""One build over every kind of bad file: each is named with its own reason, and nothing else is lost."""

import json
import struct
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest

from data_shards.build import build_shards
from data_shards.datasets import DATASETS
from data_shards.preprocess import PreprocessConfig
from data_shards.reader import ShardSet
from data_shards.source import Source
from data_shards.verify import verify_shards
from tests.data_shards.test_decode import write_video

GOOD = ("good.mp4", "variable-rate.mp4", "zero-fps.avi", "an-avi-called.mp4")
# file: what its reason must say
BAD = {
    "empty.mp4": "empty file",
    "cut.mp4": "damaged",
    "cut.avi": "damaged",
    "sound.mp4": "no video stream",
    "8k.mp4": "7680x4320 pixels a frame, over the limit",
    "ten-hours.mp4": "36000 s long, over the limit",
    "protected.mp4": "protected by a password or a key",
    "a-locked-zip.mp4": "not a video container",
    "a-picture.mp4": "not a video container",
    "a-text.avi": "not a video container",
    "a-playlist.mp4": "not a video container",
}


def write_avi(path: Path) -> bytes:
    """MPEG-4 in AVI, 20 frames at 10 fps."""
    with av.open(str(path), "w", format="avi") as container:
        encode(container, container.add_stream("mpeg4", rate=10))
    return path.read_bytes()


def encode(container, stream) -> None:  # type: ignore[no-untyped-def]
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    for number in range(20):
        picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 10 + 6 * number, np.uint8), format="rgb24")
        container.mux(stream.encode(picture))
    container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    whole = write_video(folder / "good.mp4", [i / 10 for i in range(20)]).read_bytes()
    write_video(folder / "variable-rate.mp4", [0.0, 0.1, 0.2, 1.5, 1.6, 4.0])
    avi = write_avi(folder / "an-avi-called.mp4")
    without_rate = bytearray(avi)
    main, stream = avi.index(b"avih") + 8, avi.index(b"strh") + 8
    without_rate[main : main + 4] = without_rate[stream + 24 : stream + 28] = struct.pack("<I", 0)
    (folder / "zero-fps.avi").write_bytes(without_rate)

    (folder / "empty.mp4").write_bytes(b"")
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "cut.avi").write_bytes(avi[: len(avi) // 20])
    write_video(folder / "sound.mp4", [], with_audio_only=True)
    write_video(folder / "8k.mp4", [0.0, 0.1], size=(7680, 4320))
    write_video(folder / "ten-hours.mp4", [0.0, 36000.0])
    secret = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "00" * 16, "encryption_kid": "11" * 16}
    with av.open(str(folder / "protected.mp4"), "w", options=secret) as container:
        encode(container, container.add_stream("libx264", rate=10))
    with zipfile.ZipFile(folder / "a-locked-zip.mp4", "w") as archive:
        archive.writestr("clip.mp4", whole)
    (folder / "a-picture.mp4").write_bytes(b"\xff\xd8\xff\xe0" + bytes(200))
    (folder / "a-text.avi").write_text("not a film")
    (folder / "a-playlist.mp4").write_text("#EXTM3U\nfile:///etc/passwd\n")
    rows = [f"{name},1,p{number},train" for number, name in enumerate([*GOOD, *BAD])]
    (folder / "labels.csv").write_text("\n".join(["clip,label,subject,split", *rows]) + "\n")
    return folder


def test_each_has_its_reason_and_nothing_else_is_lost(folder: Path, tmp_path: Path) -> None:
    config = PreprocessConfig(num_frames=4, size_px=32)
    manifest = build_shards(DATASETS["folder"](Source(folder)), tmp_path, preprocess=config, num_workers=1)
    rejects = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]
    reasons = {reject["clip_id"]: reject["reason"] for reject in rejects}
    assert reasons.keys() == BAD.keys()
    wrong = {name: reasons[name] for name, words in BAD.items() if words not in reasons[name]}
    assert wrong == {}
    shards = ShardSet(tmp_path, splits=("train",))
    assert sorted(shards.read(n).meta.clip_id for n in range(len(shards))) == sorted(GOOD)
    assert manifest.num_rejected == len(BAD)
    assert verify_shards(tmp_path)[1] == []


def test_a_file_without_a_frame_rate_is_sampled_in_its_frames_order(folder: Path, tmp_path: Path) -> None:
    build_shards(
        DATASETS["folder"](Source(folder)), tmp_path, preprocess=PreprocessConfig(num_frames=4, size_px=32), num_workers=1
    )
    shards = ShardSet(tmp_path, splits=("train",))
    samples = [shards.read(n) for n in range(len(shards))]
    (sample,) = (sample for sample in samples if sample.meta.clip_id == "zero-fps.avi")
    brightness = sample.decode_frames().mean(axis=(1, 2, 3))
    assert brightness.tolist() == sorted(brightness.tolist())
    assert brightness[-1] - brightness[0] > 80

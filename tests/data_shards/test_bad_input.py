"""One build over every kind of bad file: each is named with its own reason, and nothing else is lost."""

import json
import os
import struct
import tracemalloc
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest

from data_shards.building.build import build_shards
from data_shards.building.verify import verify_shards
from data_shards.datasets import DATASETS, cmose, engagewild
from data_shards.decode import decode_clip
from data_shards.errors import ClipError, DataError, ShardError
from data_shards.features import from_npy, to_npy
from data_shards.listing import ListedClip, Listing
from data_shards.manifest import ShardIndex, index_name
from data_shards.preprocess import PreprocessConfig
from data_shards.reading.reader import ShardSet
from data_shards.rejects import read_rejects
from data_shards.storage.source import Source
from tests.data_shards import layouts
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


def write_protected(path: Path) -> Path:
    secret = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "00" * 16, "encryption_kid": "11" * 16}
    with av.open(str(path), "w", options=secret) as container:
        encode(container, container.add_stream("libx264", rate=10))
    return path


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
    write_protected(folder / "protected.mp4")
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


def test_a_protected_clip_is_named_so_wherever_the_decoder_stumbles(tmp_path: Path) -> None:
    # the initial vector is drawn anew: about every eighth clip cannot even be opened, the others fail at a frame
    for number in range(40):
        with pytest.raises(ClipError, match="protected by a password or a key"):
            decode_clip(write_protected(tmp_path / f"{number}.mp4"), num_frames=4, frame_size=lambda w, h: (32, 32))


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


def test_every_flipped_bit_of_an_arrays_header_is_read_or_is_one_sentence(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    clip = ListedClip(clip_id="a", subject="p", split="train", labels={"engagement": 1}, features={"f": values})
    listing = Listing(dataset="engagewild", label_names=cmose.LABEL_NAMES, clips=(clip,))
    entry = build_shards(listing, tmp_path, preprocess=PreprocessConfig()).shards[0]
    index = ShardIndex.from_bytes((tmp_path / index_name(entry.name)).read_bytes(), origin="index")
    start, size_bytes = index.samples[0].members["f.npy"]
    whole = (tmp_path / entry.name).read_bytes()
    reasons = []
    for bit in range(8 * (size_bytes - values.nbytes)):
        damaged = bytearray(whole)
        damaged[start + bit // 8] ^= 1 << bit % 8
        (tmp_path / entry.name).write_bytes(damaged)
        shards = ShardSet(tmp_path, splits=("train",))
        try:
            assert shards.read(0).features["f"].size == 6
        except ShardError as error:
            reasons.append(str(error))
        shards.close()
    assert len(reasons) > 100
    assert [reason for reason in reasons if ", f: not a readable array" not in reason or "\n" in reason] == []
    assert len(verify_shards(tmp_path)[1]) == 1  # a wrong sha256 says it all


@pytest.mark.parametrize("shape", [b"(99999999,)", b"(9999,9999)", b"(-1, -1,)  ", b"(0, 10**20)", b"(1e9,)     "])
def test_a_forged_shape_is_refused_before_anything_of_that_size_is_made(shape: bytes) -> None:
    forged = to_npy(np.zeros((10, 10), dtype=np.float32)).replace(b"(10, 10), }     ", shape + b", }  ")
    assert shape in forged
    tracemalloc.start()
    with pytest.raises(ShardError, match="not a readable array"):
        from_npy(forged, origin="a.tar")
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_packed_arrays_with_any_byte_changed_are_read_or_are_one_sentence(tmp_path: Path) -> None:
    arrays = {f"x_{key}": np.zeros((2, 1, 1)) for key in ("train", "val")} | {f"y_{key}": np.zeros(2) for key in ("train", "val")}
    np.savez_compressed(tmp_path / "openface_15.npz", **arrays)  # type: ignore[arg-type]
    whole = (tmp_path / "openface_15.npz").read_bytes()
    reasons = set()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1  # of a member's flags, bit 0 says that it is encrypted
        layouts.put(tmp_path, "openface_15.npz", bytes(damaged))
        try:
            engagewild.list_clips(Source(tmp_path))
        except DataError as error:
            reasons.add(str(error))
    assert not any("\n" in reason for reason in reasons)
    assert any("password required" in reason for reason in reasons)
    assert any("while decompressing data" in reason for reason in reasons)


def test_an_integer_too_large_for_a_float_loses_one_record(tmp_path: Path) -> None:
    records = layouts.cmose_records()
    records["video1_1_person0"]["embeds"] = [10**400] * 1024
    layouts.put(tmp_path, "final_data_1.json", json.dumps(records))
    listing = cmose.list_clips(Source(tmp_path))
    (reject,) = [reject for reject in listing.rejects if "finite numbers" in reject.reason]
    assert reject.clip_id == "video1_1_person0"
    assert len(listing.clips) == 2


def test_a_file_that_goes_after_it_was_listed_loses_one_clip(tmp_path: Path) -> None:
    layouts.cmose(tmp_path / "source")
    listing = DATASETS["cmose"](Source(tmp_path / "source"))
    (tmp_path / "source/secondFeature/secondFeature/video1_2_person0.csv").unlink()
    build_shards(listing, tmp_path / "out", preprocess=PreprocessConfig(), num_workers=1)
    (reject,) = read_rejects(tmp_path / "out")
    assert reject.clip_id == "video1_2_person0"
    assert "video1_2_person0.csv: cannot be read from" in reject.reason
    assert "put it back" in reject.reason


def test_a_label_file_that_is_not_as_long_as_listed_is_refused(tmp_path: Path) -> None:
    layouts.folder(tmp_path)
    source = Source(tmp_path)
    whole = (tmp_path / "labels.csv").read_bytes()
    (tmp_path / "labels.csv").write_bytes(whole[:-20])
    with pytest.raises(DataError, match=rf"labels\.csv: {len(whole) - 20} bytes came where {len(whole)} were listed"):
        source.read("labels.csv")


def test_a_file_name_that_is_no_text_is_a_reject_that_can_be_read(folder: Path, tmp_path: Path) -> None:
    layouts.put(tmp_path, "source/a.mp4", (folder / "good.mp4").read_bytes())
    layouts.put(tmp_path, "source/labels.csv", "clip,label,subject,split\na.mp4,1,p,train\n")
    (tmp_path / "source" / os.fsdecode(b"\xff.mp4")).write_bytes(b"video")
    listing = DATASETS["folder"](Source(tmp_path / "source"))
    build_shards(listing, tmp_path / "out", preprocess=PreprocessConfig(num_frames=2, size_px=32), num_workers=1)
    (reject,) = read_rejects(tmp_path / "out")
    assert reject.source == "?.mp4"


def test_a_clip_id_that_is_no_text_is_built_and_read(tmp_path: Path) -> None:
    clips = tuple(
        ListedClip(clip_id=name, subject="p", split="train", labels={"engagement": 1}, features={"f": np.ones(2, np.float32)})
        for name in ("\udcff", "\udcfe")
    )
    listing = Listing(dataset="engagewild", label_names=cmose.LABEL_NAMES, clips=clips)
    build_shards(listing, tmp_path, preprocess=PreprocessConfig(), num_workers=1)
    shards = ShardSet(tmp_path, splits=("train",))
    assert [shards.read(number).meta.clip_id for number in range(len(shards))] == ["?", "?"]

"""Transcripts and OpenFace CSVs find their clip by its name, and are neither labels nor videos."""

import re
from pathlib import Path

import pytest

from data_shards.datasets import DATASETS
from data_shards.datasets.sidecar_files import transcript_beside
from data_shards.errors import ClipError
from data_shards.extraction.extract import extract_features, material_of
from data_shards.extraction.openface import OpenFace, OpenFaceSettings
from data_shards.listing import ListedClip, Listing
from data_shards.storage.source import Source
from tests.data_shards.layouts import LAYOUTS, put


def folder_of(root: Path, *files: str) -> Listing:
    """The listing of a folder in which every video has a row."""
    for name in files:
        put(root, name, name)
    videos = [name for name in files if name.endswith((".mp4", ".avi"))]
    put(root, "labels.csv", "clip,label,subject,split\n" + "".join(f"{name},1,p1,train\n" for name in videos))
    return DATASETS["folder"](Source(root))


def found(clip: ListedClip) -> tuple[str, str]:
    return (clip.transcript.name if clip.transcript else "", clip.openface_csv.name if clip.openface_csv else "")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ("a.mp4", ("", "")),
        ("a.mp4 a.vtt a.csv", ("a.vtt", "a.csv")),
        ("clips/a.mp4 text/deep/a.srt numbers/a.CSV", ("text/deep/a.srt", "numbers/a.CSV")),
        ("clips/a.mp4 transcripts/a.json openface/a.csv", ("transcripts/a.json", "openface/a.csv")),
        ("clips/a.mp4 behaviour/a.json a.json", ("", "")),
        ("clips/a.mp4 clips/a.vtt Transcripts/a.srt clips/a.csv x/OpenFace/a.csv", ("Transcripts/a.srt", "x/OpenFace/a.csv")),
        ("clips/a.mp4 b.vtt transcripts/ab.vtt openface/labels.csv", ("", "")),
        ("labels.mp4", ("", "labels.csv")),  # its very name: nothing else can be known
    ],
)
def test_a_file_of_the_videos_name_is_the_videos(files: str, expected: tuple[str, str], tmp_path: Path) -> None:
    listing = folder_of(tmp_path, *files.split())
    assert not listing.rejects
    assert [found(clip) for clip in listing.clips] == [expected]


def test_videos_of_one_name_each_have_the_files_of_their_own_folder(tmp_path: Path) -> None:
    listing = folder_of(
        tmp_path, "clips/train/1.mp4", "clips/test/1.mp4", "clips/1.mp4", "transcripts/train/1.vtt", "openface/clips/test/1.csv",
        "clips/test/1.srt",
    )  # fmt: skip
    assert not listing.rejects
    assert {clip.clip_id: found(clip) for clip in listing.clips} == {
        "clips/train/1.mp4": ("transcripts/train/1.vtt", ""),
        "clips/test/1.mp4": ("clips/test/1.srt", "openface/clips/test/1.csv"),
        "clips/1.mp4": ("", ""),
    }


@pytest.mark.parametrize(
    ("files", "reasons"),
    [
        (
            "a.mp4 transcripts/a.vtt transcripts/a.srt",
            ["clip a: transcripts/a.srt and transcripts/a.vtt both have its name; rename"],
        ),
        ("a.mp4 x/a.csv y/a.csv", ["clip a: x/a.csv and y/a.csv both have its name; rename or remove one"]),
        (
            "x/a.mp4 y/a.mp4 transcripts/a.vtt",
            [
                "transcripts/a.vtt: may belong to x/a.mp4 or to y/a.mp4; rename one of the videos, and the file with it",
                "transcripts/a.vtt: may belong to y/a.mp4 or to x/a.mp4; rename",
            ],
        ),
    ],
)
def test_what_cannot_be_told_apart_is_lacking_with_a_reason_and_the_clip_is_kept(
    files: str, reasons: list[str], tmp_path: Path
) -> None:
    listing = folder_of(tmp_path, "other.mp4", "other.vtt", *files.split())
    assert not listing.rejects
    other, *clips = listing.clips
    assert (found(other), other.unclear) == (("other.vtt", ""), {})
    kind = "openface_csv" if "csv" in files else "transcript"
    assert [found(clip) for clip in clips] == [("", "")] * len(reasons)
    for clip, reason in zip(clips, reasons, strict=True):
        assert list(clip.unclear) == [kind]
        assert clip.unclear[kind].startswith(reason)
        with material_of(clip) as material:
            if kind == "transcript":
                with pytest.raises(ClipError, match=re.escape(reason)):
                    assert material.words
            else:
                csv = OpenFace(OpenFaceSettings(source="csv"))
                assert extract_features(material, {"openface": csv}).lacking["openface"].startswith(reason)


def test_a_dataset_told_by_stems_keeps_such_a_clip_too(tmp_path: Path) -> None:
    for name, stem in (("daisee", "1100011001"), ("cmose", "video1_1_person0")):
        root = tmp_path / name
        LAYOUTS[name](root)
        put(root, f"transcripts/{stem}.vtt")
        put(root, f"transcripts/{stem}.srt")
        listing = DATASETS[name](Source(root))
        assert listing.rejects == ()
        assert {clip.clip_id: list(clip.unclear) for clip in listing.clips if clip.unclear} == {stem: ["transcript"]}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ("", None),
        ("clips/a.srt clips/b.vtt clips/a.json", "clips/a.srt"),
        ("clips/a.SRT clips/a.Vtt", "clips/a.Vtt"),
        ("clips/a.vtt transcripts/a.VTT", "transcripts/a.VTT"),
        ("clips/Transcript/a.json", "clips/Transcript/a.json"),
        ("transcripts/ab.vtt words/a.vtt", None),
    ],
)
def test_a_single_clips_transcript_is_found_beside_it(
    files: str, expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in files.split():
        put(tmp_path, name)
    assert transcript_beside(tmp_path / "clips" / "a.mp4") == (tmp_path / expected if expected else None)
    put(tmp_path, "clips/a.mp4")
    monkeypatch.chdir(tmp_path / "clips")
    assert transcript_beside(Path("a.mp4")) == (tmp_path / expected if expected else None)


def test_a_simulated_set_gives_each_clip_its_own_files(simulated_folder: Path) -> None:
    listing = DATASETS["simulated"](Source(simulated_folder))
    assert not listing.rejects
    for clip in listing.clips:
        stem = Path(clip.clip_id).stem
        assert found(clip) == (f"transcripts/{stem}.vtt", f"openface/{stem}.csv")


@pytest.mark.parametrize(
    ("name", "stem", "openface"), [("daisee", "1100011001", "openface/1100011001.csv"), ("cmose", "video1_1_person0", "")]
)
def test_published_datasets_take_what_somebody_made_beside_them(name: str, stem: str, openface: str, tmp_path: Path) -> None:
    LAYOUTS[name](tmp_path)
    before = DATASETS[name](Source(tmp_path))
    put(tmp_path, f"transcripts/{stem}.vtt")
    if openface:
        put(tmp_path, openface)
    listing = DATASETS[name](Source(tmp_path))
    assert listing.rejects == before.rejects == ()
    assert [clip.clip_id for clip in listing.clips] == [clip.clip_id for clip in before.clips]
    own = {clip.clip_id: found(clip) for clip in listing.clips}
    assert own.pop(stem) == (f"transcripts/{stem}.vtt", openface)
    assert set(own.values()) == {("", "")}

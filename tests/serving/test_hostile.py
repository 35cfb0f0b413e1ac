"""Hostile files and requests against a real server: a sample of what `benchmarks/hostile_campaign.py` does."""

from pathlib import Path

from data_shards.decode import decode_clip
from data_shards.errors import ClipError
from tests.serving.hostile.campaign import all_attacks, campaign, clips_of, sampled
from tests.serving.hostile.credentials import make_keys
from tests.serving.hostile.files import flipped, hostile_files
from tests.serving.hostile.target import attacked_server


def test_a_sample_of_attacks_gets_reasons_and_does_no_harm(tiny_bundle: Path, real_data: Path, tmp_path: Path) -> None:
    clips = clips_of(real_data / "videos")
    small = {name: content for name, content in clips.items() if not name.startswith("crowd")}
    face_model = real_data / "models" / "face_landmarker.task"
    with attacked_server(tiny_bundle, tmp_path, face_model=face_model) as target:
        attacks = sampled(all_attacks(small, target.canary.address, target.keys, target.jobs), 60, seed=1)
        verdict = campaign(target, attacks, clips["no_face.mp4"])
    assert verdict.failures == []
    assert verdict.measured["attacks"] >= 60
    assert len(verdict.rows) >= 20
    assert target.left_on_disk() == []
    assert list(target.temporary.iterdir()) == []


def test_every_kind_and_every_shared_video_is_among_the_whole_campaign(real_data: Path, tmp_path: Path) -> None:
    clips = clips_of(real_data / "videos")
    attacks = all_attacks(clips, "127.0.0.1:1", make_keys(tmp_path / "keys.json"), tmp_path)
    assert len(attacks) >= 1200
    of_each_clip = ("truncated", "bits flipped", "giant", "explain, truncated", "lesson: recording, truncated")
    of_all = (
        *("bomb", "elsewhere", "large", "endless", "content type", "header", "form", "file name", "slow", "many", "moment"),
        *("key", "two keys", "key over", "key scope", "way round"),
        *(f"lesson: {kind}" for kind in ("size", "piece", "id", "form", "endless", "slow", "end", "recording, elsewhere")),
    )
    names = {kind: [attack.name for attack in attacks if attack.kind == kind] for kind in (*of_each_clip, *of_all)}
    assert [kind for kind in names if not names[kind]] == []
    for kind in of_each_clip:
        assert [clip for clip in clips if not any(name.startswith(clip) for name in names[kind])] == [], kind


def test_a_damaged_file_is_another_than_the_clip(real_data: Path) -> None:
    clips = clips_of(real_data / "videos")
    kinds = ("truncated", "bits flipped", "giant")
    files = [file for file in hostile_files(clips, "127.0.0.1:1") if file.kind in kinds and file.name.startswith(tuple(clips))]
    assert len(files) > 20 * len(clips) - 40
    same = [file.name for file in files if file.make() in clips.values()]
    assert same == []


def test_a_reason_holds_no_path(real_data: Path, tmp_path: Path) -> None:
    reasons = []
    for number, name in enumerate(("5100462069.avi", "no_face.mp4", "rot_90.mov")):
        content = (real_data / "videos" / name).read_bytes()
        for seed in range(8):
            path = tmp_path / f"clip{number}"
            path.write_bytes(flipped(content, seed, flips=200))
            try:
                decode_clip(path, num_frames=4, frame_size=lambda width, height: (32, 32))
            except ClipError as error:
                reasons.append(str(error))
    assert len(reasons) > 5
    assert [reason for reason in reasons if str(tmp_path) in reason] == []

"""Hostile files and requests against a real server: a sample of what `benchmarks/hostile_campaign.py` does."""

from pathlib import Path

from data_shards.decode import decode_clip
from data_shards.errors import ClipError
from tests.serving.hostile.campaign import all_attacks, campaign, clips_of, sampled
from tests.serving.hostile.files import flipped
from tests.serving.hostile.target import attacked_server


def test_a_sample_of_attacks_gets_reasons_and_does_no_harm(tiny_bundle: Path, real_data: Path, tmp_path: Path) -> None:
    clips = clips_of(real_data / "videos")
    small = {name: content for name, content in clips.items() if not name.startswith("crowd")}
    with attacked_server(tiny_bundle, tmp_path / "tmp") as target:
        attacks = sampled(all_attacks(small, target.canary.address), 60, seed=1)
        verdict = campaign(target, attacks, clips["no_face.mp4"])
    assert verdict.failures == []
    assert verdict.measured["attacks"] >= 60
    assert len(verdict.rows) >= 20
    assert target.left_on_disk() == []
    assert list(target.temporary.iterdir()) == []


def test_the_whole_campaign_is_large(real_data: Path) -> None:
    assert len(all_attacks(clips_of(real_data / "videos"), "127.0.0.1:1")) >= 500


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

"""Augmentation is drawn once a clip, follows its draw key alone, and moves as much as it says and no more."""

import numpy as np
import pytest
import torch
from torch import Tensor

from training.augment import AugmentConfig, augment

EACH = [
    AugmentConfig(flip=True),
    AugmentConfig(brightness=0.3),
    AugmentConfig(contrast=0.4),
    AugmentConfig(saturation=0.6),
    AugmentConfig(rotate_deg=15),
    AugmentConfig(zoom=0.3),
    AugmentConfig(shift=0.2),
]
ALL = AugmentConfig(flip=True, brightness=0.2, contrast=0.2, saturation=0.2, rotate_deg=10, zoom=0.1, shift=0.1)


def keys(count: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 2**62, count))


def still_clips(count: int) -> Tensor:
    """Clips of five equal frames of smooth noise, RGB."""
    noise = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    image = torch.nn.functional.interpolate(noise, size=(32, 32), mode="bicubic").clamp(0, 1)
    return (60 + 120 * image).to(torch.uint8).unsqueeze(1).expand(count, 5, 3, 32, 32)


def name_of(config: AugmentConfig) -> str:
    return "+".join(config.model_dump(exclude_defaults=True))


@pytest.mark.parametrize("config", [*EACH, ALL], ids=name_of)
class TestEveryChange:
    def test_all_frames_of_a_clip_change_alike(self, config: AugmentConfig) -> None:
        changed = augment(still_clips(16), keys(16), config)
        assert changed.dtype == torch.uint8
        assert all(torch.equal(changed[:, 0], changed[:, t]) for t in range(5))
        assert not torch.equal(changed, still_clips(16))

    def test_it_follows_the_key_and_not_the_place_in_the_batch(self, config: AugmentConfig) -> None:
        whole = augment(still_clips(16), keys(16), config)
        part = augment(still_clips(16)[5:9], keys(16)[5:9], config)
        # float32 sums differ in their last digit with the batch's size, which may round to the next grey level
        assert (whole[5:9].int() - part.int()).abs().max() <= 1

    def test_no_frames_stay_none(self, config: AugmentConfig) -> None:
        assert augment(torch.empty(4, 0, 3, 0, 0, dtype=torch.uint8), keys(4), config).shape == (4, 0, 3, 0, 0)


def test_nothing_asked_for_changes_nothing() -> None:
    assert augment(still_clips(4), keys(4), AugmentConfig()) is not None
    assert torch.equal(augment(still_clips(4), keys(4), AugmentConfig()), still_clips(4))


def test_brightness_stays_within_its_bound() -> None:
    changed = augment(still_clips(64), keys(64), AugmentConfig(brightness=0.3))
    ratio = changed.float().mean((1, 2, 3, 4)) / still_clips(64).float().mean((1, 2, 3, 4))
    assert 0.69 < float(ratio.min()) < 0.80
    assert 1.20 < float(ratio.max()) < 1.31


def test_flip_mirrors_about_half_of_the_clips() -> None:
    frames = torch.arange(8, dtype=torch.uint8).expand(200, 1, 3, 4, 8)
    flipped = augment(frames, keys(200, seed=1), AugmentConfig(flip=True))[:, 0, 0, 0, 0] == 7
    assert 70 < int(flipped.sum()) < 130


def test_a_shift_moves_the_picture_by_at_most_its_share() -> None:
    frames = torch.zeros(64, 1, 3, 33, 33, dtype=torch.uint8)
    frames[..., 14:19, 14:19] = 255  # a square about the centre, (16, 16)
    changed = augment(frames, keys(64), AugmentConfig(shift=0.2)).float()[:, 0, 0]
    rows = torch.arange(33.0)
    moved = torch.stack([(changed.sum(2) * rows).sum(1), (changed.sum(1) * rows).sum(1)]) / changed.sum((1, 2)) - 16
    assert float(moved.abs().max()) <= 0.2 * 33 + 0.1
    assert float(moved.abs().max()) > 0.15 * 33


def test_a_turn_is_about_the_centre() -> None:
    frames = torch.zeros(64, 1, 3, 33, 33, dtype=torch.uint8)
    frames[..., 16, :] = 255  # a horizontal line through the centre
    changed = augment(frames, keys(64), AugmentConfig(rotate_deg=20)).float()[:, 0, 0]
    assert (changed[:, 16, 16] > 200).all()
    slope = (changed[:, :, 26].argmax(1) - changed[:, :, 6].argmax(1)).float() / 20
    assert float(slope.abs().max()) <= float(torch.tan(torch.deg2rad(torch.tensor(20.0)))) + 0.05
    assert float(slope.abs().max()) > 0.25

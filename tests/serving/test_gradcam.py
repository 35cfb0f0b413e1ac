"""Where the model looked: a model of which it is known, the wrong corner, layer or time must fail."""

from pathlib import Path

import numpy as np
import pytest
import torch

from data_shards.errors import ClipError
from data_shards.extraction.clip_sample import ClipSample, WindowSample, clip_sample
from data_shards.extraction.look import Look
from data_shards.preprocess import PreprocessConfig
from data_shards.sample import Sample, SampleMeta, encode_frames
from serving.gradcam import where_it_looked
from serving.predictor import Predictor
from training.bundle import read_record, save_bundle
from training.models.resnet_mean import ResNetMean, ResNetMeanSettings
from training.registry import RegisteredModel

SIZE_PX, FRAMES = 32, 4
TIMES_S = (1.0, 3.0, 5.0, 7.0)


@pytest.fixture(scope="module")
def red_finder(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """A model made by hand: it finds the uppermost level as probable as there is red in the picture, wherever that is."""
    settings = ResNetMeanSettings(widths=(1,), blocks=1)
    model = ResNetMean(settings, 4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.resnet.conv1.weight[0, 0, 3, 3] = 1.0  # red, as it is
        model.resnet.conv1.weight[0, 1:, 3, 3] = -1.0  # and no other colour
        model.resnet.bn1.weight.fill_(1.0)  # the block's own convolutions stay 0: its shortcut goes through
        model.head.weight[3, 0] = 1.0
    record = read_record(tiny_bundle)
    record = record.model_copy(
        update={
            "run": record.run.model_copy(update={"model": settings}),
            "preprocess": PreprocessConfig(num_frames=FRAMES, size_px=SIZE_PX, jpeg_quality=95),
        }
    )
    folder = tmp_path_factory.mktemp("red") / "bundle"
    save_bundle(folder, record, model)
    return Predictor(RegisteredModel(name="red", version="", folder=folder))


def clip_with_red(row: int, column: int, *, at: int, times_s: tuple[float, ...] = TIMES_S) -> ClipSample:
    """Grey frames, with a red patch an eighth of the picture wide at (row, column) of 8 x 8 in frame `at` alone."""
    frames = np.full((FRAMES, SIZE_PX, SIZE_PX, 3), 128, np.uint8)
    step = SIZE_PX // 8
    frames[at, row * step : (row + 1) * step, column * step : (column + 1) * step] = (255, 0, 0)
    mjpeg, offsets = encode_frames(frames, quality=95)
    meta = SampleMeta(
        clip_id="red", subject="", session="", split="", labels={}, source_sha256="", duration_s=8.0,
        source_width_px=640, source_height_px=480, frame_times_s=times_s, jpeg_offsets=offsets,
    )  # fmt: skip
    return ClipSample(Sample(meta=meta, frames_mjpeg=mjpeg), {})


@pytest.mark.parametrize(("row", "column"), [(0, 7), (7, 0), (1, 5), (6, 2)])
def test_it_looked_where_the_red_is(red_finder: Predictor, row: int, column: int) -> None:
    found = where_it_looked(red_finder, clip_with_red(row, column, at=2), 5.4)
    grid = np.array(found.grid)
    assert (found.at_s, found.level_index) == (5.0, 3)
    assert grid.shape == (8, 8)  # 32 pixels, halved by the first convolution and by the pooling
    assert np.unravel_index(grid.argmax(), grid.shape) == (row, column)
    assert (grid.min(), grid.max()) == (0.0, 1.0)
    far = np.abs(np.indices((8, 8)) - np.array([row, column])[:, None, None]).max(axis=0) > 1
    assert grid[far].max() == 0


def test_another_moment_is_another_picture(red_finder: Predictor) -> None:
    clip = clip_with_red(0, 7, at=2)
    assert np.array(where_it_looked(red_finder, clip, 0.0).grid).max() == 0  # nothing in that frame speaks for the level
    assert where_it_looked(red_finder, clip, 0.0).at_s == 1.0
    assert where_it_looked(red_finder, clip, 8.0).at_s == 7.0


def test_of_a_longer_clip_the_window_is_explained(red_finder: Predictor) -> None:
    whole = clip_with_red(0, 7, at=2)
    windows = tuple(
        WindowSample(10.0 * number, 10.0 * (number + 1), clip_with_red(7, number, at=1, times_s=times).sample, Look(1.0, False))
        for number, times in enumerate([(1.0, 3.0, 5.0, 7.0), (11.0, 13.0, 15.0, 17.0)])
    )
    meta = whole.sample.meta.model_copy(update={"duration_s": 20.0})
    long = whole._replace(sample=Sample(meta=meta, frames_mjpeg=whole.sample.frames_mjpeg), windows=windows)
    found = where_it_looked(red_finder, long, 12.9)
    assert found.at_s == 13.0
    assert np.unravel_index(np.array(found.grid).argmax(), (8, 8)) == (7, 1)


def test_the_region_is_what_the_model_was_shown(red_finder: Predictor) -> None:
    region = where_it_looked(red_finder, clip_with_red(0, 0, at=0), 1.0).region
    assert region.model_dump() == pytest.approx({"left": 5 / 42, "top": 0, "width": 32 / 42, "height": 1}, abs=1e-6)  # 42x32


def test_scoring_goes_on_beside_an_explanation_and_is_left_as_it_was(red_finder: Predictor) -> None:
    clip = clip_with_red(3, 3, at=1)
    before = red_finder.score(clip)
    where_it_looked(red_finder, clip, 3.0)
    after = red_finder.score(clip)
    assert before.model_dump(exclude={"timings"}) == after.model_dump(exclude={"timings"})
    assert not any(module._forward_hooks for module in red_finder.model.modules())


def test_a_moment_outside_the_clip_is_refused(red_finder: Predictor) -> None:
    for at_s in (-0.1, 8.1, float("nan")):
        with pytest.raises(ClipError, match=r"not within the clip, which has 8\.0 s"):
            where_it_looked(red_finder, clip_with_red(0, 0, at=0), at_s)


def test_the_published_model_can_be_explained(tiny_bundle: Path, simulated_folder: Path) -> None:
    predictor = Predictor(RegisteredModel(name="engagement", version="1", folder=tiny_bundle))
    clip = clip_sample(next((simulated_folder / "clips").iterdir()), predictor.recipe)
    found = where_it_looked(predictor, clip, 4.0)
    assert np.array(found.grid).shape == (4, 4)
    assert 0 <= np.array(found.grid).min() <= np.array(found.grid).max() <= 1
    assert found.model == predictor.info

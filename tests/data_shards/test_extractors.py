"""The contract of every extractor: the same clip gives the same bytes, and what made them is told without a path."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_shards.datasets import DATASETS
from data_shards.extraction import EXTRACTORS, ClipMaterial, ExtractorSettings
from data_shards.extraction.acoustics import AcousticsSettings
from data_shards.extraction.encoder import VideoEncoderSettings
from data_shards.extraction.extract import extract_features, material_of
from data_shards.extraction.hugging_face import ENCODERS_VARIABLE
from data_shards.extraction.i3d import I3dSettings
from data_shards.extraction.openface import OpenFaceSettings
from data_shards.extraction.speech import SpeechSettings
from data_shards.face_model import FACE_MODEL_VARIABLE
from data_shards.storage.source import Source
from tests.data_shards import tiny_bert
from tests.weights import save_encoders


def _speech(encoders: Path) -> ExtractorSettings:
    tiny_bert.save_tiny_bert(encoders)
    return SpeechSettings(encoder=tiny_bert.NAME)


# an extractor's name to its settings here; what it loads is put into the folder that RAPT_ENCODERS names
PREPARED: dict[str, Callable[[Path], ExtractorSettings]] = {
    "openface": lambda encoders: OpenFaceSettings(fps=2.0),
    "i3d": lambda encoders: I3dSettings(random_init=True, clip_frames=16, short_side_px=32, crop_px=32),
    "videomae": lambda encoders: save_encoders(encoders) and VideoEncoderSettings(),
    "acoustics": lambda encoders: AcousticsSettings(),
    "speech": _speech,
}


@pytest.fixture(scope="session")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("encoders")


@pytest.fixture(params=PREPARED)
def prepared(
    request: pytest.FixtureRequest, encoders: Path, real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, ExtractorSettings]:
    monkeypatch.setenv(FACE_MODEL_VARIABLE, str(real_data / "models" / "face_landmarker.task"))
    monkeypatch.setenv(ENCODERS_VARIABLE, str(encoders))
    return request.param, PREPARED[request.param](encoders)


def test_every_extractor_is_tested() -> None:
    assert PREPARED.keys() == EXTRACTORS.keys()


def test_a_clip_has_the_same_feature_twice(prepared: tuple[str, ExtractorSettings], simulated_folder: Path) -> None:
    name, settings = prepared
    speaking = next(
        clip
        for clip in DATASETS["simulated"](Source(simulated_folder)).clips
        if clip.transcript and "-->" in (simulated_folder / clip.transcript.name).read_text()
    )
    found = []
    for _ in range(2):
        with EXTRACTORS[name](settings) as extractor, material_of(speaking) as material:
            found += [extract_features(material, {name: extractor}) for _ in range(2)]
    assert found[0].lacking == {}
    (values,) = found[0].features.values()
    assert values.dtype == np.float32
    assert values.size
    assert {one.features[name].tobytes() for one in found} == {values.tobytes()}


def test_what_made_it_is_json_without_a_path(prepared: tuple[str, ExtractorSettings], encoders: Path) -> None:
    name, settings = prepared
    assert isinstance(settings, EXTRACTORS[name].settings_type)
    with EXTRACTORS[name](settings) as extractor, EXTRACTORS[name](settings) as again:
        told = json.dumps([extractor.about, settings.model_dump(mode="json")], allow_nan=False)
        assert extractor.about
        assert again.about == extractor.about
    assert type(settings).from_bytes(settings.to_bytes(), origin="here") == settings
    assert str(encoders) not in told
    assert not any(isinstance(value, str) and value.startswith(("/", "~")) for value in _leaves(json.loads(told)))


def test_a_clip_of_which_there_is_nothing_lacks_it_with_a_reason(prepared: tuple[str, ExtractorSettings], tmp_path: Path) -> None:
    name, settings = prepared
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"\x00\x00\x00\x18ftypisom" + bytes(60))
    with EXTRACTORS[name](settings) as extractor:
        for clip in (ClipMaterial(name="nothing"), ClipMaterial(name="broken.mp4", video=broken)):
            found = extract_features(clip, {name: extractor})
            assert found.features == {}
            assert found.lacking.keys() == {name}
            assert found.lacking[name].strip()
            assert str(tmp_path) not in found.lacking[name]
            assert "\n" not in found.lacking[name]


def _leaves(value: object) -> list[object]:
    if isinstance(value, dict):
        value = list(value.values())
    return [leaf for item in value for leaf in _leaves(item)] if isinstance(value, list) else [value]

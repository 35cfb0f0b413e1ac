"""From clips to a served score of the multimodal model: real extractors, random weights where real ones cannot be had."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from data_shards.building.add_features import add_features
from data_shards.building.build import build_shards
from data_shards.datasets import list_dataset
from data_shards.errors import ClipError, ModelError
from data_shards.extraction.clip_sample import ClipSample, load_extractors
from data_shards.extraction.recorded import extractor_settings
from data_shards.manifest import read_manifest
from data_shards.reading.reader import ShardSet
from data_shards.simulation import SimulationSettings, generate
from serving.answer import Answer, NoFace
from serving.predictor import Predictor
from tests.conftest import TINY_PREPROCESS
from tests.data_shards.tiny_bert import save_tiny_bert
from tests.serving.endpoint import endpoint
from tests.weights import save_encoders
from training.bundle import read_record
from training.config import with_settings
from training.loop import train
from training.recipes import recipe
from training.registry import RegisteredModel

SMALL_I3D = ("i3d.random_init=true", "i3d.clip_frames=16", "i3d.short_side_px=40", "i3d.crop_px=32")
SMALL_MODEL = ("model.hidden=8", "model.chunks=4", "loss.pool=16", "loop.epochs=2", "loop.global_batch=8")
SETTINGS = (*SMALL_I3D, "openface.fps=3")


@pytest.fixture(scope="module", autouse=True)
def weights(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = save_encoders(tmp_path_factory.mktemp("encoders"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAPT_ENCODERS", str(folder))
        patch.setenv("RAPT_FACE_LANDMARKER", str(real_data / "models" / "face_landmarker.task"))
        yield folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    generate(SimulationSettings(num_clips=24, seed=3, fps=6, width_px=160, height_px=120), folder, num_workers=2)
    return folder


@pytest.fixture(scope="module")
def shards(clips: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards") / "set"
    listing = list_dataset("simulated", clips)
    build_shards(listing, out, preprocess=TINY_PREPROCESS, num_workers=2)
    add_features(out, listing, extractor_settings(["openface", "i3d", "acoustics", "speech"], SETTINGS), num_workers=2)
    return out


@pytest.fixture(scope="module")
def bundle(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both stages of cmose_short, two epochs each."""
    folder = tmp_path_factory.mktemp("runs")
    visual = train(with_settings(recipe("cmose_short_visual"), SMALL_MODEL), shards, folder / "1", run_id="visual")
    audio = with_settings(recipe("cmose_short_audio"), SMALL_MODEL).model_copy(update={"starts_from": str(visual)})
    whole = train(audio, shards, folder / "2", run_id="audio")
    assert whole is not None
    return whole


@pytest.fixture(scope="module")
def predictor(bundle: Path) -> Predictor:
    return Predictor(RegisteredModel(name="engagement", version="1", folder=bundle))


@pytest.fixture(scope="module")
def client(predictor: Predictor) -> Iterator[TestClient]:
    with endpoint(predictor) as client:
        yield client


def transcript_of(clips: Path, clip_id: str) -> Path:
    return clips / "transcripts" / f"{Path(clip_id).stem}.vtt"


def test_the_bundle_says_what_made_its_features_and_that_it_can_score_a_video(bundle: Path, shards: Path) -> None:
    record = read_record(bundle)
    assert record.reads_video
    assert record.preprocess is None
    made_by = read_manifest(shards).extractors
    assert record.extractors == {name: made_by[name] for name in ("openface", "i3d", "acoustics", "speech")}
    assert "features without meaning" in (bundle / "README.md").read_text()


def test_a_clip_scores_the_same_from_its_shard_from_its_file_and_over_http(
    predictor: Predictor, client: TestClient, shards: Path, clips: Path
) -> None:
    everyone = ShardSet(shards, splits=("train", "test"))
    samples = [everyone.read(number, (), tuple(predictor.recipe.extractors)) for number in range(len(everyone))]
    speaking = next(sample for sample in samples if "speech" in sample.features)
    silent = next(sample for sample in samples if "speech" not in sample.features)
    for sample in (speaking, silent):
        clip, words = clips / sample.meta.clip_id, transcript_of(clips, sample.meta.clip_id)
        stored = predictor.score(ClipSample(sample, {}))
        from_file = predictor.score_file(clip, transcript=words)
        assert isinstance(stored, Answer)
        assert isinstance(from_file, Answer)
        assert from_file.probabilities == stored.probabilities
        together = {"speech", "acoustics"} if "speech" in sample.features else set()  # acoustics alone change nothing
        assert set(from_file.features_used) == {"i3d", "openface"} | together
        answer = client.post("/v1/score", files={"clip": clip.read_bytes(), "transcript": words.read_bytes()})
        assert answer.status_code == 200, answer.text
        assert answer.json()["probabilities"] == stored.probabilities
        assert answer.json()["face_share"] == 1.0
    said = json.dumps({"text": "yes, that makes sense"})
    spoken = client.post("/v1/score", files={"clip": (clips / silent.meta.clip_id).read_bytes(), "transcript": said.encode()})
    assert spoken.json()["features_used"] == ["acoustics", "i3d", "openface", "speech"]
    without_words = client.post("/v1/score", files={"clip": (clips / speaking.meta.clip_id).read_bytes()}).json()
    assert without_words["features_used"] == ["i3d", "openface"]
    assert without_words["probabilities"] != predictor.score(ClipSample(speaking, {})).model_dump()["probabilities"]


def test_nobody_in_view_is_an_answer_and_a_damaged_clip_is_a_sentence(
    predictor: Predictor, client: TestClient, real_data: Path
) -> None:
    answer = client.post("/v1/score", files={"clip": (real_data / "videos" / "no_face.mp4").read_bytes()})
    assert (answer.status_code, answer.json()["status"]) == (200, "no_face")
    assert "score" not in answer.json()
    assert isinstance(predictor.score_file(real_data / "videos" / "no_face.mp4"), NoFace)
    broken = client.post("/v1/score", files={"clip": (real_data / "videos" / "corrupted.mp4").read_bytes()})
    assert broken.status_code == 422
    assert "damaged" in broken.json()["error"]
    words = client.post(
        "/v1/score", files={"clip": (real_data / "videos" / "test1.avi").read_bytes(), "transcript": b"\x00no words\xff"}
    )
    assert words.json()["features_used"] == ["i3d", "openface"]  # scored by what is seen: it has no sound, and no words
    assert words.json()["lacking"]["acoustics"] == "no sound track"
    assert "words.vtt" in words.json()["lacking"]["speech"]


def test_a_clip_without_what_the_model_needs_is_a_sentence(predictor: Predictor, shards: Path) -> None:
    sample = ShardSet(shards, splits=("test",)).read(0, ("openface",))
    with pytest.raises(ClipError, match=r"cannot be scored, its 'i3d' is missing \(the clip has none\)"):
        predictor.score(ClipSample(sample, {}))


def test_features_of_other_weights_are_refused(predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_tiny_bert(tmp_path, name="bert-base-uncased", hidden=768, seed=1)
    monkeypatch.setenv("RAPT_ENCODERS", str(tmp_path))
    load_extractors.__globals__["_loaded"].cache_clear()
    with pytest.raises(ModelError, match=r"extractor speech: weights_sha256 is .* here and was .* for the training data"):
        load_extractors(predictor.recipe)
    load_extractors.__globals__["_loaded"].cache_clear()


def test_all_extractors_run_on_all_shared_clips_in_one_go(real_data: Path, weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    rows = ["clip,label,subject,split"]
    for number, video in enumerate(sorted((real_data / "videos").iterdir())):
        shutil.copy(video, folder / video.name)
        rows.append(f"{video.name},{number % 4},p{number},train")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    (folder / "swiz3n.vtt").write_text("WEBVTT\n\n00:00:00.500 --> 00:00:02.500\nset white in z three now\n")
    (folder / "bbaf2n.srt").write_text("1\n00:00:00,500 --> 00:00:02,500\nbin blue at f two now\n")
    names = ["openface", "i3d", "videomae", "acoustics", "speech"]
    listing = list_dataset("folder", folder)
    build_shards(listing, tmp_path / "set", preprocess=TINY_PREPROCESS, clips_per_shard=7, num_workers=2)
    _, lacking = add_features(tmp_path / "set", listing, extractor_settings(names, SETTINGS), num_workers=2)
    reasons = {(entry.clip_id, entry.feature): entry.reason for entry in lacking}
    shards = ShardSet(tmp_path / "set", splits=("train",))
    samples = {(sample := shards.read(number)).meta.clip_id: sample for number in range(len(shards))}
    rejected = [json.loads(line)["clip_id"] for line in (tmp_path / "set" / "rejects.jsonl").read_text().splitlines()]
    assert rejected == ["corrupted.mp4"]
    assert len(samples) == 13
    for clip_id, sample in samples.items():
        assert {"openface", "i3d", "videomae"} <= sample.features.keys(), clip_id
        assert all(name in sample.features or reasons[clip_id, name] for name in names)
    assert {clip_id for clip_id, sample in samples.items() if "speech" in sample.features} == {"swiz3n.mpg", "bbaf2n.mpg"}
    assert np.isnan(samples["no_face.mp4"].features["openface"]).all()
    assert samples["no_face.mp4"].meta.face_present == (False,) * TINY_PREPROCESS.num_frames
    assert samples["test1.avi"].meta.face_present == (True,) * TINY_PREPROCESS.num_frames
    assert reasons["test1.avi", "acoustics"] == "no sound track"
    assert reasons["test1.avi", "speech"] == "no transcript"

"""Words through a frozen encoder: the vector is the pooled hidden states, and long speech is cut and averaged."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertModel, BertTokenizerFast

from data_shards.errors import ConfigError
from data_shards.extraction import ClipMaterial
from data_shards.extraction.extract import Extracted, extract_features
from data_shards.extraction.hugging_face import ENCODERS_VARIABLE
from data_shards.extraction.speech import Speech, SpeechSettings
from tests.data_shards.tiny_bert import HIDDEN, MAX_TOKENS, NAME, save_tiny_bert

GRID = "Set white in z three now"


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoders")
    save_tiny_bert(folder)
    return folder


@pytest.fixture(autouse=True)
def own_encoders(encoders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENCODERS_VARIABLE, str(encoders))


@pytest.fixture(scope="module")
def states(encoders: Path):  # type: ignore[no-untyped-def]
    """The last hidden states (T, D) of a text, straight from transformers."""
    model = BertModel.from_pretrained(encoders / NAME, add_pooling_layer=False).eval()
    tokenizer = BertTokenizerFast.from_pretrained(encoders / NAME)

    def of(text: str) -> np.ndarray:
        with torch.no_grad():
            return model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].numpy()

    return of


@cache
def tiny_bert(**settings: object) -> Speech:
    return Speech(SpeechSettings(encoder=NAME, **settings))


def speech(material: ClipMaterial, **settings: object) -> Extracted:
    return extract_features(material, {"speech": tiny_bert(**settings)})


def said(text: str, **settings: object) -> np.ndarray:
    vector = speech(ClipMaterial(name="a", text=text), **settings).features["speech"]
    assert (vector.dtype, vector.shape) == (np.float32, (HIDDEN,))
    return vector


def test_words_become_the_mean_of_their_hidden_states_or_the_first_one(states) -> None:  # type: ignore[no-untyped-def]
    states_TD = states(GRID)
    assert len(states_TD) == 2 + 6
    np.testing.assert_allclose(said(GRID), states_TD.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(said(GRID, pool="cls"), states_TD[0], atol=1e-5)
    assert np.abs(said(GRID) - said("bin blue at f two now")).max() > 0.1


def test_a_grid_clip_with_its_transcript_has_an_embedding(real_data: Path, tmp_path: Path) -> None:
    forms = {
        "swiz3n.vtt": "WEBVTT\n\n00:00.500 --> 00:02.500\nset white in z three now\n",
        "swiz3n.srt": "1\n00:00:00,500 --> 00:00:02,500\nset white in z three now\n",
        "swiz3n.json": json.dumps({"text": "", "segments": [{"start": 0.5, "end": 2.5, "text": " set white in z three now"}]}),
    }
    for name, content in forms.items():
        (tmp_path / name).write_text(content)
        clip = ClipMaterial(name=name, video=real_data / "videos" / "swiz3n.mpg", transcript=tmp_path / name)
        np.testing.assert_array_equal(speech(clip).features["speech"], said(GRID))


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_long_speech_is_cut_into_even_pieces_and_averaged(pool: str, states) -> None:  # type: ignore[no-untyped-def]
    words = (GRID + " bin blue at f two").split()
    longest = " ".join((words * 2)[: MAX_TOKENS - 2])
    pooled = {"mean": lambda states_TD: states_TD.mean(axis=0), "cls": lambda states_TD: states_TD[0]}[pool]
    np.testing.assert_allclose(said(longest, pool=pool), pooled(states(longest)), atol=1e-5)  # as many as there is room for
    text = (words * 100)[:133]  # seven pieces of 19 where 22 would be room
    pieces = [" ".join(text[at : at + 19]) for at in range(0, 133, 19)]
    np.testing.assert_allclose(
        said(" ".join(text), pool=pool), np.mean([pooled(states(part)) for part in pieces], axis=0), atol=1e-5
    )
    text = text[:45]  # three pieces of 15, for two have room for 44
    pieces = [" ".join(text[at : at + 15]) for at in range(0, 45, 15)]
    np.testing.assert_allclose(
        said(" ".join(text), pool=pool), np.mean([pooled(states(part)) for part in pieces], axis=0), atol=1e-5
    )
    text = text[:23]  # 12 and 11: a token counts as much in either
    vectors = [pooled(states(" ".join(part))) for part in (text[:12], text[12:])]
    np.testing.assert_allclose(said(" ".join(text), pool=pool), np.average(vectors, axis=0, weights=[12, 11]), atol=1e-5)


def test_a_lower_limit_of_tokens_cuts_sooner(states) -> None:  # type: ignore[no-untyped-def]
    np.testing.assert_allclose(said(GRID, max_tokens=8), states(GRID).mean(axis=0), atol=1e-5)
    longer = GRID + " bin blue at"
    parts = [states(part).mean(axis=0) for part in ("set white in z three", "now bin blue at")]
    np.testing.assert_allclose(said(longer, max_tokens=8), np.average(parts, axis=0, weights=[5, 4]), atol=1e-5)


def test_an_hour_of_speech_and_words_nobody_knows_have_a_vector() -> None:
    assert np.isfinite(said(f"{GRID} " * 500)).all()
    assert np.isfinite(said("¿Qué? \N{GRINNING FACE} 42%")).all()


@pytest.mark.parametrize(
    ("name", "content", "text", "reason"),
    [
        ("", "", "", "no transcript"),
        ("", "", " \n", "no transcript"),
        ("a.vtt", "WEBVTT\n\nNOTE simulated\n", "", "nobody speaks"),
        ("a.json", '{"text": ""}', GRID, "nobody speaks"),
        ("", "", "\u0001\u200b", "nobody speaks"),  # not a token in it
        ("a.srt", "1\nhello\n", "", "a.srt: no WebVTT or SRT transcript"),
    ],
)
def test_without_words_a_clip_lacks_speech(name: str, content: str, text: str, reason: str, tmp_path: Path) -> None:
    if name:
        (tmp_path / name).write_text(content)
    found = speech(ClipMaterial(name="a", transcript=tmp_path / name if name else None, text=text))
    assert found.features == {}
    assert found.lacking["speech"].startswith(reason)


def test_what_made_the_vector_is_told(encoders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = Speech(SpeechSettings(encoder=NAME)).about
    assert usual["values"] == HIDDEN
    save_tiny_bert(tmp_path, seed=1)
    monkeypatch.setenv(ENCODERS_VARIABLE, str(tmp_path))
    other = Speech(SpeechSettings(encoder=NAME)).about
    assert {key for key in usual if usual[key] != other[key]} == {"weights_sha256"}


def test_encoders_that_cannot_be_had_or_do_not_fit_are_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="not a name like OWNER/NAME"):
        Speech(SpeechSettings(encoder=str(tmp_path)))
    save_tiny_bert(tmp_path)
    monkeypatch.setenv(ENCODERS_VARIABLE, str(tmp_path))
    words = json.loads((tmp_path / NAME / "tokenizer.json").read_text())
    words["model"]["vocab"] |= {f"word{number}": 26 + number for number in range(9)}
    (tmp_path / NAME / "tokenizer.json").write_text(json.dumps(words))
    with pytest.raises(ConfigError, match=r"its tokeniser has 35 tokens, the model only 26; save the two that belong together"):
        Speech(SpeechSettings(encoder=NAME))

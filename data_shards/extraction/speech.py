"""The extractor "speech": what somebody says, as one vector of a frozen BERT.

The BERT(speech) of CMOSE (Wu et al. 2023, eq. 5); the FC layer on top is learnt and lies in the model.
Letters: T tokens of a piece, P pieces, D values of a hidden state.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, JsonValue

from data_shards.decode_stream import StreamInfo
from data_shards.errors import ConfigError
from data_shards.extraction.contract import ClipMaterial, Extractor, ExtractorSettings, Reading
from data_shards.extraction.hugging_face import load_encoder, load_tokenizer

__all__ = ["Speech", "SpeechSettings"]

Floats = npt.NDArray[np.float32]

_MAX_TOKENS = 512  # BERT's positions
_PIECES_AT_ONCE = 8


class SpeechSettings(ExtractorSettings):
    """Which encoder, and how its hidden states become one vector.

    encoder: NAME or OWNER/NAME of a BERT-family model, as `load_encoder` finds it; bert-base-uncased is the paper's.
    pool: "mean" of the last hidden states, or "cls", the first one's. [choice] The paper does not say which; here the
    mean, because [CLS] of a BERT that is not fine-tuned was trained for next-sentence prediction alone and tells
    sentences apart worse than the mean does (Reimers and Gurevych 2019, table 1).
    """

    encoder: str = "bert-base-uncased"
    revision: str | None = None
    pool: Literal["mean", "cls"] = "mean"
    max_tokens: int = Field(default=_MAX_TOKENS, ge=8, le=_MAX_TOKENS)


class Speech(Extractor):
    """One vector a clip, float32 (D,), D = 768 for bert-base-uncased.

    A clip without a transcript lacks it, and so does one whose transcript says that nobody speaks.
    [choice] Speech over max_tokens is cut into as few pieces as it takes, all about equally long, and their vectors are
    averaged by their numbers of tokens; the paper's clips of 13.72 s never need it.
    """

    settings_type = SpeechSettings

    def __init__(self, settings: SpeechSettings) -> None:
        super().__init__(settings)
        self._loaded = load_encoder(settings.encoder, revision=settings.revision)
        self._tokenizer = load_tokenizer(settings.encoder, revision=settings.revision)
        config = self._loaded.model.config
        if not hasattr(config, "vocab_size") or not hasattr(config, "hidden_size"):
            raise ConfigError(f"encoder {settings.encoder}: no encoder of text; name a BERT-family model")
        if len(self._tokenizer) > config.vocab_size:
            raise ConfigError(
                f"encoder {settings.encoder}: its tokeniser has {len(self._tokenizer)} tokens, the model only "
                f"{config.vocab_size}; save the two that belong together"
            )
        self._max_tokens = min(settings.max_tokens, getattr(config, "max_position_embeddings", _MAX_TOKENS))

    @property
    def about(self) -> dict[str, JsonValue]:
        vocabulary = json.dumps(sorted(self._tokenizer.get_vocab().items())).encode()
        return {
            "by": f"{type(self._loaded.model).__name__}, frozen",
            "transformers": version("transformers"),
            "weights_sha256": self._loaded.sha256,
            "vocabulary_sha256": hashlib.sha256(vocabulary).hexdigest(),
            "values": int(self._loaded.model.config.hidden_size),
        }

    def read(self, clip: ClipMaterial, stream: StreamInfo | None) -> Reading:
        return _SaidInClip(clip, self)

    def embed(self, text: str) -> Floats | None:
        """The vector (D,) of a text; None where the tokeniser finds no token in it."""
        num_special = self._tokenizer.num_special_tokens_to_add()
        num_tokens = len(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
        if not num_tokens:
            return None
        num_pieces = math.ceil(num_tokens / (self._max_tokens - num_special))
        cut: Any = self._tokenizer(
            text,
            truncation=True,
            max_length=math.ceil(num_tokens / num_pieces) + num_special,
            return_overflowing_tokens=True,
            padding=True,
            return_tensors="pt",
        )
        ids_PT, mask_PT = cut["input_ids"], cut["attention_mask"]
        vectors_PD = np.concatenate([self._pooled(*part) for part in _portions(ids_PT, mask_PT)])
        return np.average(vectors_PD, axis=0, weights=mask_PT.sum(dim=1).numpy() - num_special).astype(np.float32)

    def _pooled(self, ids_PT: Any, mask_PT: Any) -> npt.NDArray[np.float64]:
        """A vector for each piece; the mean is over all its tokens, [CLS] and [SEP] among them, and over no padding."""
        import torch

        with torch.inference_mode():
            states_PTD = self._loaded.model(input_ids=ids_PT, attention_mask=mask_PT).last_hidden_state.double()
        if self.settings.pool == "cls":
            return np.asarray(states_PTD[:, 0].numpy())
        mask_PT1 = mask_PT[..., None]
        return np.asarray(((states_PTD * mask_PT1).sum(dim=1) / mask_PT1.sum(dim=1)).numpy())


def _portions(ids_PT: Any, mask_PT: Any) -> Iterator[tuple[Any, Any]]:
    """Rows in portions, so that an hour's speech takes no more memory than a minute's."""
    for at in range(0, len(ids_PT), _PIECES_AT_ONCE):
        yield ids_PT[at : at + _PIECES_AT_ONCE], mask_PT[at : at + _PIECES_AT_ONCE]


class _SaidInClip(Reading):
    """One clip: its words are read and embedded at the end."""

    def __init__(self, clip: ClipMaterial, extractor: Speech) -> None:
        self._clip = clip
        self._extractor = extractor

    def finish(self) -> Floats | None:
        words = self._clip.words
        vector = self._extractor.embed(words.text) if words else None
        if vector is None:
            self.lacking = "no transcript" if self._clip.transcript is None and not words else "nobody speaks"
        return vector

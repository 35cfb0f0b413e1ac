"""Pretrained encoders and tokenisers by name, by way of Hugging Face's transformers: from a folder, the cache or the hub.

Only safetensors and JSON are read: no pickled weights, no code from a model's repository. torchvision is not needed.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from data_shards.errors import ConfigError
from data_shards.storage.store import file_sha256

__all__ = ["ENCODERS_VARIABLE", "LoadedEncoder", "load_encoder", "load_tokenizer"]

ENCODERS_VARIABLE = "RAPT_ENCODERS"
_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)?")  # OWNER/NAME or NAME: never a path out of a folder
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")
_WANTED = ("config.json", "preprocessor_config.json", "special_tokens_map.json", "tokenizer_config.json", "merges.txt")


class LoadedEncoder(NamedTuple):
    """model: a frozen torch module in float32, in eval; folder: its files, config.json and such; sha256: of its weights."""

    model: Any
    folder: Path
    sha256: str


def load_encoder(name: str, *, revision: str | None = None, vision_tower: bool = False) -> LoadedEncoder:
    """The encoder NAME or OWNER/NAME without a task's head, on the CPU.

    Looked for below the folder that RAPT_ENCODERS names, then in Hugging Face's cache, then on the hub. revision: a
    branch, tag or commit of the hub's repository; a folder below RAPT_ENCODERS has none. vision_tower: only the part of
    a model of pictures and words (CLIP, SigLIP) that sees pictures. ConfigError where it cannot be had, is no
    safetensors, or does not hold all of the encoder's weights: a part that is missing would be filled at random. Of a
    pooling layer on top that may be, so only hidden states mean anything.
    """
    import torch
    from transformers import AutoConfig, AutoModel

    folder = _folder_of(name, revision, _WEIGHTS)
    safe = {"local_files_only": True, "trust_remote_code": False}
    with _quiet():
        try:
            config = AutoConfig.from_pretrained(folder, **safe)
            config = getattr(config, "vision_config", config) if vision_tower else config
            model, loading = AutoModel.from_pretrained(
                folder, config=config, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **safe
            )
        except Exception as error:  # of many kinds, for a damaged file as for a model that transformers does not know
            raise ConfigError(f"encoder {name}: {_where(folder)} cannot be loaded ({_first_line(error)})") from None
    missing = sorted(key for key in loading["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise ConfigError(
            f"encoder {name}: its file lacks {len(missing)} of the encoder's weights, such as {missing[0]}; name another model"
        )
    return LoadedEncoder(model.eval().requires_grad_(False), folder, _weights_sha256(folder))


def load_tokenizer(name: str, *, revision: str | None = None) -> Any:
    """The tokeniser that belongs to an encoder, looked for in the same places. ConfigError where it cannot be had."""
    from transformers import AutoTokenizer

    folder = _folder_of(name, revision, _TOKENIZERS)
    with _quiet():
        try:
            return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # of many kinds, as above
            raise ConfigError(f"tokeniser {name}: {_where(folder)} cannot be loaded ({_first_line(error)})") from None


def _folder_of(name: str, revision: str | None, one_of: tuple[str, ...]) -> Path:
    """The folder on this machine with the model's config.json and at least one of these files."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"encoder '{name}': not a name like OWNER/NAME; "
            f"for a model in a folder, name the folder above it in {ENCODERS_VARIABLE}"
        )
    own = os.environ.get(ENCODERS_VARIABLE)
    if own and (Path(own) / name / "config.json").is_file():
        if _has_one(Path(own) / name, one_of):
            return Path(own) / name
        raise ConfigError(
            f"encoder {name}: {ENCODERS_VARIABLE} has its folder, but none of {', '.join(one_of)} in it; save it again"
        )
    found, reason = _from_hub(name, revision, one_of, offline=True)
    if found is None:
        found, reason = _from_hub(name, revision, one_of, offline=False)
    if found is None:
        raise ConfigError(
            f"encoder {name}: {reason}; go online once so that it is cached, or put its config.json and "
            f"model.safetensors below {name}/ in a folder and name that folder in {ENCODERS_VARIABLE}"
        )
    return found


def _from_hub(name: str, revision: str | None, one_of: tuple[str, ...], *, offline: bool) -> tuple[Path | None, str]:
    """(the snapshot's folder in the cache, why there is none). A model cached by others may lack what is needed here."""
    from huggingface_hub import snapshot_download

    patterns = [*_WANTED, *_TOKENIZERS, *_WEIGHTS, "model-*.safetensors"]
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=patterns, local_files_only=offline))
    except Exception as error:  # hub errors, HTTP errors and socket errors alike mean the same to the user
        return None, f"not in the cache, and the hub did not give it ({type(error).__name__})"
    if (folder / "config.json").is_file() and _has_one(folder, one_of):
        return folder, ""
    return None, f"its repository has no config.json with one of {', '.join(one_of)}"


def _has_one(folder: Path, one_of: tuple[str, ...]) -> bool:
    return any((folder / file).is_file() for file in one_of)


def _weights_sha256(folder: Path) -> str:
    """The digest of the one file of weights; of the digests of its parts, in order of their names, where it has several."""
    if (folder / "model.safetensors").is_file():
        return file_sha256(folder / "model.safetensors")
    parts = sorted(folder.glob("model-*.safetensors"))
    return hashlib.sha256("".join(file_sha256(part) for part in parts).encode()).hexdigest()


def _where(folder: Path) -> str:
    return f"the folder {folder.name} of {folder.parent.name}"


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:160]}"


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no report of a task's head left out, while the block lasts."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()

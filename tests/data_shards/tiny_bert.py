"""A very small BERT with random weights, and a WordPiece vocabulary that knows GRID's words."""

from pathlib import Path

import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

__all__ = ["HIDDEN", "MAX_TOKENS", "NAME", "save_tiny_bert"]

NAME = "tests/tiny-bert"
HIDDEN = 32
MAX_TOKENS = 24
_WORDS = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "set", "white", "in", "z", "three", "now", "bin", "blue", "at", "f", "two",
    "let", "me", "write", "that", "down", "yes", ".", ",", "##s", "a",
]  # fmt: skip


def save_tiny_bert(folder: Path, *, name: str = NAME, hidden: int = HIDDEN, seed: int = 0) -> None:
    """Write it as `name` below `folder`."""
    config = BertConfig(
        vocab_size=len(_WORDS), hidden_size=hidden, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32,
        max_position_embeddings=MAX_TOKENS,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BertModel(config, add_pooling_layer=False)
    model.save_pretrained(folder / name)
    BertTokenizerFast(vocab={word: number for number, word in enumerate(_WORDS)}).save_pretrained(folder / name)

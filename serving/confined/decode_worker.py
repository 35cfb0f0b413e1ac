"""The program of the decode child: held first, then loaded, then sealed; then one clip after another until its parent is gone.

Only the standard library is imported before it is held: numpy starts threads, and the kernel gives namespaces to a process of
one thread alone.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_shards.worker_pool import ignore_interrupts, killed_with_parent
from serving.confined.child_messages import ChildGone, receive, send
from serving.confined.confine import Bounds, bound_cpu, confine, seal

if TYPE_CHECKING:
    from data_shards.extraction.clip_sample import ClipRecipe

__all__ = ["main", "own_pipes"]


def main() -> None:
    """Serve the parent at the other ends of standard input and output. The first message says what to be, later ones name
    clips; each gets one answer."""
    requests, answers = own_pipes()
    ignore_interrupts()
    try:
        words, _ = receive(requests)
        if words["scratch"] is None:  # only to fetch what is missing: this process never sees a clip
            killed_with_parent()()
            _answer(answers, lambda: {"fetched": len(_load(words["recipe"]).extractors)})
            return
        bounds = Bounds(**words["bounds"])
        held = confine(bounds, Path(words["scratch"]))
        recipe = None

        def load() -> dict[str, Any]:
            nonlocal recipe
            recipe = _load(words["recipe"])
            return {"held": asdict(held), "sealed": seal(bounds)}

        if not _answer(answers, load):
            return
        assert recipe is not None
        while True:
            asked, uploads = receive(requests)
            bound_cpu(asked["timeout_s"])
            with _uploaded(uploads, Path(words["scratch"])) as files:
                _answer_clip(answers, {**asked, **files}, recipe)
    except ChildGone:  # the parent: nobody waits for an answer
        return


def own_pipes() -> tuple[int, int]:
    """Copies of standard input and output for the messages; the three themselves lead nowhere, whatever libraries print."""
    requests, answers = os.dup(0), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
    return requests, answers


def _load(words: dict[str, Any]) -> "ClipRecipe":
    """Decoder and extractors."""
    from data_shards.decode import load_decoder
    from data_shards.extraction.clip_sample import load_extractors
    from data_shards.extraction.look import prepare_look
    from serving.confined.sample_message import recipe_from_words

    recipe = recipe_from_words(words)
    load_decoder()
    load_extractors(recipe)
    prepare_look()
    return recipe


@contextmanager
def _uploaded(uploads: Mapping[str, bytes], scratch: Path) -> Iterator[dict[str, str | None]]:
    """The uploads as files, gone when the block ends: their paths as `clip` and `transcript`."""
    files: dict[str, str | None] = {}
    try:
        for name, content in uploads.items():
            kind = "clip" if name == "clip" else "transcript"
            files[kind] = str(scratch / Path(name).name)
            (scratch / Path(name).name).write_bytes(content)
        yield files
    finally:
        for path in files.values():
            Path(path or "").unlink(missing_ok=True)


def _answer_clip(answers: int, words: dict[str, Any], recipe: "ClipRecipe") -> None:
    from data_shards.decode import DecodeLimits
    from data_shards.extraction.clip_sample import clip_sample
    from serving.confined.sample_message import clip_in_words

    limits = DecodeLimits.model_validate(words["limits"])
    parts: dict[str, bytes] = {}

    def decode() -> dict[str, Any]:
        transcript = Path(words["transcript"]) if words.get("transcript") else None
        words_of_clip, parts_of_clip = clip_in_words(clip_sample(Path(words["clip"]), recipe, limits, transcript=transcript))
        parts.update(parts_of_clip)
        return words_of_clip

    _answer(answers, decode, parts)


def _answer(answers: int, work: Callable[[], dict[str, Any]], parts: dict[str, bytes] | None = None) -> bool:
    """Send what the work gives, or the name and the sentence of the error that it raises; whether it raised none."""
    from data_shards.errors import RaptError

    try:
        words = work()
    except RaptError as error:
        send(answers, {"error": type(error).__name__, "sentence": str(error)})
    except Exception as error:  # the parent knows what to say of a file that breaks the decoder in a way nobody foresaw
        send(answers, {"error": type(error).__name__, "sentence": ""})
    else:
        send(answers, words, parts)
        return True
    return False

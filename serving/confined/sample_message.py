"""A decoded clip as a message: its samples as the members that they have in a shard, the rest as JSON.

Whoever reads it believes nothing: a child that was taken over may send anything.
"""

from collections.abc import Mapping
from typing import Any

from data_shards.errors import ShardError
from data_shards.extraction.clip_sample import ClipRecipe, ClipSample, WindowSample
from data_shards.extraction.look import Look
from data_shards.preprocess import PreprocessConfig
from data_shards.sample import Sample
from serving.confined.child_messages import ChildGone

__all__ = ["clip_from_words", "clip_in_words", "recipe_from_words", "recipe_in_words", "sample_of_members"]

_ORIGIN = "the decode child"
_MOST_WINDOWS = 1000


def recipe_in_words(recipe: ClipRecipe) -> dict[str, Any]:
    """A recipe as JSON: its fields, and the settings of its frames as theirs."""
    return {**vars(recipe), "preprocess": recipe.preprocess.model_dump(mode="json") if recipe.preprocess else None}


def recipe_from_words(words: dict[str, Any]) -> ClipRecipe:
    """The recipe again."""
    preprocess = PreprocessConfig.model_validate(words["preprocess"]) if words["preprocess"] else None
    return ClipRecipe(**{**words, "preprocess": preprocess})


def clip_in_words(clip: ClipSample) -> tuple[dict[str, Any], dict[str, bytes]]:
    """(words, parts) of a message."""
    parts = _parts_of(clip.sample, "clip")
    for number, window in enumerate(clip.windows):
        parts |= _parts_of(window.sample, f"window{number}")
    windows = [{"start_s": window.start_s, "end_s": window.end_s, "look": window.look} for window in clip.windows]
    return {"lacking": clip.lacking, "look": clip.look, "windows": windows}, parts


def clip_from_words(words: dict[str, Any], parts: dict[str, bytes], recipe: ClipRecipe) -> ClipSample:
    """The clip again. ChildGone where it is none, or not of the size that the recipe asks for."""
    try:
        lacking = {str(name): str(why) for name, why in dict(words["lacking"]).items()}
        look = _look_from(words["look"]) if words["look"] is not None else None
        windows = tuple(
            WindowSample(
                float(window["start_s"]),
                float(window["end_s"]),
                _sample_from(parts, f"window{number}", recipe),
                _look_from(window["look"]),
            )
            for number, window in enumerate(list(words["windows"])[:_MOST_WINDOWS])
        )
    except (KeyError, TypeError, ValueError):
        raise ChildGone("no clip") from None
    return ClipSample(_sample_from(parts, "clip", recipe), lacking, look, windows)


def _look_from(words: Any) -> Look:
    share, camera_off = words
    if share is not None and not 0 <= float(share) <= 1:
        raise ValueError
    return Look(None if share is None else float(share), camera_off=bool(camera_off))


def _parts_of(sample: Sample, name: str) -> dict[str, bytes]:
    return {f"{name}/{member}": content for member, content in sample.members().items()}


def _sample_from(parts: dict[str, bytes], name: str, recipe: ClipRecipe) -> Sample:
    members = {part.removeprefix(f"{name}/"): content for part, content in parts.items() if part.startswith(f"{name}/")}
    return sample_of_members(members, recipe)


def sample_of_members(members: Mapping[str, bytes], recipe: ClipRecipe) -> Sample:
    """A sample that a child made by the recipe. ChildGone where it is none, or not of the size and the features asked for."""
    try:
        sample = Sample.from_members(members, origin=_ORIGIN)
        shape = sample.frame_shape() if sample.has_frames else None
        sizes = {sample.frame_size(t) for t in range(len(sample.meta.jpeg_offsets) - 1)}
    except (ShardError, KeyError, IndexError) as error:
        raise ChildGone(f"no sample ({type(error).__name__})") from None
    wanted = recipe.preprocess
    if shape != ((wanted.num_frames, wanted.size_px, wanted.size_px, 3) if wanted else None):
        raise ChildGone("a sample of another size")
    if len(sizes) > 1:
        raise ChildGone("a sample whose frames are not of one size")
    if set(sample.features) - set(recipe.extractors):
        raise ChildGone("features that nobody asked for")
    return sample

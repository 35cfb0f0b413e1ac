"""The contact sheet: one HTML file that asks nothing of any server, with everything of the data escaped."""

import base64
import hashlib
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_shards.atomic import write_whole
from data_shards.browse.pick import pick_clips
from data_shards.browse.pictures import frame_strip, heat_map
from data_shards.errors import ConfigError
from data_shards.listing import Reject
from data_shards.manifest import Manifest, read_index, read_manifest
from data_shards.reading.reader import ShardSet
from data_shards.rejects import group_rejects, read_rejects
from data_shards.sample import Sample, SampleMeta
from data_shards.storage.shard_cache import CacheSettings
from data_shards.storage.store import open_store

__all__ = ["Card", "ContactSheet", "Picture", "render_page", "write_contact_sheet"]

_MAX_PICTURE_BYTES = 16_000_000  # of all clips, so that a page stays under 20 MB
_STRIP_FRAMES = 4
_MAX_LISTED_REJECTS = 50  # of one kind
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Picture:
    """A data: URI with its size in pixels and what it shows, in words."""

    uri: str
    width_px: int
    height_px: int
    text: str
    is_array: bool = False


@dataclass(frozen=True)
class Card:
    """One clip as it is shown. level: of the label that the page is sorted by, below 0 where it has none."""

    meta: SampleMeta
    level: int
    levels: tuple[tuple[str, int, str], ...]  # label, level, the level's name
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class ContactSheet:
    """What was written: num_shown of num_clips clips (of those that were asked for), size_bytes of the file."""

    path: Path
    num_shown: int
    num_clips: int
    size_bytes: int


def write_contact_sheet(
    uri: str | Path,
    out: Path,
    *,
    num_clips: int = 200,
    split: str | None = None,
    label: str | None = None,
    cache_settings: CacheSettings | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ContactSheet:
    """Write the set at uri, a folder or s3://bucket/prefix, as one HTML file; the same set gives the same bytes.

    label: the label that clips are spread by, or NAME=LEVEL for clips of that level alone. Fewer than num_clips are
    shown where their pictures would take more than 16 MB. Raises ConfigError on a split, label or level that is not there.
    """
    store = open_store(uri)
    manifest = read_manifest(store)
    splits = (split,) if split else tuple(manifest.splits)
    name, level = _label_of(manifest, label)
    cards: dict[int, Card] = {}
    size_bytes = 0
    with closing(ShardSet(uri, splits=splits, manifest=manifest, cache_settings=cache_settings)) as shards:
        entries = [entry for entry in manifest.shards if entry.split in splits]
        subjects = [sample.subject for entry in entries for sample in read_index(store, entry).samples]
        numbers = pick_clips(manifest, splits=splits, label=name, level=level, num_clips=num_clips, subjects=subjects)
        for done, number in enumerate(numbers):
            progress(done, len(numbers))
            card = _card(manifest, name, shards, number)
            size_bytes += sum(len(picture.uri) for picture in card.pictures)
            if size_bytes > _MAX_PICTURE_BYTES:
                break
            cards[number] = card
    progress(len(numbers), len(numbers))
    shown = [cards[number] for number in sorted(cards)]
    content = render_page(manifest, label=name, cards=shown, rejects=read_rejects(uri)).encode(errors="backslashreplace")
    write_whole(out, content)
    return ContactSheet(out, len(shown), len(shards), len(content))


def render_page(manifest: Manifest, *, label: str, cards: Sequence[Card], rejects: Sequence[Reject]) -> str:
    """The page as text. Nothing of the data reaches it unescaped, and its content policy lets nothing else run or load."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("sheet.css", "sheet.js"))
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("sheet.jinja").render(
        manifest=manifest,
        label=label,
        cards=cards,
        splits=[split for split in manifest.splits if any(card.meta.split == split for card in cards)],
        subjects=sorted({card.meta.subject for card in cards}),
        shown_levels=sorted({card.level for card in cards}),
        histograms=_histograms(manifest),
        reject_groups=group_rejects(rejects),
        max_listed=_MAX_LISTED_REJECTS,
        policy=f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'",
        style=Markup(style),  # noqa: S704  # the two files beside this one, not data
        script=Markup(script),  # noqa: S704
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _label_of(manifest: Manifest, wanted: str | None) -> tuple[str, int | None]:
    """(label, level or None) of NAME or NAME=LEVEL; without one the set's first label."""
    name, given, text = (wanted or next(iter(manifest.label_names))).partition("=")
    if name not in manifest.label_names:
        raise ConfigError(f"--label {wanted}: the set has no label '{name}'; it has: {', '.join(manifest.label_names)}")
    names = manifest.label_names[name]
    if given and text not in map(str, range(len(names))):
        raise ConfigError(f"--label {wanted}: '{name}' has the levels 0 to {len(names) - 1} ({', '.join(names)}); name one")
    return name, int(text) if given else None


def _card(manifest: Manifest, label: str, shards: ShardSet, number: int) -> Card:
    sample = shards.read(number)
    meta = sample.meta
    levels = tuple(
        (name, level, names[level] if 0 <= level < len(names) else "not labelled")
        for name, names in manifest.label_names.items()
        if (level := meta.labels.get(name, -1)) is not None
    )
    pictures = _strip(sample) if sample.has_frames else []
    pictures += [_array(name, values) for name, values in sample.features.items()]
    return Card(meta=meta, level=meta.labels.get(label, -1), levels=levels, pictures=tuple(pictures))


def _strip(sample: Sample) -> list[Picture]:
    frames_THWC = sample.decode_frames()
    chosen = [(2 * place + 1) * len(frames_THWC) // (2 * _STRIP_FRAMES) for place in range(_STRIP_FRAMES)]
    uri, width_px, height_px = frame_strip(frames_THWC[chosen])
    times = ", ".join(f"{sample.meta.frame_times_s[t]:.1f}" for t in chosen if t < len(sample.meta.frame_times_s))
    return [Picture(uri, width_px, height_px, f"{len(chosen)} frames of clip {sample.meta.clip_id}, at {times} seconds")]


def _array(name: str, values: npt.NDArray[np.float32]) -> Picture:
    uri, width_px, height_px = heat_map(values)
    shape = " x ".join(map(str, values.shape))
    return Picture(uri, width_px, height_px, f"{name}, {shape} values: time to the right, features downwards", is_array=True)


def _histograms(manifest: Manifest) -> list[dict[str, object]]:
    """For the template: each label with, by split, (level's name, clips, share of the split) of each level."""
    found: list[dict[str, object]] = []
    for label, names in manifest.label_names.items():
        splits = {}
        for split, summary in manifest.splits.items():
            counts = summary.label_histogram[label]
            total = max(1, sum(counts))
            splits[split] = [(name, count, count / total) for name, count in zip(names, counts, strict=True)]
        found.append({"label": label, "splits": splits})
    return found

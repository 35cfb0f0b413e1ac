"""A picture to look at: pictures of the recording with every person's tile drawn and named."""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from data_shards.atomic import write_whole
from data_shards.gallery.people import People
from data_shards.gallery.recording import Picture, Recording, RecordingStream
from data_shards.gallery.tracking import TileSpan

__all__ = ["draw_tiles"]

_MAX_PICTURES = 6
_WIDTH_PX = 960
_COLOURS = ("#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#46f0f0", "#f032e6", "#bcf60c", "#fabebe", "#e6beff")


def draw_tiles(recording: Recording, people: People, path: Path) -> None:
    """Write `path`: as few pictures of the recording as show everybody, up to six, one below the other."""
    moments = _moments(people)
    sheets = []
    for picture in RecordingStream(recording):
        if not isinstance(picture, Picture) or picture.time_s < moments[0]:
            continue
        sheets.append(_drawn(picture, people))
        moments.pop(0)
        if not moments:
            break
    if not sheets:  # the recording ends before the last moment
        return
    whole = Image.new("RGB", (_WIDTH_PX, sum(sheet.height for sheet in sheets)))
    top = 0
    for sheet in sheets:
        whole.paste(sheet, (0, top))
        top += sheet.height
    content = io.BytesIO()
    whole.save(content, "JPEG", quality=85)
    write_whole(path, content.getvalue())


def _moments(people: People) -> list[float]:
    """Times in order that together show everybody: each time the middle of a tile's span with most people still unseen."""
    unseen = {person.subject for person in people.people}
    middles = [(tile.start_s + tile.end_s) / 2 for person in people.people for tile in person.tiles[:100]]
    moments: list[float] = []
    while unseen and len(moments) < _MAX_PICTURES:
        visible = {m: {p.subject for p in people.people if _tile_at(p.tiles, m)} & unseen for m in middles}
        best = max(middles, key=lambda middle: len(visible[middle]))
        moments.append(best)
        unseen -= visible[best]
    return sorted(moments)


def _drawn(picture: Picture, people: People) -> Image.Image:
    image = Image.fromarray(picture.rgb())
    scale = _WIDTH_PX / image.width
    image = image.resize((_WIDTH_PX, round(image.height * scale)))
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(16)
    for number, person in enumerate(people.people):
        tile = _tile_at(person.tiles, picture.time_s)
        if tile is None:
            continue
        box, colour = tile.box, _COLOURS[number % len(_COLOURS)]
        left, top = box.x * scale, box.y * scale
        draw.rectangle((left, top, left + box.width * scale, top + box.height * scale), outline=colour, width=3)
        name = draw.textbbox((left + 6, top + 4), person.subject, font=font)
        draw.rectangle((name[0] - 3, name[1] - 3, name[2] + 3, name[3] + 3), fill="black")
        draw.text((left + 6, top + 4), person.subject, fill=colour, font=font)
    draw.text((6, image.height - 20), f"{picture.time_s:.1f} s", fill="white", font=font, stroke_width=2, stroke_fill="black")
    return image


def _tile_at(tiles: Sequence[TileSpan], time_s: float) -> TileSpan | None:
    return next((tile for tile in tiles if tile.start_s <= time_s < tile.end_s), None)

"""The form of a clip: read by hand, for an upload must find room before its first byte is taken, and its parts are bounded."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from data_shards.errors import ClipError
from serving.http.sniffing import check_clip

__all__ = ["CLIP_FORM", "ClipForm", "read_clip_form"]

MAX_TRANSCRIPT_BYTES = 4 << 20  # a spoken hour takes about 100 kB
_MAX_FILES = 2
_MAX_FIELDS = 4
_MAX_FIELD_BYTES = 16 << 10
# what FastAPI would say of the form, had it read it
CLIP_FORM: Mapping[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["clip"],
                    "properties": {
                        "clip": {"type": "string", "format": "binary", "description": "A video file; its name means nothing"},
                        "transcript": {
                            "type": "string",
                            "format": "binary",
                            "description": "What is said in it, for a model that reads speech: WebVTT, SRT or JSON",
                        },
                    },
                }
            }
        },
    }
}


class _FormParser(MultiPartParser):
    """Keeps most clips in memory: what of an upload reaches the disk is a file without a name, and costs time."""

    spool_max_size = 8 << 20  # 32 uploads at once hold 256 MiB


class ClipForm(NamedTuple):
    """The bytes of a clip that is some video container, and of what is said in it."""

    clip: bytes
    transcript: bytes | None


async def read_clip_form(request: Request) -> ClipForm:
    """The request's form. HTTPException with 400 where it is none or has too many parts, with 415 where the body is of
    another kind, ClipError where the clip is missing or no video. What was received lies in memory, and over 8 MiB in a
    file without a name, which is gone when this returns."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        if request.headers.get("content-length", "0") == "0" and "transfer-encoding" not in request.headers:
            raise ClipError("no upload; send a video file as the form field 'clip'")
        raise HTTPException(415, "not a multipart/form-data body; send a video file as the form field 'clip'")
    parser = _FormParser(
        request.headers, request.stream(), max_files=_MAX_FILES, max_fields=_MAX_FIELDS, max_part_size=_MAX_FIELD_BYTES
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(400, error.message) from None
    try:
        unknown = next((name for name in form if name not in ("clip", "transcript")), None)
        clip = form.get("clip")
        if not isinstance(clip, UploadFile):
            raise ClipError("the form field 'clip' is missing or holds no file; send a video file there")
        if unknown is not None or len(form.multi_items()) != len(form):
            raise ClipError("the form has more than one 'clip' and one 'transcript'; send those alone")
        transcript = form.get("transcript")
        words = await _transcript_of(transcript) if transcript is not None else None
        content = await clip.read()
    finally:
        await form.close()
    check_clip(content)
    return ClipForm(content, words)


async def _transcript_of(field: UploadFile | str) -> bytes:
    words = field.encode() if isinstance(field, str) else await field.read(MAX_TRANSCRIPT_BYTES + 1)
    if len(words) > MAX_TRANSCRIPT_BYTES:
        raise ClipError(f"the transcript is over {MAX_TRANSCRIPT_BYTES >> 20} MiB, which no clip's is; send the clip's own")
    return words

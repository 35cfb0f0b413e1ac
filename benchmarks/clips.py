"""The clips that benchmarks read: the real ones of ../shared/data where they are, simulated ones otherwise."""

from dataclasses import replace
from pathlib import Path

from cluster.home import home
from data_shards.listing import ListedClip
from data_shards.simulation import SimulationSettings, generate
from data_shards.storage.source import file_of

__all__ = ["SHARED_FACE_MODEL", "benchmark_clips", "decoder_clips", "repeated"]

_SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
_REAL = _SHARED / "videos"
SHARED_FACE_MODEL = _SHARED / "models" / "face_landmarker.task"
_REAL_NAMES = ("5100462069.avi", "test1.avi", "test2.avi", "test3.avi")  # DAiSEE's own format: XVID, 640x480, 10 s
_REAL_FORMATS = (  # what it is, name, (width, height) of frames with 224 on the shorter side, even as preprocess makes them
    ("XVID 640x480", "5100462069.avi", (298, 224)),
    ("H.264 1080p", "crowd_1080p.mp4", (398, 224)),
    ("HEVC 960x540", "noface_face.mov", (398, 224)),
    ("MPEG-1 360x288", "swiz3n.mpg", (280, 224)),
    ("H.264, damaged", "corrupted.mp4", (398, 224)),
)


def benchmark_clips() -> tuple[str, list[ListedClip]]:
    """(what they are, the clips)."""
    if _REAL.is_dir():
        return "4 DAiSEE-format clips, XVID 640x480, 300 frames", [_clip(_REAL / name) for name in _REAL_NAMES]
    return "8 simulated clips, H.264 640x480, 150 frames", [_clip(path) for path in _simulated()]


def decoder_clips() -> list[tuple[str, Path, tuple[int, int]]]:
    """(what it is, the file, the size to scale frames to) of one clip a format."""
    if _REAL.is_dir():
        return [(what, _REAL / name, size) for what, name, size in _REAL_FORMATS]
    return [("simulated, H.264 640x480, 150 frames", _simulated()[0], (298, 224))]


def repeated(clips: list[ListedClip], num_clips: int) -> list[ListedClip]:
    """`num_clips` clips: the same files in turn, each time under another id."""
    return [replace(clips[number % len(clips)], clip_id=f"clip-{number:06d}") for number in range(num_clips)]


def _simulated() -> list[Path]:
    folder = home() / "benchmarks" / "clips"
    generate(SimulationSettings(num_clips=8, width_px=640, height_px=480), folder, num_workers=2)
    return sorted((folder / "clips").iterdir())


def _clip(path: Path) -> ListedClip:
    return ListedClip(clip_id=path.name, video=file_of(path), subject="benchmark", split="train", labels={"engagement": 0})

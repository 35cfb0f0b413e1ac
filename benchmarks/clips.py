"""The clips that benchmarks read: the real ones of ../shared/data where they are, simulated ones otherwise."""

from pathlib import Path

from cluster.home import home
from data_shards.listing import ListedClip
from data_shards.simulation import SimulationSettings, generate
from data_shards.source import file_of

__all__ = ["benchmark_clips"]

_REAL = Path(__file__).parent.parent.parent / "shared" / "data" / "videos"
_REAL_NAMES = ("5100462069.avi", "test1.avi", "test2.avi", "test3.avi")  # DAiSEE's own format: XVID, 640x480, 10 s


def benchmark_clips() -> tuple[str, list[ListedClip]]:
    """(what they are, the clips)."""
    if _REAL.is_dir():
        return "4 DAiSEE-format clips, XVID 640x480, 300 frames", [_clip(_REAL / name) for name in _REAL_NAMES]
    folder = home() / "benchmarks" / "clips"
    generate(SimulationSettings(num_clips=8, width_px=640, height_px=480), folder, num_workers=2)
    return "8 simulated clips, H.264 640x480, 150 frames", [_clip(path) for path in sorted((folder / "clips").iterdir())]


def _clip(path: Path) -> ListedClip:
    return ListedClip(clip_id=path.name, video=file_of(path), subject="benchmark", split="train", labels={"engagement": 0})

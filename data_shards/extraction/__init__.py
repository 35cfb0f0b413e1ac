"""The extractors: a feature's name to what makes it from a clip.

To add one: one file with an `Extractor` and its settings, and one line here; the contract tests find it.
"""

from data_shards.extraction.acoustics import Acoustics
from data_shards.extraction.contract import ClipMaterial, Extractor, ExtractorSettings, Reading
from data_shards.extraction.encoder import VideoEncoder
from data_shards.extraction.i3d import I3d
from data_shards.extraction.openface import OpenFace
from data_shards.extraction.speech import Speech

__all__ = ["EXTRACTORS", "ClipMaterial", "Extractor", "ExtractorSettings", "Reading"]

EXTRACTORS: dict[str, type[Extractor]] = {
    "openface": OpenFace,
    "i3d": I3d,
    "videomae": VideoEncoder,
    "acoustics": Acoustics,
    "speech": Speech,
}

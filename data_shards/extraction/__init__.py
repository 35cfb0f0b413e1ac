"""The extractors: a feature's name to what makes it from a clip.

To add one: one file with an `Extractor` and its settings, and one line here; the contract tests find it.
"""

from data_shards.extraction.contract import ClipMaterial, Extractor, ExtractorSettings, Reading
from data_shards.extraction.openface import OpenFace

__all__ = ["EXTRACTORS", "ClipMaterial", "Extractor", "ExtractorSettings", "Reading"]

EXTRACTORS: dict[str, type[Extractor]] = {
    "openface": OpenFace,
}

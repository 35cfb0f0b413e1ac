"""EngageWild's arrays of features: one .npz a kind, all of the same clips in the same order.

Letters: N clips of a split, S half-overlapping segments of a clip, F values.
"""

import io
import re
import zipfile
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from data_shards.datasets.listing_draft import ListingDraft
from data_shards.errors import ClipError, DataError
from data_shards.listing import ListedClip, Listing
from data_shards.storage.source import Source

__all__ = ["LABEL_NAMES", "LEVEL_VALUES", "NOTICE", "array_files", "level_of", "list_arrays"]

LABEL_NAMES: dict[str, tuple[str, ...]] = {
    "engagement": ("disengaged", "barely engaged", "normally engaged", "highly engaged"),
}
NOTICE = (
    "EngageWild's arrays name no people: each clip counts as a person of its own, so intervals are over clips, and nobody "
    "can tell whether a person is in two splits"
)
_FILE = re.compile(r"((?:openface|vggface2)_(?:15|21))\.npz")
_SPLITS = {"train": "train", "val": "validation"}
LEVEL_VALUES: tuple[float, ...] = (0.0, 0.33, 0.66, 1.0)  # the official value of each level, which errors are measured in
_MAX_BYTES = 2**30  # unpacked; the published ones take 1.5 MB
_EXTRACTORS = {"openface": "statistics of OpenFace columns a segment, not scaled", "vggface2": "VGGFace2 values a segment"}

Arrays = dict[str, npt.NDArray[np.float32]]


def array_files(source: Source) -> dict[str, str]:
    """Feature name to the file that holds it, the one nearest the top where several do."""
    nearest_first = sorted(source.files, key=lambda name: (name.count("/"), name))
    files: dict[str, str] = {}
    for name in nearest_first:
        match = _FILE.fullmatch(PurePosixPath(name).name)
        if match:
            files.setdefault(match[1], name)
    return dict(sorted(files.items()))


def list_arrays(source: Source) -> Listing:
    """Clips train-000, ..., validation-000, ... with all arrays as features. DataError where the files disagree."""
    arrays = {feature: _read(source, name) for feature, name in array_files(source).items()}
    first, *others = arrays
    for other in others:
        for key in ("y_train", "y_val"):
            if not np.array_equal(arrays[first][key], arrays[other][key]):
                raise DataError(f"{source.uri}: {key} of {first}.npz and {other}.npz differ, so not the same clips; keep one")
    draft = ListingDraft()
    for key, split in _SPLITS.items():
        for row, value in enumerate(arrays[first][f"y_{key}"].tolist()):
            clip_id = f"{split}-{row:03d}"
            with draft.entry(clip_id):
                features = {feature: array[f"x_{key}"][row] for feature, array in arrays.items()}
                draft.add(_clip(clip_id, split, value, features), place="the arrays")
    return Listing(
        dataset="engagewild",
        label_names=LABEL_NAMES,
        clips=tuple(draft.clips.values()),
        rejects=tuple(draft.rejects),
        notice=NOTICE,
        extractors={feature: {"name": _EXTRACTORS[feature.split("_")[0]], "by": "EmotiW 2019"} for feature in arrays},
    )


def level_of(value: float) -> int | None:
    """0, .33, .66, 1 (or thirds) to level 0 to 3; None for anything else."""
    nearest = int(np.abs(np.array(LEVEL_VALUES) - value).argmin())
    return nearest if abs(LEVEL_VALUES[nearest] - value) < 0.02 else None


def _clip(clip_id: str, split: str, value: float, features: Arrays) -> ListedClip:
    level = level_of(value)
    if level is None:
        raise ClipError(f"clip {clip_id}: its y is {value:g}, not one of 0, 0.33, 0.66 and 1; mend the arrays")
    wrong = [name for name, values in features.items() if not np.isfinite(values).all()]
    if wrong:
        raise ClipError(f"clip {clip_id}: {wrong[0]}.npz holds values that are not numbers; compute them again")
    return ListedClip(clip_id=clip_id, subject=clip_id, split=split, labels={"engagement": level}, features=dict(features))


def _read(source: Source, name: str) -> Arrays:
    """x_train, y_train, x_val, y_val of a file as float32. DataError where it is damaged or does not hold them."""
    place = f"{source.uri.rstrip('/')}/{name}"
    content = source.read(name)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            size_bytes = sum(info.file_size for info in packed.infolist())
        if size_bytes > _MAX_BYTES:
            raise DataError(f"{place}: {size_bytes:,} bytes unpacked, over the limit of {_MAX_BYTES:,}; cut it")
        with np.load(io.BytesIO(content), allow_pickle=False) as stored, np.errstate(over="ignore"):
            arrays = {key: stored[key].astype(np.float32) for key in ("x_train", "y_train", "x_val", "y_val")}
    except DataError:
        raise
    except KeyError as error:
        raise DataError(f"{place}: lacks {error.args[0].split()[0]}; it must hold x_train, y_train, x_val and y_val") from None
    except Exception as error:  # zipfile, zlib and numpy have no common error for damage and passwords
        what = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{place}: not readable arrays ({what}); download it again") from None
    for key in _SPLITS:
        x_NSF, y_N = arrays[f"x_{key}"], arrays[f"y_{key}"]
        if x_NSF.ndim != 3 or y_N.ndim != 1 or len(x_NSF) != len(y_N) or not x_NSF.size:
            raise DataError(
                f"{place}: x_{key} of shape {x_NSF.shape} and y_{key} of shape {y_N.shape}; they must be (N, S, F) and (N,)"
            )
    return arrays

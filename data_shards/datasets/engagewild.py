"""EngageWild, the engagement task of EmotiW 2018 to 2020 (Kaur et al. 2018), as arrays of features or as videos.

Arrays, taken where SOURCE has any: `{openface,vggface2}_{15,21}.npz` (Huynh et al. 2019) with x_train (146, S, F),
y_train, x_val (48, S, F), y_val. All files list the same clips in the same order, so a clip carries a feature of each.

Videos: folders Train, Validation and Test, and label files of two columns, a video's name and its engagement. The
organisers' own file names are not public; how participants read them is: comma-separated with no header and names without
suffix (littleZY/SML_EW_EmotiW2019, utils.py), with a header (mashuaiwudi/Emotiw2020_Engagement_Prediction,
settings/train_files.csv), separated by spaces (kaiwang960112/EmotiW_2019_engagement_regression, sample.py), or a
spreadsheet train_labels.xlsx with suffixes. So every .csv or .txt whose name holds 'label' or 'engagement' is read, in
any of these forms. `subject_26_Vid_5_1` is a video of subject_26; a test clip's name (`test_11`) says nobody.

Engagement is 0, .33, .66 or 1: disengaged, barely, normally, highly engaged.
"""

import re
from pathlib import PurePosixPath

from data_shards.datasets import engagewild_arrays
from data_shards.datasets.label_file import decode_text
from data_shards.datasets.listing_draft import ListingDraft
from data_shards.datasets.video_files import VIDEO_SUFFIXES, VideoFiles, stem_of
from data_shards.errors import ClipError, DataError
from data_shards.listing import ListedClip, Listing
from data_shards.storage.source import Source

__all__ = ["list_clips"]

_LABEL_FILE = re.compile(r".*(label|engagement).*\.(csv|txt)", re.IGNORECASE)
_SPREADSHEET = re.compile(r".*(label|engagement).*\.xlsx?", re.IGNORECASE)
_LINE = re.compile(r'\s*"?(?P<name>[^",;\s]+)"?\s*[,;\s]\s*"?(?P<value>[^",;\s]*)"?\s*')
_SUBJECT = re.compile(r"(subject_\d+)_.*", re.IGNORECASE)


def list_clips(source: Source) -> Listing:
    """List the arrays below `source`, or else its videos. DataError where there are neither, or the arrays do not fit."""
    if engagewild_arrays.array_files(source):
        return engagewild_arrays.list_arrays(source)
    label_files = sorted(name for name in source.files if _LABEL_FILE.fullmatch(PurePosixPath(name).name))
    if not label_files:
        raise DataError(f"{source.uri}: {_what_is_missing(source)}")
    videos = VideoFiles(source)
    draft = ListingDraft()
    labelled: set[str] = set()
    for label_file in label_files:
        for place, name, value in _labels(source, label_file):
            with draft.entry(name):
                stem = stem_of(name, place=place)
                stem = stem if PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES else name
                labelled.add(stem)
                draft.add(_clip(stem, value, videos, place), place=place)
    return Listing(
        dataset="engagewild",
        label_names=engagewild_arrays.LABEL_NAMES,
        clips=tuple(draft.clips.values()),
        rejects=(*draft.rejects, *videos.unlabelled(labelled)),
    )


def _what_is_missing(source: Source) -> str:
    sheets = [name for name in source.files if _SPREADSHEET.fullmatch(PurePosixPath(name).name)]
    if sheets:
        return f"{sheets[0]} is a spreadsheet; save it as CSV beside it"
    return "no arrays (openface_15.npz, ...) and no label file (labels.csv, ...) there; name the folder that holds EngageWild"


def _labels(source: Source, label_file: str) -> list[tuple[str, str, str]]:
    """(place, video's name, value as text) of each line; a first line without a number is a header."""
    text = decode_text(source.read(label_file), place=f"{source.uri.rstrip('/')}/{label_file}")
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        parts = _LINE.fullmatch(line)
        name, value = (parts["name"], parts["value"]) if parts else (line.strip(), "")
        header = number == 1 and not re.search(r"\d", value)
        if name and not header:
            found.append((f"{PurePosixPath(label_file).name} line {number}", name, value))
    return found


def _clip(stem: str, value: str, videos: VideoFiles, place: str) -> ListedClip:
    video = videos.get(stem, place=place)
    split = videos.split_of(video)
    if not split:
        raise ClipError(f"clip {stem}: {video.name} lies in no folder Train, Validation or Test; move it there")
    try:
        level = engagewild_arrays.level_of(float(value))
    except ValueError:
        level = None
    if level is None:
        raise ClipError(f"{place}: engagement is '{value[:40]}', not one of 0, 0.33, 0.66 and 1; mend the label file")
    named = _SUBJECT.fullmatch(stem)
    subject = named[1].casefold() if named else stem
    return ListedClip(clip_id=stem, video=video, subject=subject, split=split, labels={"engagement": level})

"""A tiny synthetic copy of each dataset's published layout: the files and labels are made up, the forms are not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from data_shards.datasets.openface import OPENFACE_COLUMNS


def put(root: Path, name: str, content: str | bytes = b"video") -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def openface_csv(rows: list[dict[str, float | str]], columns: tuple[str, ...] = OPENFACE_COLUMNS) -> str:
    """An OpenFace CSV with leading spaces in its names; what a row does not say is 0.5."""
    names = ("frame", "face_id", "timestamp", "confidence", "success", *columns)
    usual: dict[str, float | str] = {"face_id": 0, "timestamp": 0.0, "confidence": 0.98, "success": 1}
    lines = [", ".join(names)]
    lines += [", ".join(str((usual | row).get(name, 0.5)) for name in names) for row in rows]
    return "\n".join(lines) + "\n"


def daisee(root: Path) -> None:
    for split, stems in (("Train", ("1100011001", "1100011002")), ("Validation", ("2200021001",)), ("Test", ("3300031001",))):
        for stem in stems:
            put(root, f"DataSet/{split}/{stem[:6]}/{stem}/{stem}.avi")
        rows = "".join(f"{stem}.avi,0,{number + 1},2,3\n" for number, stem in enumerate(stems))
        put(root, f"Labels/{split}Labels.csv", f"ClipID,Boredom,Engagement,Confusion,Frustration \n{rows}")


def cmose_records() -> dict[str, dict[str, Any]]:
    embeds = [round(0.001 * number, 3) for number in range(1024)]
    return {
        "video1_1_person0": {"split": "train", "label": "Highly Disengage", "agreement": 1.0, "embeds": embeds},
        "video1_2_person0": {"split": "unlabel", "label": "Disengage", "agreement": 0.67, "embeds": []},
        "video2_1_person1": {"split": "test", "label": "Engage", "agreement": 0.67, "embeds": embeds},
        "video2_2_person3": {"split": "train", "label": "Highly Engage", "agreement": 1.0, "embeds": embeds},
    }


def cmose(root: Path) -> None:
    put(root, "final_data_1.json", json.dumps(cmose_records()))
    for stem in ("video1_1_person0", "video1_2_person0", "video2_1_person1"):
        put(root, f"secondFeature/secondFeature/{stem}.csv", openface_csv([{"frame": 1}, {"frame": 2}]))


def engagewild(root: Path) -> None:
    for name, num_values in (("openface_15", 60), ("vggface2_15", 128)):
        put_arrays(root, name, num_values=num_values)


def put_arrays(root: Path, name: str, *, num_values: int = 60, **changed: Any) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.random((4, 15, num_values), dtype=np.float32),
        "y_train": np.array([0, 0.33, 0.66, 1], dtype=np.float32),
        "x_val": rng.random((2, 15, num_values), dtype=np.float32),
        "y_val": np.array([0.66, 1], dtype=np.float32),
    }
    root.mkdir(parents=True, exist_ok=True)
    np.savez(root / f"{name}.npz", **{key: value for key, value in (arrays | changed).items() if value is not None})


def engagewild_videos(root: Path) -> None:
    for name in ("Train/subject_26_Vid_1.mp4", "Train/subject_26_Vid_5_1.AVI", "validation/subject_1_Vid_1.webm", "TEST/11.mp4"):
        put(root, name)
    put(root, "labels.csv", "subject_26_Vid_1,0.66\nsubject_26_Vid_5_1,0.33\nsubject_1_Vid_1,1\n11,0\n")


def engagenet(root: Path) -> None:
    rows = {
        "Train": ("subject_7_ab12_vid_0_0.mp4,Not-Engaged", "subject_7_ab12_vid_0_1.mp4,SNP(Subject Not Present)"),
        "Validation": ("subject_8_cd34_vid_1_0.mp4,Barely-engaged",),
        "Test": ("subject_9_ef56_vid_2_0.mp4,Engaged", "subject_9_ef56_vid_2_1.mp4,Highly-Engaged"),
    }
    for split, lines in rows.items():
        put(root, f"{split.lower()}_engagement_labels.csv", "chunk,label\n" + "\n".join(lines) + "\n")
        for line in lines:
            put(root, f"{split}/{line.split(',')[0]}")


def folder(root: Path) -> None:
    for name in ("a.mp4", "b.mp4", "deep/c.mp4"):
        put(root, name)
    put(root, "labels.csv", "clip,label,subject,split\na.mp4,0,p1,train\nb.mp4,3,p2,validation\ndeep/c.mp4,2,p3,test\n")


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "daisee": daisee,
    "cmose": cmose,
    "engagewild": engagewild,
    "engagenet": engagenet,
    "folder": folder,
    "simulated": folder,
}

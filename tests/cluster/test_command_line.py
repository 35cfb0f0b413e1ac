"""The command line: help with an example everywhere, and one plain sentence for every mistake."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import psutil
import pytest

from cluster.command_line import rapt
from data_shards.manifest import Manifest
from tests.conftest import ROOT
from tests.tiles import plain, write_clip


def rapt_run(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cluster", *map(str, arguments)]
    # ray.init switches it on for whatever its process starts, and a test before this one may have called it here
    ours = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"}
    paths = {"PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=300,
        cwd=cwd or ROOT,
        env={**ours, **paths, **environment},
        check=False,
    )


def commands(group: click.Group = rapt, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, command in group.commands.items():
        found.append((*prefix, name))
        if isinstance(command, click.Group):
            found += commands(command, (*prefix, name))
    return found


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_has_help_with_an_example(command: tuple[str, ...]) -> None:
    found: click.Command = rapt
    for name in command:
        assert isinstance(found, click.Group)
        found = found.commands[name]
    assert found.help
    if not isinstance(found, click.Group):
        assert f"rapt {' '.join(command)}" in found.help, "the help has no example"
        undocumented = [o.name for o in found.params if isinstance(o, click.Option) and not o.help and o.name not in SELF_EVIDENT]
        assert undocumented == []


SELF_EVIDENT = ("clips_per_shard", "port", "alias")


def test_help_is_cheap() -> None:
    heavy = "torch, ray, mlflow, decord, av, numpy, fastapi, webdataset".replace(" ", "")
    code = f"import sys, cluster.command_line; print([m for m in '{heavy}'.split(',') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.strip() == "[]"


def test_a_dataset_is_built_described_and_verified(simulated_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    built = rapt_run("shards", "build", "folder", simulated_folder, out, "--frames", "4", "--size", "32", "--json")
    assert built.returncode == 0, built.stderr
    content = json.loads(built.stdout)
    assert (content["dataset"], content["simulated"], content["num_rejected"]) == ("simulated", True, 0)
    described = rapt_run("shards", "info", out)
    assert "simulated clips of drawn people" in described.stdout
    assert "validation" in described.stdout
    assert json.loads(rapt_run("shards", "verify", out, "--json").stdout)["findings"] == []


def test_simulated_takes_its_number_of_clips(tmp_path: Path) -> None:
    out = tmp_path / "shards"
    built = rapt_run("shards", "build", "simulated", "4", out, "--frames", "3", "--size", "32", "--json")
    assert built.returncode == 0, built.stderr
    assert sum(split["num_samples"] for split in json.loads(built.stdout)["splits"].values()) == 4


def test_the_real_daisee_clip_is_sharded_with_its_label_and_split(real_data: Path, tmp_path: Path) -> None:
    tree, out = tmp_path / "DAiSEE", tmp_path / "shards"
    video = tree / "DataSet" / "Test" / "510046" / "5100462069" / "5100462069.avi"
    video.parent.mkdir(parents=True)
    video.symlink_to(real_data / "videos" / "5100462069.avi")
    (tree / "Labels").symlink_to(real_data / "labels" / "daisee")
    built = rapt_run("shards", "build", "daisee", tree, out, "--json")
    assert built.returncode == 0, built.stderr
    content = json.loads(built.stdout)
    assert content["splits"] == {
        "test": {
            "num_samples": 1,
            "subjects": ["510046"],
            "label_histogram": {
                "engagement": [0, 0, 0, 1],
                "boredom": [1, 0, 0, 0],
                "confusion": [1, 0, 0, 0],
                "frustration": [1, 0, 0, 0],
            },
        }
    }
    assert not content["simulated"]


def test_every_shared_video_goes_through_one_build(real_data: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "clips", tmp_path / "shards"
    source.mkdir()
    rows = ["clip,label,subject,split"]
    for number, video in enumerate(sorted((real_data / "videos").iterdir())):
        (source / video.name).write_bytes(video.read_bytes())
        # the clips have no known label: these only fill the column, and nothing is trained on them
        rows.append(f"{video.name},{number % 4},person-{number},train")
    (source / "labels.csv").write_text("\n".join(rows) + "\n")
    built = rapt_run("shards", "build", "folder", source, out, "--frames", "8", "--json")
    assert built.returncode == 0, built.stderr
    content = json.loads(built.stdout)
    rejects = [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]
    assert [reject["clip_id"] for reject in rejects] == ["corrupted.mp4"]
    assert "damaged" in rejects[0]["reason"]
    assert content["splits"]["train"]["num_samples"] == len(rows) - 2
    strict = rapt_run("shards", "build", "folder", source, tmp_path / "strict", "--frames", "8", "--strict")
    assert strict.returncode == 1
    assert "stopped by --strict" in strict.stderr


BAD = {
    "missing source": (["shards", "build", "folder", "{tmp}/none", "{tmp}/out"], "no such folder"),
    "unknown dataset": (["shards", "build", "imagenet", "{tmp}", "{tmp}/out"], "no dataset named 'imagenet'"),
    "source is no number": (["shards", "build", "simulated", "many", "{tmp}/out"], "takes a number of clips"),
    "option of another dataset": (["shards", "build", "folder", "{tmp}", "{tmp}/out", "--seed", "1"], "--seed is for simulated"),
    "size out of range": (["shards", "build", "folder", "{tmp}/csv", "{tmp}/out", "--size", "3"], "size_px: Input should be"),
    "csv without a column": (["shards", "build", "folder", "{tmp}/csv", "{tmp}/out"], "no column named 'subject'"),
    "label outside its range": (
        ["shards", "build", "folder", "{tmp}/range", "{tmp}/out"],
        "label is '7', outside its range 0 to 3",
    ),
    "no shards there": (["shards", "info", "{tmp}"], "no manifest.json"),
    "unknown recipe": (["train", "best", "--data", "{shards}", "--local"], "no recipe named 'best'"),
    "no recipe": (["train"], "no recipe named; e.g."),
    "no data": (["train", "demo", "--local"], "no data named"),
    "data without manifest": (["train", "demo", "--data", "{tmp}", "--local"], "no manifest.json"),
    "unknown setting": (["train", "demo", "--data", "{shards}", "--local", "--set", "loop.epoch=1"], "no setting 'loop.epoch'"),
    "unfit value": (["train", "demo", "--data", "{shards}", "--local", "--set", "loop.epochs=x"], "valid integer"),
    "unknown label": (["train", "demo", "--data", "{shards}", "--local", "--set", "data.label=joy"], "no label 'joy'"),
    "local and workers": (["train", "demo", "--data", "{shards}", "--local", "--workers", "2"], "--local trains in this one"),
    "batch that cannot be shared": (["train", "demo", "--data", "{shards}", "--workers", "3"], "3 workers cannot share"),
    "unknown run": (["train", "--resume", "nobody"], "no such run"),
    "another strategy on resume": (
        ["train", "--resume", "nobody", "--strategy", "ddp"],
        "leave RECIPE, --run, --strategy and --set out",
    ),
    "strategy that cannot be": (
        ["train", "demo", "--show", "--strategy", "deepspeed-zero1", "--set", "loop.precision=fp64"],
        "DeepSpeed keeps its weights in float32",
    ),
    "unknown alias": (["score", "models:/engagement@nobody", "x.mp4"], "the registry holds none"),
    "no bundle": (["score", "{tmp}", "x.mp4"], "no bundle there"),
    "serve what is not there": (["serve", "models:/engagement@champion"], "the registry holds none"),
    "promote nobody": (["promote", "nobody"], "no registered version"),
    "damaged shard": (["shards", "verify", "{damaged}"], "1 findings"),
    "broken settings file": (["shards", "info", "{shards}"], "rapt.yaml: not readable"),
}


@pytest.mark.parametrize("mistake", BAD)
def test_a_mistake_is_one_sentence(mistake: str, tmp_path: Path, simulated_shards: tuple[Path, Manifest]) -> None:
    arguments, sentence = BAD[mistake]
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "labels.csv").write_text("clip,label,split\n")
    (tmp_path / "range").mkdir()
    (tmp_path / "range" / "labels.csv").write_text("clip,label,subject,split\na.mp4,7,p1,train\n")
    if mistake == "damaged shard":
        (tmp_path / "damaged").mkdir()
        for path in simulated_shards[0].iterdir():
            (tmp_path / "damaged" / path.name).write_bytes(path.read_bytes())
        tar = tmp_path / "damaged" / "train-000000.tar"
        tar.write_bytes(tar.read_bytes()[:-512] + b"\x01" * 512)  # in the padding: only the checksum can tell
    if mistake == "broken settings file":
        (tmp_path / "rapt.yaml").write_text("train: [")
    places = {"tmp": str(tmp_path), "shards": str(simulated_shards[0]), "damaged": str(tmp_path / "damaged")}
    result = rapt_run(*[argument.format(**places) for argument in arguments], cwd=tmp_path)
    assert result.returncode not in (0, None)
    assert sentence in result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith(("Error", "Usage"))]
    assert len(errors) == 1
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [("train: 5", "'train' must hold"), ("foo: {bar: 1}", "no command 'foo'"), ("serve: {port: [1, 2]}", "'serve' must hold")],
)
def test_a_settings_file_of_the_wrong_shape_is_one_sentence(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "rapt.yaml").write_text(content)
    result = rapt_run("shards", "info", tmp_path, cwd=tmp_path)
    assert result.returncode == 1
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


def test_a_person_in_two_splits_is_warned_of(simulated_folder: Path, tmp_path: Path) -> None:
    clips = sorted((simulated_folder / "clips").iterdir())[:2]
    for clip in clips:
        shutil.copy(clip, tmp_path)
    rows = [f"{clips[0].name},1,ann,train", f"{clips[1].name},1,ann,test"]
    (tmp_path / "labels.csv").write_text("\n".join(["clip,label,subject,split", *rows]) + "\n")
    built = rapt_run("shards", "build", "folder", tmp_path, tmp_path.parent / "out", "--frames", "2", "--size", "32")
    assert "1 people are in more than one split, e.g. ann" in built.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_build_and_leaves_no_process(simulated_folder: Path, tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "out"
    options = ["--clips-per-shard", "1", "--workers", "2", "--size", "224", "--frames", "600"]
    command = [sys.executable, "-m", "cluster", "shards", "build", "folder", str(simulated_folder), str(out), *options]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        deadline_s = time.monotonic() + 60
        while not list(out.glob("*.tar")):
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Error: stopped" in errors
    assert "Traceback" not in errors
    assert not psutil.wait_procs(children, timeout=30)[1]
    assert not (out / "manifest.json").exists()


def test_settings_come_from_flags_then_environment_then_file(simulated_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "rapt.yaml").write_text("shards:\n  build:\n    frames: 3\n    size: 40\n    quality: 50\n")
    arguments = ("shards", "build", "folder", simulated_folder, tmp_path / "out", "--frames", "2", "--json")
    built = rapt_run(*arguments, cwd=tmp_path, RAPT_SHARDS_BUILD_SIZE="36")
    assert built.returncode == 0, built.stderr
    pre = json.loads(built.stdout)["preprocess"]
    assert (pre["num_frames"], pre["size_px"], pre["jpeg_quality"]) == (2, 36, 50)


def test_scores_without_a_server_name_each_bad_file_and_go_on(tiny_bundle: Path, simulated_folder: Path, tmp_path: Path) -> None:
    clip = sorted((simulated_folder / "clips").iterdir())[0]
    (tmp_path / "bad.mp4").write_bytes(b"junk")
    result = rapt_run("score", tiny_bundle, tmp_path / "bad.mp4", clip, tmp_path / "none.mp4", "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.returncode == 1
    assert "2 of 3 files could not be scored" in result.stderr
    assert ["error" in line for line in lines] == [True, False, True]
    assert lines[1]["level"] in ("very low", "low", "high", "very high")


def test_scores_are_sentences_and_a_longer_clip_has_a_line_a_window(tiny_bundle: Path, real_data: Path, tmp_path: Path) -> None:
    black = write_clip(tmp_path / "black.mp4", [plain((0, 0, 0))] * 20)
    videos = [real_data / "videos" / name for name in ("no_face.mp4", "rot_0.mov", "WolfgangLanger_Pexels.mp4")]
    face_model = {"RAPT_FACE_LANDMARKER": str(real_data / "models" / "face_landmarker.task")}
    result = rapt_run("score", tiny_bundle, black, *videos, **face_model)
    assert (result.returncode, result.stderr) == (0, "")
    notice, dark, nobody, short, whole, first, second = result.stdout.splitlines()
    assert notice.startswith("what the model was trained on: simulated")
    assert dark == f"{black}: the camera is off, so no score"
    assert nobody.endswith(": nobody's face is in view, so no score")
    assert short.endswith(": too short, 0.1 s of at least 1 s, so no score")
    assert re.search(r": (very )?(low|high), score [+-]\d\.\d\d \(very low \d+%", whole)
    assert re.fullmatch(r"  0 to 10 s: (very )?(low|high), score [+-]\d\.\d\d", first)
    assert second.startswith("  10 to 19.6863 s: ")


def test_train_local_and_evaluate(simulated_shards: tuple[Path, Manifest], tmp_path: Path) -> None:
    home = {"RAPT_HOME": str(tmp_path / "home")}
    settings = ["--set", "loop.epochs=1", "--set", "model.widths=[4,8]"]
    trained = rapt_run("train", "demo", "--data", simulated_shards[0], "--local", "--json", "--profile", *settings, **home)
    assert trained.returncode == 0, trained.stderr
    result = json.loads(trained.stdout)
    assert "epoch   1" in trained.stderr
    assert "finished, best epoch 1" in trained.stderr
    assert re.search(r"^(data|compute)-bound: of a step's .* s, \d+% is waiting for data", trained.stderr, flags=re.MULTILINE)
    assert sorted(path.name for path in tmp_path.glob("home/runs/*/profile/*")) == ["trace-0.json.gz", "verdict.json"]
    model = "models:/engagement@champion"
    judged = rapt_run("evaluate", model, "--data", simulated_shards[0], "--json", **home)
    assert judged.returncode == 0, judged.stderr
    assert json.loads(judged.stdout)["confusion"] == result["test"]["confusion"]
    resumed = rapt_run("train", "--resume", result["run_id"], "--local", "--json", **home)
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["test"] == result["test"]

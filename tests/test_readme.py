"""The README is true: its tree is the tree, its commands run as printed, its files exist."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from data_shards.simulation import SimulationSettings, generate
from tests.conftest import ROOT
from tests.test_infra import free_base_port
from tests.weights import save_encoders, save_i3d

README = (ROOT / "README.md").read_text()
PACKAGES = ("data_shards", "training", "serving", "cluster")


def tree_of_readme() -> set[str]:
    """Paths of the tree block: a folder's name ends in a slash, two spaces a level."""
    block = next(part for part in README.split("```") if part.startswith("\ndata_shards/"))
    paths, folders = set(), []
    for line in block.strip().splitlines():
        indent, name = len(line) - len(line.lstrip()), line.split()[0]
        folders = folders[: indent // 2]
        if name.endswith("/"):
            folders.append(name)
        else:
            paths.add("".join(folders) + name)
        assert len(line.split()) > 1, f"{name} has no purpose"
    return paths


def test_the_tree_names_every_module_and_no_other() -> None:
    modules = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if not path.name.startswith("__")
    }
    assert tree_of_readme() == modules


def test_every_file_that_is_named_exists() -> None:
    named = re.findall(r"\]\(([^)#:]+)\)", README) + re.findall(r"`([\w/]+\.(?:md|txt|py))`", README)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.slow
def test_your_own_clips_from_clips_to_a_score(simulated_folder: Path, tmp_path: Path) -> None:
    section = README.split("## Your own clips")[1]
    commands = section.split("```sh\n")[1].split("```")[0]
    (tmp_path / "my-clips").symlink_to(simulated_folder)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "RAPT_HOME": str(tmp_path / ".rapt"), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "whole, " in result.stdout
    assert "balanced accuracy" in result.stdout
    assert result.stdout.count("sim") >= 64
    assert "simulated" in result.stdout


@pytest.mark.slow
def test_multimodal_from_clips_to_a_served_score(real_data: Path, tmp_path: Path) -> None:
    section = README.split("## Face, motion, sound and speech")[1]
    commands = section.split("```sh\n")[1].split("rapt serve")[0]  # the endpoint itself: tests/test_multimodal.py
    generate(SimulationSettings(num_clips=9, seed=3, fps=6, width_px=160, height_px=120), tmp_path / "my-clips", num_workers=2)
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "RAPT_HOME": str(tmp_path / ".rapt"),
            "RAPT_FACE_LANDMARKER": str(real_data / "models" / "face_landmarker.task"),
            "RAPT_I3D_WEIGHTS": str(save_i3d(tmp_path / "i3d.safetensors")),
            "RAPT_ENCODERS": str(save_encoders(tmp_path / "encoders")),
            "COLUMNS": "120",
        },
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
def test_daisee_and_engagewild_through_a_bucket_to_a_model(real_data: Path, tmp_path: Path) -> None:
    section = README.split("DAiSEE and EngageWild through an S3 bucket")[1]
    commands = section.split("```sh\n")[1].split("```")[0]
    (tmp_path / "EngageWild").symlink_to(real_data / "engagewild")
    (tmp_path / "DAiSEE").symlink_to(real_data)
    (tmp_path / "infra").symlink_to(ROOT / "infra")
    base = free_base_port()
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "HOME": str(tmp_path),
            "RAPT_HOME": str(tmp_path / ".rapt"),
            "BASE_PORT": str(base),
            "S3_PORT": str(base + 3),
            "COLUMNS": "120",
        },
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    try:
        assert result.returncode == 0, result.stdout + result.stderr
        assert "146 │" in result.stdout
        assert "left out, labelled in TrainLabels.csv line N, but no video of that name is there: 5,358" in result.stdout
        assert "0 leaks, " in result.stdout
        assert "s3://rapt/daisee-shards: 1 shard," in result.stdout
        assert "s3://rapt/ew-shards: whole, 7 shards" in result.stdout
        assert "registered as engagement version 1" in result.stdout
        assert "5100462069" in (tmp_path / "daisee-shards.html").read_text()
        fetched = [path for path in (tmp_path / ".rapt" / "cache").iterdir() if not path.name.startswith(".")]
        assert len(fetched) == 7  # the cache was cold: everything that was trained and validated on came from the bucket
    finally:
        pid = tmp_path / ".rapt" / "object-store" / "pid"  # gone where the last command stopped it
        if pid.exists():
            os.kill(int(pid.read_text()), signal.SIGKILL)


def test_every_command_of_the_readme_is_one_the_program_has() -> None:
    from cluster.command_line import rapt

    for words in re.findall(r"^rapt ([a-z]+)", README, flags=re.MULTILINE):
        assert words in rapt.commands


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"\bmake ([a-z]+)", README)) - {"and"}:
        assert f"\n{target}:" in makefile, target

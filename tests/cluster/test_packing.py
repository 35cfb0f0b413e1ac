"""A job's code: what a person would commit is packed, and nothing else."""

import subprocess
import zipfile
from pathlib import Path

import pytest

from cluster.packing import pack_checkout
from data_shards.errors import ConfigError


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    command = ["git", "-C", str(root), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    (root / "package").mkdir(parents=True)
    git(root, "init", "-q")
    (root / ".gitignore").write_text("*.log\nshards/\n")
    (root / "package" / "code ä.py").write_text("print('tracked')\n")
    (root / "gone.py").write_text("print('deleted later')\n")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "First")
    return root


def names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return sorted(archive.namelist())


def test_a_pack_holds_what_git_would_and_no_more(checkout: Path, tmp_path: Path) -> None:
    (checkout / "gone.py").unlink()
    (checkout / "new.py").write_text("print('untracked')\n")
    (checkout / "noise.log").write_text("ignored")
    (checkout / "shards").mkdir()
    (checkout / "shards" / "train.tar").write_text("ignored")
    (checkout / "link.py").symlink_to("new.py")
    (tmp_path / "outside.py").write_text("a person's own")
    (checkout / "leads-out.py").symlink_to(tmp_path / "outside.py")
    pack = pack_checkout(checkout, tmp_path / "packs")
    assert pack is not None
    assert names(pack.path) == [".gitignore", "link.py", "new.py", "package/code ä.py"]
    assert pack.left_out == ("leads-out.py",)
    assert pack.commit == git(checkout, "rev-parse", "HEAD") + "+changes"
    with zipfile.ZipFile(pack.path) as archive:
        assert archive.read("link.py") == b"print('untracked')\n"


def test_a_pack_of_a_clean_tree_is_the_commit_and_has_the_same_bytes(checkout: Path, tmp_path: Path) -> None:
    (checkout / "noise.log").write_text("ignored")
    first = pack_checkout(checkout, tmp_path / "packs")
    assert first is not None
    assert first.commit == git(checkout, "rev-parse", "HEAD")
    git(checkout, "clone", "-q", str(checkout), str(tmp_path / "clone"))
    second = pack_checkout(tmp_path / "clone", tmp_path / "packs")
    assert second is not None
    assert second.path == first.path
    (checkout / "package" / "code ä.py").write_text("print('changed')\n")
    third = pack_checkout(checkout, tmp_path / "packs")
    assert third is not None
    assert third.path != first.path
    assert third.commit.endswith("+changes")


def test_a_pack_that_is_too_large_names_the_largest_files(checkout: Path, tmp_path: Path) -> None:
    (checkout / "video.mp4").write_bytes(bytes(2**21))
    with pytest.raises(ConfigError, match=r"2\.0 MiB, a job's pack holds 1 MiB.*largest are video\.mp4 \(2\.0 MiB\)"):
        pack_checkout(checkout, tmp_path / "packs", max_bytes=2**20)
    assert not (tmp_path / "packs").exists()


def test_outside_of_a_checkout_nothing_is_packed(checkout: Path, tmp_path: Path) -> None:
    assert pack_checkout(checkout / "package", tmp_path / "packs") is None
    assert not (tmp_path / "packs").exists()


def test_only_the_last_ten_packs_are_kept(checkout: Path, tmp_path: Path) -> None:
    for number in range(12):
        (checkout / "new.py").write_text(f"print({number})\n")
        last = pack_checkout(checkout, tmp_path / "packs")
    assert last is not None
    kept = list((tmp_path / "packs").iterdir())
    assert len(kept) == 10
    assert last.path in kept

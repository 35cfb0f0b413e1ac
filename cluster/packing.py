"""A checkout as one zip for a job: what git tracks and what it would, never what .gitignore names, never .git."""

import hashlib
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path

from data_shards.atomic import whole_file
from data_shards.errors import ConfigError

__all__ = ["MAX_PACK_BYTES", "Pack", "pack_checkout"]

MAX_PACK_BYTES = 64 * 2**20  # [choice] of files before they are packed; Ray's dashboard takes 100 MiB, Rapt's has under 4
_KEPT_PACKS = 10
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # of every file, so that the same files make the same zip


@dataclass(frozen=True, kw_only=True)
class Pack:
    """path: the zip, named by its SHA-1 as Ray will name it. commit: with "+changes" where files differ from it.

    left_out: links that lead out of the checkout.
    """

    path: Path
    commit: str
    num_files: int
    size_bytes: int
    left_out: tuple[str, ...] = ()


def pack_checkout(root: Path, folder: Path, *, max_bytes: int = MAX_PACK_BYTES) -> Pack | None:
    """Pack the checkout at `root` into `folder`, which keeps the last ten. None where `root` is no checkout's top.

    ConfigError where its files are over max_bytes (it names the largest ones), or git does not answer.
    """
    if not (root / ".git").exists():
        return None  # an installed package
    names = sorted(filter(None, _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")))
    files, left_out = _files(root, dict.fromkeys(names))
    _check_size(root, files, max_bytes)
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / "packing.zip", durable=False) as beside:
        with zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, path in files.items():
                entry = zipfile.ZipInfo(name, _LONG_AGO)
                entry.external_attr = (0o755 if path.stat().st_mode & 0o100 else 0o644) << 16
                archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)
        digest = hashlib.sha1(beside.read_bytes(), usedforsecurity=False).hexdigest()
    path = (folder / "packing.zip").replace(folder / f"_ray_pkg_{digest}.zip")
    path.touch()
    for old in sorted(folder.glob("_ray_pkg_*.zip"), key=lambda pack: pack.stat().st_mtime)[:-_KEPT_PACKS]:
        old.unlink(missing_ok=True)
    return Pack(path=path, commit=_commit(root), num_files=len(files), size_bytes=path.stat().st_size, left_out=tuple(left_out))


def _files(root: Path, names: dict[str, None]) -> tuple[dict[str, Path], list[str]]:
    """What is packed by its name there, links by what they lead to; and the links that lead out of the checkout."""
    files, left_out = {}, []
    for name in names:
        path = root / name
        if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
            left_out.append(name)
        elif path.is_file():  # not one that is deleted, nor a submodule
            files[name] = path
    return files, left_out


def _check_size(root: Path, files: dict[str, Path], max_bytes: int) -> None:
    sizes = {name: path.stat().st_size for name, path in files.items()}
    if sum(sizes.values()) <= max_bytes:
        return
    largest = sorted(sizes, key=sizes.__getitem__, reverse=True)[:3]
    named = ", ".join(f"{name} ({sizes[name] / 2**20:.1f} MiB)" for name in largest)
    raise ConfigError(
        f"{root}: its files are {sum(sizes.values()) / 2**20:.1f} MiB, a job's pack holds {max_bytes / 2**20:g} MiB; name what "
        f"the job does not need in .gitignore, the largest are {named}"
    )


def _commit(root: Path) -> str:
    """HEAD, with "+changes" where a file that is packed differs from it or is not in it; `unborn` before the first commit."""
    try:
        commit = _git(root, "rev-parse", "--verify", "--quiet", "HEAD").strip()
    except ConfigError:
        return "unborn"
    return f"{commit}+changes" if _git(root, "status", "--porcelain") else commit


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, timeout=60, check=True)
    except FileNotFoundError:
        raise ConfigError(f"{root}: is a git checkout, but there is no program 'git'; install it") from None
    except subprocess.SubprocessError as error:
        said = (getattr(error, "stderr", b"") or b"").decode(errors="replace").strip().splitlines()
        raise ConfigError(
            f"{root}: git {arguments[0]} fails ({said[-1] if said else type(error).__name__}); mend the checkout"
        ) from None
    return done.stdout.decode(errors="surrogateescape")

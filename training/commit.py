"""Which code this is: the git commit of the checkout, for runs and bundles to record."""

import os
import subprocess
from pathlib import Path

__all__ = ["current_commit"]


def current_commit() -> str:
    """`RAPT_COMMIT`, or the checkout's commit, with `-dirty` where files are changed; `unknown` outside a checkout."""
    if given := os.environ.get("RAPT_COMMIT"):
        return given
    root = Path(__file__).parent.parent
    try:
        if Path(_git(root, "rev-parse", "--show-toplevel")) != root.resolve():
            return "unknown"  # installed inside somebody else's checkout
        commit = _git(root, "rev-parse", "HEAD")
        return f"{commit}-dirty" if _git(root, "status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _git(root: Path, *arguments: str) -> str:
    result = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True)
    return result.stdout.strip()

"""torchvision from PyPI cannot be imported beside torch's CPU build, and the peers import it."""

from typing import Any

__all__ = ["importable_torchvision"]


def importable_torchvision() -> None:
    """Make `import torchvision` succeed, without its own operators: nothing that is measured calls one."""
    import torch

    try:
        import torchvision  # noqa: F401
    except (RuntimeError, ImportError):
        library: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(library)  # torch forgets the operator with the object


_kept: list[object] = []

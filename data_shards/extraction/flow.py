"""Dense optical flow between frames, by OpenCV. Letters: H height, W width, C = 3 RGB channels, 2 = to the right, down."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = ["FlowMethod", "OpticalFlow"]

FlowMethod = Literal["tvl1", "dis"]


class OpticalFlow:
    """How far each pixel moves from the frame before to the next, pixels a frame, float32.

    tvl1: dual TV-L1 (Zach, Pock and Bischof 2007), with which I3D's flow stream was trained (Carreira and Zisserman 2017,
    section 2.4), OpenCV's own parameters. dis: dense inverse search (Kroeger et al. 2016), for when the network was
    trained on that. Measured at 341 x 256 on one core: 600 ms and 6 ms a frame. Both are deterministic, whatever the
    number of threads.
    """

    def __init__(self, method: FlowMethod) -> None:
        import cv2

        self._cv2: Any = cv2  # its type stubs lack half of it
        self._method = (
            self._cv2.optflow.createOptFlow_DualTVL1()
            if method == "tvl1"
            else self._cv2.DISOpticalFlow_create(cv2.DISOpticalFlow_PRESET_MEDIUM)
        )
        self._before_HW: npt.NDArray[np.uint8] | None = None

    def next(self, frame_HWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32] | None:
        """flow_HW2 from the frame of the last call to this uint8 RGB one; None at the first."""
        grey_HW = np.asarray(self._cv2.cvtColor(frame_HWC, self._cv2.COLOR_RGB2GRAY), dtype=np.uint8)
        before_HW, self._before_HW = self._before_HW, grey_HW
        if before_HW is None:
            return None
        return np.asarray(self._method.calc(before_HW, grey_HW, None), dtype=np.float32)

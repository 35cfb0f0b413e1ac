"""Where a model of frames looked at a moment: Grad-CAM (Selvaraju et al. 2017) with captum, as numbers.

Letters: T frames, K levels, h rows and w columns of the last layer that keeps the picture's places.
"""

import copy
import warnings
from threading import Lock
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from data_shards.errors import ClipError
from data_shards.extraction.clip_sample import ClipSample
from data_shards.preprocess import PreprocessConfig, seen_region
from data_shards.reading.loader import ClipInputs, batch_of
from data_shards.sample import FRAMES, Sample
from serving.answer import Explanation, Region
from serving.predictor import Predictor
from training.models import EngagementModel

__all__ = ["grad_cam", "where_it_looked"]

# captum hangs hooks into the model that it explains, so that is a copy, of one explanation at a time: scoring goes on beside it
_lock = Lock()
_copies: "WeakKeyDictionary[EngagementModel, EngagementModel]" = WeakKeyDictionary()


def where_it_looked(predictor: Predictor, clip: ClipSample, at_s: float) -> Explanation:
    """Where the model looked in the frame nearest to at_s, for the level that it finds most probable.

    at_s: seconds from the clip's start. Of a clip with windows it is the window around at_s that is explained, whose frames are
    closer to each other than the whole clip's. ClipError where the model reads no frames, or at_s is not within the clip.
    """
    model, preprocess = predictor.model, predictor.recipe.preprocess
    if model.places is None or preprocess is None or model.inputs != (FRAMES,):
        raise ClipError(f"model {predictor.info.name} reads features and no frames, so there is no picture that it looked at")
    sample = _sample_around(clip, at_s)
    inputs = batch_of([sample], inputs=model.inputs).inputs.to(next(model.parameters()).device)
    with _lock:
        if model not in _copies:
            _copies[model] = copy.deepcopy(model)
        level, cam_Thw = grad_cam(_copies[model], inputs)
    times_T = np.asarray(sample.meta.frame_times_s)
    nearest = int(np.abs(times_T - at_s).argmin())
    return Explanation(
        at_s=float(times_T[nearest]),
        level=predictor.record.level_names[level],
        level_index=level,
        grid=tuple(tuple(round(value, 4) for value in row) for row in _to_unit(cam_Thw[nearest]).tolist()),
        region=_region(preprocess, clip.sample),
        model=predictor.info,
    )


def grad_cam(model: EngagementModel, inputs: ClipInputs) -> tuple[int, Tensor]:
    """(the most probable level, cam_Thw of one clip's frames, not negative): equations 1 and 2 of Selvaraju et al. 2017.

    The weights alpha of a frame's maps are the gradients of the level's logit, averaged over that frame's places. The model is in
    evaluation mode; captum's hooks are in it while this runs.
    """
    from captum.attr import LayerGradCam

    layer = model.places
    assert layer is not None
    with torch.no_grad():
        level = int(model(inputs).logits_BK[0].argmax())

    def logits_of(frames_BTCHW: Tensor) -> Tensor:
        logits_1K: Tensor = model(inputs._replace(frames_BTCHW=frames_BTCHW)).logits_BK
        return logits_1K

    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")  # that uint8 frames have no gradient: it is the layer's that are wanted
        cam_T1hw: Tensor = LayerGradCam(logits_of, layer).attribute(inputs.frames_BTCHW, target=level, relu_attributions=True)
    return level, cam_T1hw[:, 0].detach()


def _sample_around(clip: ClipSample, at_s: float) -> Sample:
    duration_s = clip.sample.meta.duration_s or 0.0
    if not 0 <= at_s <= duration_s:
        raise ClipError(f"second {at_s:g} is not within the clip, which has {duration_s:.1f} s; ask for one that is")
    for window in clip.windows:
        if at_s < window.end_s:
            return window.sample
    return clip.windows[-1].sample if clip.windows else clip.sample


def _to_unit(cam_hw: Tensor) -> Tensor:
    """[choice] Scaled by the frame's own largest value, as in the paper's figures; 0 everywhere stays 0."""
    largest = cam_hw.max()
    return cam_hw / largest if largest > 0 else cam_hw


def _region(preprocess: PreprocessConfig, sample: Sample) -> Region:
    width_px, height_px = sample.meta.source_width_px, sample.meta.source_height_px
    if width_px is None or height_px is None:
        return Region(left=0.0, top=0.0, width=1.0, height=1.0)
    left, top, width, height = (round(share, 6) for share in seen_region(preprocess, width_px, height_px))
    return Region(left=left, top=top, width=width, height=height)

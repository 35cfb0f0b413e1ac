"""What does an extractor cost beside the library that does its work? Each against the bare call on the same prepared input.

Weights are random, which changes no time. Frames are in memory, of noise but for faces: decoding is bench_decoders' business.
On a GPU, I3D in bfloat16 is set against the time that its arithmetic alone takes at the peak of --peak-tflops.

    python -m benchmarks.bench_extractors
    python -m benchmarks.bench_extractors --peak-tflops 989     # an H100's or H200's dense bfloat16
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.clips import benchmark_clips
from benchmarks.measure import compare, console, save
from data_shards.decode_stream import FrameStream, StreamInfo
from data_shards.extraction.acoustics import AcousticsSettings, acoustics_of, track_voice
from data_shards.extraction.contract import ClipMaterial, Extractor, ExtractorSettings, Reading
from data_shards.extraction.encoder import VideoEncoder, VideoEncoderSettings
from data_shards.extraction.extract import extract_features
from data_shards.extraction.hugging_face import ENCODERS_VARIABLE
from data_shards.extraction.i3d import I3d, I3dSettings
from data_shards.extraction.inception import InceptionI3d
from data_shards.extraction.openface import OpenFace, OpenFaceSettings
from data_shards.extraction.sound import SAMPLE_RATE_HZ, Sound
from data_shards.face_model import face_model_path

CLIP = ClipMaterial(name="noise")
WINDOWS = 4
WINDOW_FRAMES = 64
Frames = npt.NDArray[np.uint8]
Pair = tuple[str, tuple[str, Callable[[], int]], tuple[str, Callable[[], int]]]


def main() -> None:
    parser = argparse.ArgumentParser(description="extractors against the bare library")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=PAIRS, nargs="*", default=list(PAIRS))
    parser.add_argument("--peak-tflops", type=float, default=989.0, help="the GPU's peak in bfloat16")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rapt-bench-") as scratch, torch.inference_mode():
        os.environ[ENCODERS_VARIABLE] = scratch
        results = []
        for name in arguments.only:
            title, ours, peer = PAIRS[name](Path(scratch))
            results.append(compare(title, ours, peer, unit="frames", rounds=arguments.rounds))
        if torch.cuda.is_available():
            results.append(_against_its_arithmetic(arguments.peak_tflops, arguments.rounds))
        else:
            console.print("I3D against its arithmetic: skipped, there is no GPU")
    save("extractors", results)


def i3d(scratch: Path) -> Pair:
    """Scaled frames through the extractor, against the port's layers on windows that are already on the device."""
    frames = _noise(2 * WINDOW_FRAMES, 256, 256)
    extractor = I3d(I3dSettings(random_init=True))
    plain = InceptionI3d().eval().to(extractor.device)
    middle = torch.from_numpy(frames[:, 16:240, 16:240]).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    windows = [window.contiguous().to(extractor.device) for window in middle.split(WINDOW_FRAMES, dim=2)]

    def bare() -> int:
        for window in windows:
            plain(window).cpu()
        return len(frames)

    return "I3D, two windows of 64 frames of 224x224", ("extractor", _through(extractor, frames)), ("bare network", bare)


def i3d_windows(scratch: Path) -> Pair:
    """Windows at once against windows one by one."""
    frames = _noise(WINDOWS * WINDOW_FRAMES, 112, 112)
    small = {"random_init": True, "short_side_px": 112, "crop_px": 112}  # a quarter of the work a window
    at_once = _through(I3d(I3dSettings(**small, batch_windows=WINDOWS)), frames)
    one_by_one = _through(I3d(I3dSettings(**small)), frames)
    return f"I3D, {WINDOWS} windows of 64 frames of 112x112", (f"{WINDOWS} at once", at_once), ("one by one", one_by_one)


def videomae(scratch: Path) -> Pair:
    """A clip of 80 frames, 8 a second, through VideoMAE of small size, against the bare model on its 16 prepared pictures."""
    import json

    import transformers

    transformers.utils.logging.disable_progress_bar()
    model = transformers.VideoMAEModel(
        transformers.VideoMAEConfig(hidden_size=384, num_attention_heads=6, intermediate_size=1536)
    ).eval()
    model.save_pretrained(scratch / "videomae")
    said = {"size": {"shortest_edge": 224}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}}
    normal = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    (scratch / "videomae" / "preprocessor_config.json").write_text(json.dumps({**said, **normal}))
    extractor = VideoEncoder(VideoEncoderSettings(model="videomae"))
    frames = _noise(80, 480, 640)
    pixels = torch.stack([extractor.prepare(frame) for frame in frames[::5]])[None].to(extractor.device)
    model = model.to(extractor.device)

    def bare() -> int:
        model(pixel_values=pixels).last_hidden_state.mean(dim=1).cpu()
        return 16

    return "VideoMAE small, 16 of 80 frames of 640x480", ("extractor", _through(extractor, frames, used=16)), ("bare model", bare)


def openface(scratch: Path) -> Pair:
    """A clip's frames, ten a second, against MediaPipe's own tracking landmarker with blendshapes and pose on the same."""
    import mediapipe
    from mediapipe.tasks.python import BaseOptions, vision

    stream = FrameStream(_clip())
    frames = np.concatenate([portion.frames_NHWC for portion in stream.portions(stream.at_rate(10))])
    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=str(face_model_path(None))),
        running_mode=vision.RunningMode.VIDEO,
        output_face_blendshapes=True,
        output_facial_transformation_matrixes=True,
    )

    def bare() -> int:
        with vision.FaceLandmarker.create_from_options(options) as landmarker:
            for number, frame in enumerate(frames):
                landmarker.detect_for_video(mediapipe.Image(mediapipe.ImageFormat.SRGB, frame), 100 * number)
        return len(frames)

    title = f"openface by MediaPipe, {len(frames)} frames of {frames.shape[2]}x{frames.shape[1]}"
    return title, ("extractor", _through(OpenFace(OpenFaceSettings()), frames)), ("bare MediaPipe", bare)


def acoustics(scratch: Path) -> Pair:
    """Ten seconds of a voice-like sound, against Praat's two tracks of it."""
    import parselmouth

    seconds = np.arange(10 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    samples = (0.2 * np.sin(2 * np.pi * 40 * np.sin(2 * np.pi * seconds / 3) + 2 * np.pi * 150 * seconds)).astype(np.float32)
    settings = AcousticsSettings()

    def ours() -> int:
        acoustics_of(track_voice(Sound(samples), settings), None, settings)
        return 10

    def bare() -> int:
        praat = parselmouth.Sound(samples.astype(np.float64), SAMPLE_RATE_HZ)
        praat.to_pitch_ac(settings.step_s, settings.pitch_floor_hz, pitch_ceiling=settings.pitch_ceiling_hz)
        praat.to_intensity(settings.pitch_floor_hz, settings.step_s, True)
        return 10

    return "acoustics, ten seconds of sound (a frame: a second)", ("extractor", ours), ("bare parselmouth", bare)


def one_decode(scratch: Path) -> Pair:
    """A clip through three extractors of pictures in one pass, against one pass each. They do nothing but look."""
    clip = ClipMaterial(name="clip", video=_clip())

    def together() -> int:
        extract_features(clip, {str(fps): Looker(fps) for fps in (10.0, 15.0, 25.0)})
        return 1

    def in_turn() -> int:
        for fps in (10.0, 15.0, 25.0):
            extract_features(clip, {str(fps): Looker(fps)})
        return 1

    return "a clip's pictures for three extractors (a frame: a clip)", ("one decode", together), ("a decode each", in_turn)


class Looker(Extractor):
    """Looks at frames and keeps how many there were."""

    settings_type = ExtractorSettings

    def __init__(self, fps: float) -> None:
        super().__init__(ExtractorSettings())
        self.fps = fps

    def read(self, clip: ClipMaterial, stream: StreamInfo | None) -> Reading:
        return LookerReading()


class LookerReading(Reading):
    seen = 0

    def see(self, frames_NHWC: Frames, times_N: npt.NDArray[np.float64]) -> None:
        self.seen += len(frames_NHWC)

    def finish(self) -> npt.NDArray[np.float32]:
        return np.array([self.seen], dtype=np.float32)


# An extractor's line: a function that gives (title, (its name, its work), (the peer's name, the peer's work)); work returns
# how many frames it did.
PAIRS: dict[str, Callable[[Path], Pair]] = {
    "i3d": i3d,
    "i3d_windows": i3d_windows,
    "videomae": videomae,
    "openface": openface,
    "acoustics": acoustics,
    "one_decode": one_decode,
}


def _clip() -> Path:
    """A clip of ten seconds, real where there is one."""
    video = benchmark_clips()[1][1].video
    assert video is not None
    return Path(video.uri) / video.name


def _noise(num_frames: int, height_px: int, width_px: int) -> Frames:
    return np.random.default_rng(0).integers(0, 256, (num_frames, height_px, width_px, 3), dtype=np.uint8)


def _through(extractor: Extractor, frames: Frames, *, used: int | None = None) -> Callable[[], int]:
    """Work that reads a clip of these frames in portions of 16, as a pass over a file does; `used` of them count."""
    fps = extractor.fps or 1.0
    times = np.arange(len(frames)) / fps
    height_px, width_px = frames.shape[1:3]
    stream = StreamInfo(fps=fps, duration_s=len(frames) / fps, num_frames=len(frames), width_px=width_px, height_px=height_px)

    def work() -> int:
        reading = extractor.read(CLIP, stream)
        for begin in range(0, len(frames), 16):
            reading.see(frames[begin : begin + 16], times[begin : begin + 16])
        assert reading.finish() is not None
        return used or len(frames)

    return work


def _against_its_arithmetic(peak_tflops: float, rounds: int) -> dict[str, Any]:
    """I3D in bfloat16 on windows that are on the GPU: what share of the peak its floating-point operations reach."""
    from torch.utils.flop_counter import FlopCounterMode

    extractor = I3d(I3dSettings(random_init=True, precision="bfloat16"))
    windows = torch.rand(WINDOWS, 3, WINDOW_FRAMES, 224, 224, device=extractor.device, dtype=torch.bfloat16) * 2 - 1
    windows = windows.to(memory_format=torch.channels_last_3d)
    with FlopCounterMode(display=False) as counter:
        extractor.network(windows)
    seconds = []
    for _ in range(rounds + 2):
        torch.cuda.synchronize()
        begun_s = time.perf_counter()
        for _ in range(10):
            extractor.network(windows)
        torch.cuda.synchronize()
        seconds.append((time.perf_counter() - begun_s) / 10)
    median_s = statistics.median(seconds[2:])
    tflops = counter.get_total_flops() / median_s / 1e12
    share = f"{tflops:,.0f} TFLOP/s, {tflops / peak_tflops:.2f} of its peak of {peak_tflops:,.0f}"
    what = f"I3D in bfloat16, {WINDOWS} windows at once, {torch.cuda.get_device_name()}"
    console.print(f"{what}: {WINDOWS / median_s:,.1f} windows a second, {share}")
    return {"title": "I3D in bfloat16", "windows a second": WINDOWS / median_s, "tflops": tflops, "peak": peak_tflops}


if __name__ == "__main__":
    main()

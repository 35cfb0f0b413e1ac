"""The live view: from a window's last picture to its score on the page, in a real browser before the real endpoint.

Chromium's fake camera plays a shared DAiSEE clip at 640x480; the page cuts it into windows of its shortest and of its default
length and sends them to Ray Serve. Measured in the page, from outside it: from the call that stops a window's recorder until the
browser has drawn the level that came of it. Aim: under 1 s at p95 with the demo's model. Beside it the same windows' bytes,
scored by the predictor in one process afterwards. Browser and server share this machine's cores.

    python -m benchmarks.bench_live [--windows 60] [--lengths 5,10] [--frames 32] [--size 64]
"""

import argparse
import base64
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.bundles import random_bundle
from benchmarks.clips import SHARED_FACE_MODEL, benchmark_clips
from benchmarks.measure import console, machine, save
from data_shards.face_model import FACE_MODEL_VARIABLE
from data_shards.preprocess import PreprocessConfig
from serving.predictor import Predictor
from serving.replicas.endpoint_settings import EndpointSettings
from serving.service import start_service
from tests.serving.page_server import CHROMIUM, open_browser, write_fake_camera
from tests.serving.ray_serve import ray_for_endpoint
from training.recipes import recipe
from training.registry import RegisteredModel

PORT = 8934
CAMERA_SIZE = (640, 480)  # what the page asks of a camera
CAMERA_FRAMES = 150  # played round and round; each takes 460 kB on the disk
# Watches the page without a word of its own in it. A request always holds the window that was stopped last, for the page sends
# one at a time and lets an older one go. A level is there when the frame after its text has been drawn.
_WATCH = """(() => {
  const windows = (window.watched = []);
  let [stopped, recorded] = [null, 0];
  const Recorder = window.MediaRecorder;
  window.MediaRecorder = class extends Recorder {
    constructor(...given) {
      super(...given);
      this.addEventListener("stop", () => { stopped = this.stoppedMs; recorded += 1; });
    }
    stop() { this.stoppedMs = performance.now(); super.stop(); }
  };
  window.recordedWindows = () => recorded;
  const send = window.fetch;
  window.fetch = async (path, options) => {
    if (path !== "/v1/score") return send(path, options);
    const one = { blob: options.body.get("clip"), stoppedMs: stopped, sentMs: performance.now(), shownMs: null, said: "" };
    windows.push(one);
    const reply = await send(path, options);
    const said = await reply.clone().json();
    one.said = said.status || `${reply.status}: ${said.error}`;
    return reply;
  };
  addEventListener("DOMContentLoaded", () => {
    new MutationObserver(() => {
      const one = windows.at(-1);
      requestAnimationFrame(() => setTimeout(() => { one.shownMs ??= performance.now(); }));
    }).observe(document.getElementById("live-details"), { childList: true });
  });
})()"""
_BYTES_OF = """(at) => new Promise((give) => {
  const reader = new FileReader();
  reader.onload = () => give(reader.result.split(",")[1]);
  reader.readAsDataURL(window.watched[at].blob);
})"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=60, help="answered windows of each length")
    parser.add_argument("--lengths", default="5,10", help="seconds a window; the page offers 5 and 10")
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--size", type=int, default=64)
    wanted = parser.parse_args()
    if CHROMIUM is None:
        raise SystemExit("needs Chromium (Debian: apt install chromium); nothing was measured")
    if SHARED_FACE_MODEL.exists():  # `rapt serve` always has one
        os.environ.setdefault(FACE_MODEL_VARIABLE, str(SHARED_FACE_MODEL))
    _, listed = benchmark_clips()
    with tempfile.TemporaryDirectory(prefix="rapt-bench-") as name:
        folder = Path(name)
        bundle = random_bundle(folder / "bundle", recipe("demo"), PreprocessConfig(num_frames=wanted.frames, size_px=wanted.size))
        registered = RegisteredModel(name="benchmark", version="", folder=bundle)
        assert listed[0].video is not None
        with listed[0].video.local() as clip:
            film = write_fake_camera(clip, folder / "camera.y4m", num_frames=CAMERA_FRAMES, size=CAMERA_SIZE)
        with ray_for_endpoint(num_cpus=max(4, os.cpu_count() or 1)):
            url = start_service(registered, host="127.0.0.1", port=PORT, settings=EndpointSettings(model=str(bundle)))
            predictor = Predictor(registered)
            lengths_s = [int(length) for length in wanted.lengths.split(",")]
            results = [_measure(url, film, predictor, length_s, wanted.windows, folder) for length_s in lengths_s]
    save("live", results)


def _measure(url: str, film: Path, predictor: Predictor, length_s: int, num_windows: int, folder: Path) -> dict[str, object]:
    """Windows of one length, live until so many were answered with a score, or twice as many were sent."""
    load_before = os.getloadavg()[0]
    windows, clips, recorded = _live(url, film, length_s, num_windows)
    load_after = os.getloadavg()[0]
    shown = [one for one in windows if one["shownMs"] is not None]
    times_s = {
        "stopped to shown, the page": [(one["shownMs"] - one["stoppedMs"]) / 1000 for one in shown],
        "of that, until it is sent": [(one["sentMs"] - one["stoppedMs"]) / 1000 for one in shown],
        "the predictor, same windows": _scored_alone(predictor, clips, folder),
    }
    quantiles_s = {what: [float(np.percentile(each, share)) for share in (50, 95)] for what, each in times_s.items()}
    others = sorted({one["said"] for one in windows if one["shownMs"] is None})
    title = f"live windows of {length_s} s at {CAMERA_SIZE[0]}x{CAMERA_SIZE[1]}, {len(shown)} shown"
    title += ", faces looked for" if predictor.info.looks_for_faces else ""
    load = f"load {load_before:.1f} before, {load_after:.1f} after"
    table = Table(title=title, caption=f"browser and server share {machine()}; {load}")
    for heading in ("", "p50 s", "p95 s"):
        table.add_column(heading, justify="right" if heading else "left")
    for what, (middle_s, late_s) in quantiles_s.items():
        table.add_row(what, f"{middle_s:.2f}", f"{late_s:.2f}", style="bold" if "page" in what else None)
    ours, alone = quantiles_s["stopped to shown, the page"], quantiles_s["the predictor, same windows"]
    table.add_row("page / predictor", *(f"{here / there:.1f}" for here, there in zip(ours, alone, strict=True)))
    table.add_row("skipped, for one was still under way", str(recorded - len(windows)), "")
    table.add_row("refused", str(len(windows) - len(shown)), "")
    console.print(table)
    for reason in others:
        console.print(f"refused: {reason}")
    return {
        "title": title, "load": [load_before, load_after], "quantiles_s": quantiles_s, "times_s": times_s,
        "recorded": recorded, "sent": len(windows), "shown": len(shown), "refusals": others,
    }  # fmt: skip


def _live(url: str, film: Path, length_s: int, num_windows: int) -> tuple[list[dict[str, Any]], list[bytes], int]:
    """(the windows that were sent, their bytes, how many were recorded). One more is sent first, for the endpoint to warm up."""
    camera = ("--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={film}", "--use-fake-ui-for-media-stream")
    with open_browser(*camera) as browser:
        page = browser.new_page()
        page.set_default_timeout(60_000)
        page.add_init_script(_WATCH)
        page.goto(f"{url}/#live")
        page.wait_for_selector("[data-ready]", state="attached")
        page.select_option("#live-window", str(length_s))
        page.click("#live-start")
        enough = "([shown, sent]) => watched.filter((one) => one.shownMs).length > shown || watched.length > sent"
        most_s = 2 * length_s * (num_windows + 2) + 60
        page.wait_for_function(enough, arg=[num_windows, 2 * num_windows], timeout=1000 * most_s, polling=500)
        recorded = page.evaluate("recordedWindows()")
        page.click("#live-stop")
        plain = "watched.map(({ blob, ...rest }, place) => ({ place, ...rest }))"  # the last may still be under way
        windows = [one for one in page.evaluate(plain) if one["shownMs"] or one["said"][:1].isdigit()]
        clips = [base64.b64decode(page.evaluate(_BYTES_OF, one["place"])) for one in windows]
    return windows[1:], clips[1:], recorded - 1


def _scored_alone(predictor: Predictor, clips: list[bytes], folder: Path) -> list[float]:
    path = folder / "window.webm"
    times_s = []
    for clip in [clips[0], *clips]:
        path.write_bytes(clip)
        begun_s = time.perf_counter()
        predictor.score_file(path)
        times_s.append(time.perf_counter() - begun_s)
    return times_s[1:]


if __name__ == "__main__":
    main()

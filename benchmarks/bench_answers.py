"""What an answer costs beside the score: looking for faces, a timeline, Grad-CAM; and what scoring clips together gains.

On a DAiSEE clip of the shared data, decoded as the demo does (32 frames of 64 pixels), on one thread, with the demo's model
untrained: its speed does not depend on what it has learnt. RAPT_FACE_LANDMARKER names the face model.

    python -m benchmarks.bench_answers
"""

import tempfile
from pathlib import Path

import torch

from benchmarks.bundles import random_bundle
from benchmarks.measure import compare, save
from cluster.demo import DEMO_PREPROCESS
from cluster.home import have_face_model
from data_shards.extraction.clip_sample import ClipRecipe, clip_sample
from data_shards.extraction.look import look_at_sample, prepare_look
from data_shards.preprocess import preprocess_file
from serving.gradcam import where_it_looked
from serving.predictor import Predictor
from training.recipes import recipe
from training.registry import RegisteredModel

VIDEOS = Path(__file__).parent.parent.parent / "shared" / "data" / "videos"
TOGETHER = 8


def main() -> None:
    torch.set_num_threads(1)
    have_face_model(print)
    if not prepare_look() or not VIDEOS.is_dir():
        raise SystemExit("needs the clips of ../shared/data and a face model; nothing was measured")
    with tempfile.TemporaryDirectory(prefix="rapt-bench-") as folder:
        bundle = random_bundle(Path(folder) / "bundle", recipe("demo"), DEMO_PREPROCESS)
        predictor = Predictor(RegisteredModel(name="untrained", version="", folder=bundle))
    short, longer = VIDEOS / "5100462069.avi", VIDEOS / "WolfgangLanger_Pexels.mp4"
    clip = clip_sample(short, predictor.recipe)
    plain = ClipRecipe(DEMO_PREPROCESS, window_s=0)

    def one_by_one() -> int:
        return len([predictor.score(one) for one in [clip] * TOGETHER])

    save(
        "answers",
        [
            compare(
                "a clip of 10 s",
                ("decoded and looked at", lambda: _one(clip_sample(short, plain))),
                ("decoded", lambda: _one(preprocess_file(short, DEMO_PREPROCESS))),
                unit="clips",
            ),
            compare(
                "a clip of 19.7 s",
                ("with its timeline", lambda: _one(predictor.score(clip_sample(longer, predictor.recipe)))),
                ("without", lambda: _one(predictor.score(clip_sample(longer, plain)))),
                unit="clips",
            ),
            compare(
                f"{TOGETHER} decoded clips",
                ("together", lambda: len(predictor.score_many([clip] * TOGETHER))),
                ("one by one", one_by_one),
                unit="clips",
            ),
            compare(
                "a decoded clip",
                ("faces looked for", lambda: _one(look_at_sample(clip.sample))),
                ("explained by Grad-CAM", lambda: _one(where_it_looked(predictor, clip, 5.0))),
                unit="clips",
            ),
        ],
    )


def _one(done: object) -> int:
    return 1


if __name__ == "__main__":
    main()

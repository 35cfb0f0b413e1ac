"""EngageWild's rows: mean squared error on the 48 official validation videos, labels in {0, .33, .66, 1}.

One function a row, each a small grid of candidates. The candidate is chosen by cross-validation inside the 146 training
videos, fitted on all of them, and only then predicts the validation videos, whose labels nothing but the last step reads.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from training.config import with_settings
from training.recipes import recipe
from training.reproduction.cross_validation import Fit, Ints, choose, look_alikes
from training.reproduction.memory_fit import recipe_fit
from training.reproduction.published import ENGAGEWILD, Published
from training.reproduction.regressors import Descriptor, DescriptorName, ridge, support_vectors, training_mean
from training.reproduction.split_arrays import Features, SplitArrays
from training.reproduction.table import SeedResult

__all__ = ["ROWS", "RowPlan", "people_apart", "plan_result", "row_result"]

_FACES, _SAME_FACE = "vggface2_15", 0.9  # cosines of two videos' mean faces: half are below 0.53, a nearest neighbour's is 0.98
_SEQUENCES = ("openface_15", "openface_21", "vggface2_15", "vggface2_21")


@dataclass(frozen=True)
class RowPlan:
    """A row before it is run. published: what it is compared with; candidates: settings in words to what they fit."""

    what: str
    published: Published
    candidates: Mapping[str, Fit]


def mean() -> RowPlan:
    """The training mean."""
    return RowPlan("training mean", ENGAGEWILD["mean"], {"the training mean": training_mean()})


def ridge_mean() -> RowPlan:
    """Ridge on the mean over segments."""
    return RowPlan("ridge on the mean over segments", ENGAGEWILD["quick_ridge"], _ridges("mean", (30, 100, 300, 1000)))


def ridge_segments() -> RowPlan:
    """Ridge on all segments side by side."""
    alphas = (300, 1000, 3000, 10_000)
    return RowPlan("ridge on all segments", ENGAGEWILD["quick_ridge"], _ridges("segments", alphas))


def ridge_stat() -> RowPlan:
    """The pipeline of Savchenko et al. 2022: ridge on the standard deviation over the video, here of segments."""
    return RowPlan("ridge on STAT", ENGAGEWILD["efficientnet_ridge"], _ridges("stat", (100, 300, 1000, 3000)))


def svr() -> RowPlan:
    """Support vectors with radial basis functions."""
    candidates = {
        f"{_words(descriptor)}, C {cost:g}, epsilon 0.1": support_vectors(descriptor, cost=cost, epsilon=0.1)
        for kind in ("mean", "segments")
        for descriptor in _descriptors(kind)
        for cost in (0.1, 0.3, 1.0)
    }
    return RowPlan("support vectors", ENGAGEWILD["quick_svr"], candidates)


def tcn_ce() -> RowPlan:
    """The TCN with cross entropy: the expected value under its softmax."""
    return RowPlan("TCN, cross entropy", ENGAGEWILD["dilated_tcn"], _networks("loss.name=cross_entropy", "model.head=linear"))


def tcn_mse() -> RowPlan:
    """The TCN with the mean squared error of its score."""
    return RowPlan("TCN, MSE", ENGAGEWILD["dilated_tcn"], _networks("loss.name=mse", "model.head=linear"))


def tcn_ordinal() -> RowPlan:
    """The TCN with a cumulative link model: the likelihood of ordered levels."""
    return RowPlan("TCN, ordinal", ENGAGEWILD["dilated_tcn"], _networks("loss.name=cross_entropy", "model.head=ordinal"))


def tcn_mocorank() -> RowPlan:
    """The recipe as it is, and its neighbours: the TCN with MocoRank, the cosine head read off by the paper's thresholds."""
    return RowPlan("TCN, MocoRank", ENGAGEWILD["dilated_tcn"], _networks())


ROWS: dict[str, Callable[[], RowPlan]] = {
    "mean": mean,
    "ridge_mean": ridge_mean,
    "ridge_segments": ridge_segments,
    "ridge_stat": ridge_stat,
    "svr": svr,
    "tcn_ce": tcn_ce,
    "tcn_mse": tcn_mse,
    "tcn_ordinal": tcn_ordinal,
    "tcn_mocorank": tcn_mocorank,
}


def people_apart(train: SplitArrays) -> Ints:
    """groups_N for the folds: videos of like faces together where VGGFace2 values are there, else each on its own."""
    if _FACES not in train.features:
        return np.arange(len(train), dtype=np.int64)
    return look_alikes(train.features[_FACES], cosine=_SAME_FACE)


def row_result(name_and_seed: tuple[str, int], *, train: SplitArrays, held_out: Features) -> SeedResult:
    """A seed of a row of ROWS."""
    name, seed = name_and_seed
    return plan_result(ROWS[name](), seed, train=train, held_out=held_out)


def plan_result(plan: RowPlan, seed: int, *, train: SplitArrays, held_out: Features) -> SeedResult:
    """Choose inside `train`, fit on all of it, predict the clips of `held_out`."""
    choice = choose(plan.candidates, train, people_apart(train), seed=seed)
    predicted_N = plan.candidates[choice.name](train, seed)(held_out)
    return SeedResult(
        seed=seed,
        chosen=choice.name,
        cv_mse=choice.cv_mse,
        out_of_fold=tuple(choice.out_of_fold_N.tolist()),
        predicted=tuple(predicted_N.tolist()),
    )


def _networks(*settings: str) -> dict[str, Fit]:
    """Variants of the recipe `engagewild`, named by what `rapt train engagewild --set` would be told."""
    grid = [
        (*settings, f"model.openface={feature}", f"model.compress={compressed}", f"loop.epochs={epochs}")
        for feature in ("openface_15", "openface_21")
        for compressed in ("false", "true")
        for epochs in (10, 20)
    ]
    return {" ".join(words): recipe_fit(with_settings(recipe("engagewild"), words)) for words in grid}


def _ridges(kind: DescriptorName, alphas: Sequence[float]) -> dict[str, Fit]:
    return {
        f"{_words(descriptor)}, alpha {alpha:g}": ridge(descriptor, alpha=alpha)
        for descriptor in _descriptors(kind)
        for alpha in alphas
    }


def _descriptors(kind: DescriptorName) -> list[Descriptor]:
    return [Descriptor(feature, kind, compressed) for feature in _SEQUENCES for compressed in (False, True)]


def _words(descriptor: Descriptor) -> str:
    return f"{'log ' if descriptor.compressed else ''}{descriptor.feature} {descriptor.kind}"

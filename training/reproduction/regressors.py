"""scikit-learn's regressors on descriptors of a clip's sequence of features. The one module that imports scikit-learn and
threadpoolctl, which comes with it.

Letters: N clips, S segments, F values a segment, D values of a descriptor.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple

import numpy as np

from data_shards.features import Floats
from training.reproduction.cross_validation import Fit, Predict
from training.reproduction.split_arrays import Features, SplitArrays, Values

__all__ = ["DESCRIPTORS", "Descriptor", "DescriptorName", "one_thread", "ridge", "support_vectors", "training_mean"]

DescriptorName = Literal["mean", "stat", "segments"]

# "stat" is the descriptor of Savchenko et al. 2022 (papers' part 3): the standard deviation over the video, here over its
# half-overlapping segments, for the arrays hold no frames
DESCRIPTORS: dict[DescriptorName, Callable[[Values], Values]] = {
    "mean": lambda values_NSF: values_NSF.mean(axis=1),
    "stat": lambda values_NSF: values_NSF.std(axis=1),
    "segments": lambda values_NSF: values_NSF.reshape(len(values_NSF), -1),
}


class Descriptor(NamedTuple):
    """Which array, what of it, and whether its values are compressed to sign(x) log(1 + |x|) first."""

    feature: str
    kind: DescriptorName
    compressed: bool

    def of(self, features: Features) -> Values:
        """descriptor_ND of every clip."""
        values_NSF = _compressed(features[self.feature]) if self.compressed else features[self.feature]
        return DESCRIPTORS[self.kind](values_NSF.astype(np.float64))


def one_thread() -> AbstractContextManager[Any]:
    """Linear algebra on one thread while this holds: with more, a ridge of 146 clips takes ten times as long."""
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[Any] = threadpool_limits(1)
    return limits


def training_mean() -> Fit:
    """Every clip gets the mean of the training clips: what any regressor has to beat."""

    def fit(train: SplitArrays, seed: int) -> Predict:
        mean = train.values.mean()
        return lambda features: np.full(len(next(iter(features.values()))), mean)

    return fit


def ridge(descriptor: Descriptor, *, alpha: float) -> Fit:
    """Ridge regression (Hoerl and Kennard 1970) of the value on the standardised descriptor, clipped to [0, 1].

    alpha weighs the squared norm of the coefficients against the sum of squared errors; the intercept is free.
    """

    def regressor() -> Any:
        from sklearn.linear_model import Ridge

        return Ridge(alpha=alpha)

    return _regression(descriptor, regressor)


def support_vectors(descriptor: Descriptor, *, cost: float, epsilon: float) -> Fit:
    """Support vector regression with radial basis functions on the standardised descriptor, clipped to [0, 1]."""

    def regressor() -> Any:
        from sklearn.svm import SVR

        return SVR(C=cost, epsilon=epsilon)

    return _regression(descriptor, regressor)


def _regression(descriptor: Descriptor, regressor: Callable[[], Any]) -> Fit:
    """Standardise by the training clips' mean and deviation, regress, clip."""

    def fit(train: SplitArrays, seed: int) -> Predict:
        train_ND = descriptor.of(train.features)
        mean_D, deviation_D = train_ND.mean(axis=0), train_ND.std(axis=0)
        deviation_D[deviation_D == 0] = 1.0
        fitted = regressor().fit((train_ND - mean_D) / deviation_D, train.values)

        def predict(features: Features) -> Values:
            predicted_N: Values = fitted.predict((descriptor.of(features) - mean_D) / deviation_D)
            return predicted_N.clip(0.0, 1.0)

        return predict

    return fit


def _compressed(values_NSF: Floats) -> Floats:
    compressed: Floats = np.sign(values_NSF) * np.log1p(np.abs(values_NSF))
    return compressed

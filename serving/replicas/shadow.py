"""A challenger in shadow: it scores a share of the clips that were answered, beside the answer and never in its way.

What is compared stays numbers: no clip, name or key is kept or sent.
Letters: N clips.
"""

import asyncio
import logging
import random
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from data_shards.errors import RaptError
from data_shards.extraction.clip_sample import ClipRecipe, ClipSample
from serving.answer import Answer, AnyAnswer
from serving.scoring import ServedModel
from training.tracking.client import experiment_id, first_line, mlflow_client

__all__ = ["Comparison", "Shadow", "ShadowLog", "rank_correlation"]

_LOG = logging.getLogger("rapt.serving")
_LAST_CLIPS = 10_000
_FEWEST_RANKED = 3

Pair = tuple[str, str]  # champion and challenger, NAME/VERSION each


class _Scored(NamedTuple):
    """A clip that both scored: scores in [-1, 1], milliseconds of the model alone."""

    champion: float
    challenger: float
    same_level: bool
    champion_ms: float
    challenger_ms: float


class Comparison:
    """Two versions on the same clips, the last 10,000 that both scored. Safe to read from another thread."""

    def __init__(self) -> None:
        self._scored: deque[_Scored] = deque(maxlen=_LAST_CLIPS)
        self.num_scored = self.num_unscored = self.num_failed = self.num_dropped = 0

    def add(self, champion: Answer, challenger: AnyAnswer) -> None:
        """Count a clip; where the challenger would not give a score, as such."""
        if not isinstance(challenger, Answer):
            self.num_unscored += 1
            return
        same = champion.level == challenger.level
        times_ms = champion.timings.model_ms, challenger.timings.model_ms
        self._scored.append(_Scored(champion.score, challenger.score, same, *times_ms))
        self.num_scored += 1

    def metrics(self) -> dict[str, float]:
        """Counts; of clips that both scored also the share with the same level, the mean absolute difference of scores,
        Spearman's rank correlation (from three clips on, where neither is constant) and both models' p50 and p95 in ms."""
        counts = {
            "shadow_clips": float(self.num_scored),
            "shadow_unscored": float(self.num_unscored),
            "shadow_failed": float(self.num_failed),
            "shadow_dropped": float(self.num_dropped),
        }
        if not self._scored:
            return counts
        columns = np.array(list(self._scored), dtype=np.float64).T
        champion_N, challenger_N, same_N = columns[:3]
        figures = {
            "shadow_level_agreement": float(same_N.mean()),
            "shadow_score_mae": float(np.abs(champion_N - challenger_N).mean()),
        }
        for who, times_N in (("champion", columns[3]), ("challenger", columns[4])):
            figures[f"shadow_{who}_p50_ms"] = float(np.percentile(times_N, 50))
            figures[f"shadow_{who}_p95_ms"] = float(np.percentile(times_N, 95))
        correlation = rank_correlation(champion_N, challenger_N)
        return counts | figures | ({} if correlation is None else {"shadow_rank_correlation": correlation})

    def sentence(self, pair: Pair) -> str:
        """What a person is told when the endpoint stops."""
        found = self.metrics()
        if not self.num_scored:
            return f"{pair[1]} in shadow of {pair[0]}: no clip was scored by both"
        ranks = f"{found['shadow_rank_correlation']:.2f}" if "shadow_rank_correlation" in found else "unknown"
        return (
            f"{pair[1]} in shadow of {pair[0]}: {self.num_scored} clips, levels agree on {found['shadow_level_agreement']:.0%}, "
            f"scores differ by {found['shadow_score_mae']:.3f} on average, rank correlation {ranks}, "
            f"p50 {found['shadow_challenger_p50_ms']:.0f} ms against {found['shadow_champion_p50_ms']:.0f} ms; "
            f"{self.num_dropped} dropped, {self.num_failed} failed"
        )


def rank_correlation(a_N: npt.NDArray[np.float64], b_N: npt.NDArray[np.float64]) -> float | None:
    """Spearman's rho, ties at their mean rank. None for fewer than three clips, or where one side is constant."""
    if len(a_N) < _FEWEST_RANKED:
        return None
    ranks_a_N, ranks_b_N = _mean_ranks(a_N), _mean_ranks(b_N)
    if not ranks_a_N.std() or not ranks_b_N.std():
        return None
    return float(np.corrcoef(ranks_a_N, ranks_b_N)[0, 1])


def _mean_ranks(values_N: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    _, place_N, counts = np.unique(values_N, return_inverse=True, return_counts=True)
    last_ranks = np.cumsum(counts)
    ranks: npt.NDArray[np.float64] = (last_ranks - (counts - 1) / 2)[place_N]
    return ranks


class Shadow:
    """Chooses clips, has the challenger score one at a time, and keeps a Comparison for each pair of versions.

    ask: the challenger's answer to a sample. share: of the scored clips, in [0, 1]. Within one event loop.
    """

    def __init__(self, ask: Callable[[ClipSample], Awaitable[AnyAnswer]], *, share: float) -> None:
        self._ask, self._share = ask, share
        self._draws = random.Random()  # noqa: S311  # which clip is compared is no secret
        self._under_way: asyncio.Task[None] | None = None
        self.challenger: ServedModel | None = None
        self.problem = ""  # of the challenger's watch
        self._mismatch = ""
        self.comparisons: dict[Pair, Comparison] = {}

    @property
    def warning(self) -> str:
        """What an operator should mend, "" for nothing."""
        return "; ".join(filter(None, (self.problem, self._mismatch)))

    def offer(self, clip: ClipSample, answer: AnyAnswer, recipe: ClipRecipe) -> None:
        """Have a clip that was answered compared, perhaps. One that comes while another is compared is dropped."""
        challenger = self.challenger
        if challenger is None or not isinstance(answer, Answer) or self._draws.random() >= self._share:
            return
        if recipe != challenger.recipe:
            self._mismatch = (
                f"{_name(challenger.info)} reads clips another way than {_name(answer.model)}: not compared in shadow"
            )
            return
        self._mismatch = ""
        comparison = self.comparisons.setdefault((_name(answer.model), _name(challenger.info)), Comparison())
        if self._under_way is not None:
            comparison.num_dropped += 1
            return
        self._under_way = asyncio.create_task(self._compare(clip, answer, comparison))

    async def _compare(self, clip: ClipSample, answer: Answer, comparison: Comparison) -> None:
        try:
            comparison.add(answer, await self._ask(clip))
        except RaptError:
            comparison.num_failed += 1
        finally:
            self._under_way = None


def _name(info: Any) -> str:
    return f"{info.name}/{info.version}" if info.version else str(info.name)


class ShadowLog:
    """A thread that sends what was compared to MLflow, one run for each pair of versions, every `every_s` seconds."""

    def __init__(self, shadow: Shadow, uri: str, *, every_s: float) -> None:
        self._shadow, self._uri, self._every_s = shadow, uri, every_s
        self._runs: dict[Pair, str] = {}
        self._sent: dict[Pair, dict[str, float]] = {}
        self._told = ""
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="shadow-log", daemon=True)
        self._thread.start()

    def close(self) -> str:
        """Send the rest, end the runs, and say what came out; "" where nothing was compared."""
        self._stopped.set()
        self._thread.join(timeout=30)
        return "\n".join(comparison.sentence(pair) for pair, comparison in self._shadow.comparisons.items())

    def _work(self) -> None:
        step = 0
        is_last = False
        while not is_last:
            is_last = self._stopped.wait(self._every_s)
            step += 1
            try:
                self._send(step, end=is_last)
                self._told = ""
            except Exception as error:  # mlflow and its drivers raise errors of many kinds; the figures stay, and go next time
                sentence = f"the shadow's figures cannot be sent to MLflow ({first_line(error)})"
                if sentence != self._told:
                    _LOG.warning("%s", sentence)
                self._told = sentence

    def _send(self, step: int, *, end: bool) -> None:
        found = {pair: comparison.metrics() for pair, comparison in list(self._shadow.comparisons.items())}
        news = {pair: figures for pair, figures in found.items() if self._sent.get(pair) != figures}
        if not news and not (end and self._runs):
            return
        client = mlflow_client(self._uri)
        for pair, figures in news.items():
            if pair not in self._runs:
                tags = {"recipe": "shadow", "champion": pair[0], "challenger": pair[1]}
                name = f"shadow-{'-'.join(pair)}".replace("/", ".")
                made = client.create_run(experiment_id(client, self._uri), run_name=name, tags=tags)
                self._runs[pair] = str(made.info.run_id)
            for figure, value in figures.items():
                client.log_metric(self._runs[pair], figure, value, step=step)
            self._sent[pair] = figures
        for run in self._runs.values() if end else ():
            client.set_terminated(run, "FINISHED")

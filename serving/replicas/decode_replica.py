"""What runs in a decoder: clips to what the model reads. A plain class, which `deployments` puts on Ray Serve.

It loads no model and imports none, which halves what a decoder takes to start.
"""

import json
from collections import OrderedDict
from dataclasses import asdict

from data_shards.extraction.clip_sample import ClipRecipe, ClipSample
from serving.confined.decode_child import DecodeChild
from serving.scoring import Deadline, DecodeTurn

__all__ = ["DecodeReplica"]

_MAX_RECIPES = 2
_PREPARE_S = 600.0


class DecodeReplica:
    """Decodes one clip at a time, in a child process for each of the last recipes."""

    def __init__(self) -> None:
        self._children: OrderedDict[str, DecodeChild] = OrderedDict()
        self._turn = DecodeTurn()

    async def prepare(self, recipe: ClipRecipe) -> str:
        """Start the recipe's child, so that no clip waits for imports and weights; a sentence on what it is held in. ModelError
        where one is missing."""

        def start() -> str:
            child = self._child_of(recipe)
            child.start()
            return child.confinement.sentence() if child.confinement else ""

        return await self._turn.take(start, Deadline.within(_PREPARE_S), kill=self._kill)

    async def decode(self, clip: bytes, transcript: bytes | None, recipe: ClipRecipe, deadline: Deadline) -> ClipSample:
        """The clip's sample."""

        def decode() -> ClipSample:
            return self._child_of(recipe).sample_of_upload(clip, transcript)

        return await self._turn.take(decode, deadline, kill=self._kill)

    def close(self) -> None:
        """End the children."""
        for child in self._children.values():
            child.close()

    def _kill(self) -> None:
        """End what the child under way is at: it was asked for last."""
        if self._children:
            next(reversed(self._children.values())).kill()

    def _child_of(self, recipe: ClipRecipe) -> DecodeChild:
        key = json.dumps(asdict(recipe), sort_keys=True, default=repr)
        child = self._children.pop(key, None) or DecodeChild(recipe)
        self._children[key] = child
        while len(self._children) > _MAX_RECIPES:
            _, old = self._children.popitem(last=False)
            old.close()
        return child

"""What runs in a decoder: clips to what the model reads. A plain class, which `deployments` puts on Ray Serve.

It loads no model and imports none, which halves what a decoder takes to start.
"""

import asyncio
import json
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

from data_shards.extraction.clip_sample import ClipRecipe, ClipSample
from serving.confined.decode_child import DecodeChild
from serving.scoring import Deadline, decode_upload

__all__ = ["DecodeReplica"]

_MAX_RECIPES = 2
_LET_FINISH_S = 1.0


class DecodeReplica:
    """Decodes one clip at a time, in a child process for each of the last recipes."""

    def __init__(self) -> None:
        self._children: OrderedDict[str, DecodeChild] = OrderedDict()
        self._turn = asyncio.Lock()
        # one thread, which lives as long as the replica: the system ends a child together with the thread that started it
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="decode")

    async def prepare(self, recipe: ClipRecipe) -> str:
        """Start the recipe's child, so that no clip waits for imports and weights; a sentence on what it is held in. ModelError
        where one is missing."""
        async with self._turn:
            child = self._child_of(recipe)
            await asyncio.get_running_loop().run_in_executor(self._thread, child.start)
            return child.confinement.sentence() if child.confinement else ""

    async def decode(self, clip: bytes, transcript: bytes | None, recipe: ClipRecipe, deadline: Deadline) -> ClipSample:
        """The clip's sample. Where it is cancelled, the child is killed unless it is done within a second: a new child
        takes longer to start than most clips take to decode [choice]."""
        async with self._turn:
            _ = deadline.left_s
            child = self._child_of(recipe)
            work = asyncio.get_running_loop().run_in_executor(self._thread, decode_upload, child, clip, transcript)
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                await asyncio.wait({work}, timeout=_LET_FINISH_S)
                if not work.done():
                    child.kill()
                    await asyncio.wait({work}, timeout=_LET_FINISH_S)
                if work.done():
                    work.exception()  # nobody waits for it any more
                raise

    def close(self) -> None:
        """End the children."""
        for child in self._children.values():
            child.close()

    def _child_of(self, recipe: ClipRecipe) -> DecodeChild:
        key = json.dumps(asdict(recipe), sort_keys=True, default=repr)
        child = self._children.pop(key, None) or DecodeChild(recipe)
        self._children[key] = child
        while len(self._children) > _MAX_RECIPES:
            _, old = self._children.popitem(last=False)
            old.close()
        return child

"""The alias watch on a real registry: what is taken when, what is told, and what outlives it."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_shards.errors import ModelError
from serving.replicas.alias_watch import AliasWatch
from tests.serving.versions import holds, register_version
from training.registry import RegisteredModel, resolve

_HEADER_BYTES = 100  # of an SQLite file


class Taken:
    """What the watch handed over and told; a version in `refused` raises."""

    def __init__(self) -> None:
        self.versions: list[str] = []
        self.told: list[str] = []
        self.refused: set[str] = set()
        self.changed = threading.Condition()

    def take(self, registered: RegisteredModel) -> None:
        assert (registered.folder / "run.json").exists()
        if registered.version in self.refused:
            raise ModelError("its weights are damaged")
        self._note(self.versions, registered.version)

    def tell(self, sentence: str) -> None:
        self._note(self.told, sentence)

    def _note(self, where: list[str], what: str) -> None:
        with self.changed:
            where.append(what)
            self.changed.notify_all()

    def until(self, *, versions: list[str] | None = None, told: str | None = None) -> None:
        def is_so() -> bool:
            last = self.told[-1] if self.told else ""
            is_told = told is None or (told in last if told else not last)
            return is_told and (versions is None or self.versions == versions)

        with self.changed:
            assert self.changed.wait_for(is_so, 60), (self.versions, self.told)


@pytest.fixture(scope="module")
def registry(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    folder = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{folder}/mlflow.db"
    one, two = (register_version(uri, tiny_bundle, folder, f"run-{seed}", seed=seed) for seed in (1, 2))
    return uri, one, two


@pytest.fixture
def taken() -> Taken:
    return Taken()


@pytest.fixture
def watch(registry: tuple[str, str, str], taken: Taken) -> Iterator[AliasWatch]:
    uri, one, _ = registry
    holds(uri, "champion", one)
    model = "models:/engagement@champion"
    made = AliasWatch(model, uri, taken.take, every_s=0.05, tell=taken.tell, first=resolve(model, uri))
    made.start()
    yield made
    made.stop()


def test_each_new_holder_is_taken_once_and_a_stopped_watch_takes_none(
    registry: tuple[str, str, str], watch: AliasWatch, taken: Taken
) -> None:
    uri, one, two = registry
    taken.until(versions=[one])
    holds(uri, "champion", two)
    taken.until(versions=[one, two])
    holds(uri, "champion", one)
    taken.until(versions=[one, two, one])
    watch.stop()
    holds(uri, "champion", two)
    time.sleep(0.3)
    assert taken.versions == [one, two, one]
    assert not any(taken.told)


def test_a_version_that_is_refused_is_told_once_and_tried_again(
    registry: tuple[str, str, str], watch: AliasWatch, taken: Taken
) -> None:
    uri, one, two = registry
    taken.until(versions=[one])
    taken.refused = {two}
    holds(uri, "champion", two)
    taken.until(told=f"models:/engagement/{two} cannot answer: its weights are damaged; models:/engagement/{one} goes on")
    time.sleep(0.4)  # tried again and again, told once
    assert len([sentence for sentence in taken.told if sentence]) == 1
    taken.refused = set()
    taken.until(versions=[one, two], told="")


def overwrite(path: Path, begin: bytes) -> None:
    with path.open("r+b") as file:
        file.write(begin)


def test_the_old_version_goes_on_while_the_registry_is_gone(
    registry: tuple[str, str, str], watch: AliasWatch, taken: Taken
) -> None:
    uri, one, two = registry
    taken.until(versions=[one])
    database = Path(uri.removeprefix("sqlite:///"))
    header = database.read_bytes()[:_HEADER_BYTES]
    # in place: a connection that is open sees it too; and never an empty file, which would be an empty database
    overwrite(database, b"?" * _HEADER_BYTES)
    try:
        taken.until(told=f"models:/engagement/{one} goes on")
    finally:
        overwrite(database, header)
    holds(uri, "champion", two)
    taken.until(versions=[one, two], told="")


def test_a_folder_is_taken_once_and_not_watched(tiny_bundle: Path, taken: Taken) -> None:
    watch = AliasWatch(str(tiny_bundle), "", taken.take, every_s=0.01, tell=taken.tell)
    watch.start()
    watch.join(60)
    assert taken.versions == [""]

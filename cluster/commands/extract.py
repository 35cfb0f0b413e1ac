"""`rapt shards extract`."""

import json
import os
from collections import Counter
from typing import TYPE_CHECKING

import click

from cluster.commands.options import shard_writer

if TYPE_CHECKING:
    from data_shards.listing import Listing
    from data_shards.manifest import Lacking, Manifest

__all__ = ["extract"]


@click.command(context_settings={"show_default": True})
@click.argument("uri")
@click.option("--with", "names", required=True, help="Extractors, with commas between them.")
@click.option("--set", "settings", multiple=True, metavar="EXTRACTOR.FIELD=VALUE", help="Change a setting; may be repeated.")
@click.option("--source", help="Where the clips are now, if no longer where the set was built from.")
@click.option("--dataset", help="What SOURCE holds, for a set that does not say it.")
@click.option("--again", is_flag=True, help="Make also what is there already.")
@click.option("--workers", default=os.cpu_count() or 1, type=click.IntRange(1, 4096), help="Shards worked on at a time.")
@click.option("--address", help="Ray cluster whose nodes do the work; processes of this machine otherwise.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def extract(
    uri: str,
    names: str,
    settings: tuple[str, ...],
    source: str | None,
    dataset: str | None,
    again: bool,
    workers: int,
    address: str | None,
    as_json: bool,
) -> None:
    """Add features of the clips to the shards at URI, which the multimodal models read.

    \b
    openface   gaze, head pose and action units of each frame: by MediaPipe, from OpenFace's CSVs beside
               the clips (--set openface.source=csv), or by its program (RAPT_OPENFACE names it)
    i3d        1,024 values of Inception I3D (RAPT_I3D_WEIGHTS names its Kinetics-400 weights)
    videomae   a video or image encoder of Hugging Face, by name
    acoustics  loudness and pitch
    speech     the transcript through BERT

    The clips are read again, once for all extractors. The same command run again adds only what is missing; a feature that
    a clip has no ground for (no sound, nobody speaks) is named with its reason in URI/lacking.jsonl.

    \b
    Examples:
        rapt shards extract my-shards --with openface,acoustics
        rapt shards extract my-shards --with i3d --set i3d.random_init=true
    """
    from cluster.home import absolute_uri
    from cluster.terminal import clip_progress
    from data_shards.building.add_features import add_features
    from data_shards.errors import ConfigError
    from data_shards.extraction.recorded import extractor_settings

    named = [name.strip() for name in names.split(",") if name.strip()]
    if not named:
        raise ConfigError("--with names no extractor; e.g. --with openface,acoustics")
    chosen = extractor_settings(named, settings)
    listing = _listing(uri, dataset, source)
    with shard_writer(address) as write, clip_progress("extract features") as progress:
        manifest, lacking = add_features(
            absolute_uri(uri), listing, chosen, again=again, num_workers=workers, write=write, progress=progress
        )
    if as_json:
        click.echo(json.dumps({"digest": manifest.digest, "features": _features(manifest, lacking, list(chosen))}))
        return
    _print(uri, manifest, lacking, list(chosen))


def _listing(uri: str, dataset: str | None, source: str | None) -> "Listing":
    """The set's clips as they lie now."""
    from cluster.home import absolute_uri
    from data_shards.building.add_features import manifest_before
    from data_shards.building.origin import read_origin
    from data_shards.datasets import list_dataset
    from data_shards.errors import ConfigError
    from data_shards.storage.store import open_store

    store = open_store(absolute_uri(uri))
    manifest, _ = manifest_before(store)
    if source is not None:
        return list_dataset(dataset or manifest.dataset, absolute_uri(source))
    if dataset is not None:
        raise ConfigError("--dataset says what --source holds; name that too")
    origin = read_origin(store)
    return list_dataset(origin.dataset, origin.source)


def _features(manifest: "Manifest", lacking: "list[Lacking]", names: list[str]) -> dict[str, object]:
    clips = sum(entry.num_samples for entry in manifest.shards)
    return {
        name: {
            "shape": manifest.features.get(name),
            "clips": clips - sum(entry.feature == name for entry in lacking),
            "lacking": dict(Counter(entry.reason for entry in lacking if entry.feature == name).most_common()),
            "made_by": manifest.extractors.get(name),
        }
        for name in names
    }


def _print(uri: str, manifest: "Manifest", lacking: "list[Lacking]", names: list[str]) -> None:
    from rich.table import Table

    from cluster.terminal import console, counted

    clips = sum(entry.num_samples for entry in manifest.shards)
    table = Table(title=f"{uri}: features of {counted(clips, 'clip')}")
    table.add_column("feature")
    table.add_column("shape")
    table.add_column("clips", justify="right")
    table.add_column("lacking, and why")
    for name in names:
        reasons = Counter(entry.reason for entry in lacking if entry.feature == name)
        shown = [f"{number}: {reason}" for reason, number in reasons.most_common(3)]
        shown += [f"{sum(reasons.values()) - sum(n for _, n in reasons.most_common(3))} more"] if len(reasons) > 3 else []
        shape = "x".join(str(length or "?") for length in manifest.features.get(name, ())) or "-"
        table.add_row(name, shape, str(clips - reasons.total()), "\n".join(shown))
    console.print(table)
    console.print(f"digest {manifest.digest[:16]}; every lacking feature with its reason is in {uri.rstrip('/')}/lacking.jsonl")

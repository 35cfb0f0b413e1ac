"""`rapt shards`: build, info, verify; the other commands have files of their own."""

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cluster.commands.audit import audit
from cluster.commands.bench import bench
from cluster.commands.browse import browse
from cluster.commands.copy import copy
from cluster.commands.cut import cut
from cluster.commands.extract import extract
from cluster.commands.options import shard_writer

if TYPE_CHECKING:
    from data_shards.listing import Listing

__all__ = ["build", "listing_of", "shards"]


@click.group()
def shards() -> None:
    """Make, describe and check shards of labelled clips."""


for command in (audit, bench, browse, copy, cut, extract):
    shards.add_command(command)


@shards.command(context_settings={"show_default": True})
@click.argument("dataset")
@click.argument("source")
@click.argument("out")
@click.option("--frames", default=50, help="Frames a clip, spread evenly over it.")
@click.option("--size", default=224, help="Side of the stored square frames in pixels.")
@click.option("--resize", type=click.Choice(["crop", "pad"]), default="crop", help="Keep the centre, or fill with black.")
@click.option("--quality", default=90, help="JPEG quality of the stored frames.")
@click.option("--clips-per-shard", default=32, type=click.IntRange(1, 100_000))
@click.option("--workers", default=os.cpu_count() or 1, type=click.IntRange(1, 4096), help="Shards made at a time.")
@click.option("--address", help="Ray cluster whose nodes make the shards; processes of this machine otherwise.")
@click.option(
    "--splits", type=click.Choice(["published", "person"]), default="published", help="The dataset's own, or nobody in two."
)
@click.option("--strict", is_flag=True, help="Stop at the first clip that cannot be used.")
@click.option(
    "--seed", type=click.IntRange(0, 2**32), help="simulated: other people; --splits person: other splits. [default: 0]"
)
@click.option("--balance", type=click.Choice(["uniform", "daisee"]), help="simulated: class shares. [default: uniform]")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def build(
    dataset: str,
    source: str,
    out: str,
    frames: int,
    size: int,
    resize: str,
    quality: int,
    clips_per_shard: int,
    workers: int,
    address: str | None,
    splits: str,
    strict: bool,
    seed: int | None,
    balance: str | None,
    as_json: bool,
) -> None:
    """Decode the clips of DATASET at SOURCE into WebDataset shards in the folder OUT.

    \b
    daisee     SOURCE holds DAiSEE's DataSet and Labels folders
    cmose      SOURCE holds final_data_1.json and the CSVs of secondFeature
    engagewild SOURCE holds openface_15.npz and the like, or videos and label files
    engagenet  SOURCE holds Train, Validation, Test and *_engagement_labels.csv
    folder     SOURCE holds clips and labels.csv (clip, label, subject, split)
    simulated  SOURCE is a number: so many clips of drawn people are made

    A clip that cannot be used is named with its reason in OUT/rejects.jsonl. The same command run again adds only
    what is missing.

    \b
    Examples:
        rapt shards build daisee ~/DAiSEE daisee-shards
        rapt shards build cmose ~/CMOSE cmose-shards --splits person
        rapt shards build folder my-clips my-shards --size 112
        rapt shards build simulated 64 demo-shards
    """
    from pydantic import ValidationError

    from cluster.home import absolute_uri
    from cluster.terminal import clip_progress
    from data_shards.building.build import build_shards
    from data_shards.datasets.person_splits import split_by_person
    from data_shards.errors import ConfigError
    from data_shards.preprocess import PreprocessConfig
    from data_shards.schema import first_problem

    try:
        config = PreprocessConfig.model_validate(
            {"num_frames": frames, "size_px": size, "resize": resize, "jpeg_quality": quality}
        )
    except ValidationError as error:
        raise ConfigError(f"rapt shards build: {first_problem(error)}") from None
    by_person = splits == "person"
    people_seed = None if by_person and dataset != "simulated" else seed
    listing = listing_of(dataset, source, seed=people_seed, balance=balance, workers=workers)
    if by_person:
        listing = split_by_person(listing, seed=seed or 0)
    _warn_of_shared_people(listing)
    with shard_writer(address) as write, clip_progress("build shards") as progress:
        build_shards(
            listing,
            absolute_uri(out),
            preprocess=config,
            clips_per_shard=clips_per_shard,
            num_workers=workers,
            strict=strict,
            write=write,
            progress=progress,
        )
    _print_info(out, as_json)


def _warn_of_shared_people(listing: "Listing") -> None:
    """Say on standard error when a person is in two splits: figures would then be of people the model has seen."""
    splits_of: dict[str, set[str]] = {}
    for clip in listing.clips:
        splits_of.setdefault(clip.subject, set()).add(clip.split)
    shared = sorted(subject for subject, splits in splits_of.items() if len(splits) > 1)
    if shared:
        click.echo(
            f"warning: {len(shared)} people are in more than one split, e.g. {shared[0]}: figures will be too good", err=True
        )


def listing_of(dataset: str, source: str, *, seed: int | None, balance: str | None, workers: int) -> "Listing":
    """The dataset's listing; simulated clips are made first. ConfigError on an unknown dataset or an unfit option."""
    from cluster.home import absolute_uri, home
    from cluster.terminal import clip_progress
    from data_shards.datasets import DATASETS, list_dataset
    from data_shards.errors import ConfigError, DataError

    if dataset not in DATASETS:
        raise ConfigError(f"no dataset named '{dataset}'; there are: {', '.join(DATASETS)}")
    if dataset != "simulated":
        for option, value in (("--seed", seed), ("--balance", balance)):
            if value is not None:
                also = " and for --splits person" if option == "--seed" else ""
                raise ConfigError(f"{option} is for simulated clips{also}; {dataset} is read as it is, leave it out")
        if "://" not in source and not Path(source).is_dir():
            raise DataError(f"{source}: no such folder; name the folder that holds the dataset")
        return list_dataset(dataset, absolute_uri(source))
    from data_shards.simulation import SimulationSettings, generate

    if not re.fullmatch(r"[1-9]\d{0,5}", source, flags=re.ASCII):
        raise ConfigError(
            f"simulated takes a number of clips up to 999999 as SOURCE, not '{source[:40]}'; "
            "e.g. rapt shards build simulated 64 OUT"
        )
    settings = SimulationSettings(num_clips=int(source), seed=seed or 0, balance="daisee" if balance == "daisee" else "uniform")
    folder = home() / "simulated" / f"{settings.balance}-{settings.num_clips}-seed{settings.seed}"
    with clip_progress("make clips") as progress:
        generate(settings, folder, num_workers=workers, progress=progress)
    return list_dataset("simulated", folder)


@shards.command()
@click.argument("uri")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def info(uri: str, as_json: bool) -> None:
    """Describe the shards at URI: splits, people, label histogram, preprocessing.

    \b
    Example:
        rapt shards info demo-shards
    """
    _print_info(uri, as_json)


@shards.command()
@click.argument("uri")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def verify(uri: str, as_json: bool) -> None:
    """Check every shard at URI: checksums, indexes, and that every frame can be decoded.

    \b
    Example:
        rapt shards verify demo-shards
    """
    from cluster.terminal import clip_progress, console
    from data_shards.building.verify import verify_shards
    from data_shards.errors import ShardError

    with clip_progress("verify shards") as progress:
        manifest, findings = verify_shards(uri, progress=progress)
    if as_json:
        click.echo(json.dumps({"digest": manifest.digest, "findings": findings}))
    else:
        for finding in findings:
            console.print(finding)
    if findings:
        raise ShardError(f"{uri}: {len(findings)} findings; build the damaged shards again")
    if not as_json:
        console.print(f"{uri}: whole, {len(manifest.shards)} shards, digest {manifest.digest[:16]}")


def _print_info(uri: str, as_json: bool) -> None:
    from rich.table import Table

    from cluster.terminal import console, counted
    from data_shards.manifest import read_manifest

    manifest = read_manifest(uri)
    if as_json:
        content = manifest.model_dump(mode="json", exclude={"shards"})
        sizes = {"num_shards": len(manifest.shards), "size_bytes": sum(s.size_bytes for s in manifest.shards)}
        click.echo(json.dumps({"digest": manifest.digest, **sizes, **content}))
        return
    table = Table(title=f"{uri}: {manifest.dataset}")
    for heading in ("split", "clips", "people", "label", *map(str, range(max(map(len, manifest.label_names.values()))))):
        table.add_column(heading, justify="left" if heading in ("split", "label") else "right")
    for split, summary in manifest.splits.items():
        for number, (label, counts) in enumerate(summary.label_histogram.items()):
            first = (split, str(summary.num_samples), str(len(summary.subjects))) if number == 0 else ("", "", "")
            table.add_row(*first, label, *map(str, counts))
    console.print(table)
    size_mib = sum(shard.size_bytes for shard in manifest.shards) / 2**20
    pre = manifest.preprocess
    held = [f"{pre.num_frames} frames of {pre.size_px}x{pre.size_px} a clip, resize {pre.resize}"] if pre else []
    held += [f"{name} {'x'.join(str(length or '?') for length in shape)}" for name, shape in manifest.features.items()]
    console.print(
        f"{counted(len(manifest.shards), 'shard')}, {size_mib:.1f} MiB; {'; '.join(held)}; digest {manifest.digest[:16]}"
    )
    if manifest.num_rejected:
        where = f"{uri.rstrip('/')}/rejects.jsonl"
        console.print(f"{counted(manifest.num_rejected, 'clip')} left out, each with its reason in {where}", style="yellow")
    if manifest.notice:
        console.print(manifest.notice, style="yellow")

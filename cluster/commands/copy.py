"""`rapt shards copy`."""

import click

__all__ = ["copy"]


@click.command()
@click.argument("source")
@click.argument("out")
@click.option("--check", is_flag=True, help="Read what is at OUT already too, and send what is damaged again.")
def copy(source: str, out: str, check: bool) -> None:
    """Copy the shards at SOURCE to OUT, each a folder or s3://bucket/prefix, checked by their sha256.

    A copy that was broken off goes on where it was when the same command runs again. Credentials and the address of
    another object storage than Amazon's come from boto3's own settings, e.g. AWS_ENDPOINT_URL_S3.

    \b
    Examples:
        rapt shards copy demo-shards s3://my-bucket/demo-shards
        rapt shards copy s3://my-bucket/demo-shards demo-shards
    """
    from cluster.home import absolute_uri
    from cluster.terminal import clip_progress, console, counted
    from data_shards.building.copy import copy_shards

    with clip_progress("copy shards") as progress:
        manifest = copy_shards(absolute_uri(source), absolute_uri(out), check=check, progress=progress)
    console.print(f"{out}: {counted(len(manifest.shards), 'shard')}, digest {manifest.digest[:16]}")

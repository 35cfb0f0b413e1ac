"""`rapt demo`: the whole path on simulated clips."""

import click

__all__ = ["demo"]


@click.command(context_settings={"show_default": True})
@click.option("--clips", default=320, type=click.IntRange(64, 100_000), help="Simulated clips to make.")
@click.option("--workers", default=2, type=click.IntRange(1, 64), help="Ray Train workers.")
@click.option("--port", default=8000, type=click.IntRange(1, 65535), help="Port of the endpoint, on this machine alone.")
@click.option("--set", "settings", multiple=True, metavar="PATH=VALUE", help="Change a setting of the recipe `demo`.")
@click.option("--keep-serving", is_flag=True, help="Leave the endpoint up until Ctrl-C.")
def demo(clips: int, workers: int, port: int, settings: tuple[str, ...], keep_serving: bool) -> None:
    """Make simulated clips, shard them, train on Ray, register, serve, and ask for two scores over HTTP.

    Takes a few minutes on two CPU cores. Everything lies below RAPT_HOME (default .rapt); nothing listens on
    anything but this machine.

    \b
    Examples:
        rapt demo
        rapt demo --keep-serving --port 8080
    """
    from cluster.demo import run_demo

    run_demo(clips=clips, workers=workers, port=port, settings=settings, keep_serving=keep_serving)

"""`rapt reproduce`."""

import click

from cluster.commands.options import cache_option

__all__ = ["reproduce"]


@click.command(context_settings={"show_default": True})
@click.argument("table")
@click.option("--data", required=True, help="Shards: a folder, or s3://bucket/prefix.")
@click.option("--seeds", default=5, type=click.IntRange(min=1), help="How often each row is run: seeds 0, 1, ...")
@click.option("--rows", help="The rows to run, separated by commas. [default: all]")
@click.option("--workers", type=click.IntRange(1, 256), help="Processes. [default: one a core]")
@cache_option
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
@click.option("--markdown", is_flag=True, help="Print the table as Markdown.")
@click.option("--no-tracking", is_flag=True, help="Write nothing to MLflow.")
def reproduce(
    table: str,
    data: str,
    seeds: int,
    rows: str | None,
    workers: int | None,
    cache_gib: float,
    as_json: bool,
    markdown: bool,
    no_tracking: bool,
) -> None:
    """Make a paper's TABLE again on shards of its data: our figures beside the published ones.

    \b
    engagewild   mean squared error on EngageWild's 48 validation videos:
                 rows mean, ridge_mean, ridge_segments, ridge_stat, svr,
                 tcn_ce, tcn_mse, tcn_ordinal, tcn_mocorank, average
    cmose_losses accuracy of the losses of CMOSE's Table 2, on shards with openface and i3d:
                 rows majority, cross_entropy, weighted_cross_entropy, mse, mse_rank, mse_triplet,
                 cross_entropy_center, cb_focal, ldam, mocorank, mocorank_center, mocorank_fast
    cmose_parts  accuracy of its parts (Tables 3 and 4), on shards with acoustics and speech too:
                 rows majority, openface, attention, concat, both, i3d, audio

    In engagewild every setting is chosen by cross-validation inside the training split, and the labels of the validation
    split are read once, for the figures; in CMOSE's tables the validation split chooses the epoch, and the test split is
    read once. Intervals stand beside each mean: over seeds (Student's t), and over clips or people (bootstrap).

    \b
    Examples:
        rapt shards build engagewild ~/EngageWild ew-shards
        rapt reproduce engagewild --data ew-shards
        rapt reproduce engagewild --data ew-shards --seeds 2 --rows mean,ridge_stat,tcn_mocorank --json
        rapt reproduce cmose_losses --data my-shards --rows majority,cross_entropy,mocorank --markdown
    """
    from cluster.home import absolute_uri, cache_settings, mlflow_uri
    from cluster.terminal import clip_progress, console, reproduced_table
    from data_shards.errors import ConfigError
    from training.reproduction.table import MAX_SEEDS, to_markdown
    from training.reproduction.tables import table_named
    from training.tracking import mlflow_client, track_table

    if seeds > MAX_SEEDS:
        raise ConfigError(f"--seeds is {seeds}, and intervals are known for up to {MAX_SEEDS} seeds; ask for fewer")
    make = table_named(table)
    named = [name.strip() for name in rows.split(",") if name.strip()] if rows else []
    if not no_tracking:
        mlflow_client(mlflow_uri())  # that it does not answer is said now, not after all is computed
    with clip_progress("rows x seeds") as progress:
        made = make(
            absolute_uri(data),
            num_seeds=seeds,
            rows=named,
            cache=cache_settings(cache_gib),
            num_workers=workers or 0,
            progress=progress,
        )
    if as_json:
        click.echo(made.model_dump_json())
    elif markdown:
        click.echo(to_markdown(made))
    else:
        console.print(reproduced_table(made))
        for sentence in made.sentences:
            console.print(sentence)
    if not no_tracking:  # at the end: the table is on the screen, whatever MLflow says
        track_table(mlflow_uri(), made)

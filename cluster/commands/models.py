"""`rapt promote`, `rapt lineage`: what the registry's models have to pass, and where they come from."""

import click

from cluster.commands.options import emotion_option

__all__ = ["lineage", "promote"]


@click.command(context_settings={"show_default": True})
@click.argument("run")
@click.option("--alias", default="champion", type=click.Choice(["champion", "challenger"]))
@click.option("--metric", default="balanced_accuracy", help="The figure that must be better.")
@click.option("--split", default="validation", help="The split it is measured on.")
@click.option("--margin", default=0.0, help="By how much it must be better.")
@click.option(
    "--minimum", type=float, help="What the lower end of the figure's 95 % interval must reach. [default: no such check]"
)
@click.option("--without-audit", is_flag=True, help="Do without an audit of the data; the version's record says so.")
@emotion_option
def promote(
    run: str, alias: str, metric: str, split: str, margin: float, minimum: float | None, without_audit: bool, allow_emotion: bool
) -> None:
    """Move an alias to RUN's model if it passes the gate.

    Its figure must be better than that of the model that holds the alias, and `rapt shards audit` must have found no leak
    between the splits of the data it was trained on. Each check is printed with its figures, and kept with the version.

    \b
    Examples:
        rapt promote demo-20260101-120000-ab12 --metric balanced_accuracy --margin 0.01
        rapt promote demo-20260101-120000-ab12 --minimum 0.4
    """
    from cluster.home import audits_folder, mlflow_uri
    from data_shards.errors import ConfigError
    from training.promotion import Gate
    from training.promotion import promote as move

    audits = None if without_audit else audits_folder()
    gate = Gate(metric=metric, split=split, margin=margin, minimum=minimum, audits=audits)
    promotion = move(mlflow_uri(), run, alias=alias, gate=gate, allow_emotion=allow_emotion)
    for check in promotion.checks:
        click.echo(str(check))
    if not promotion.passed:
        raise ConfigError(f"version {promotion.version} does not pass ({promotion.failures}); the alias was not moved")
    click.echo(f"models:/engagement@{alias} is version {promotion.version}")


@click.command()
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print the chain as one JSON object.")
def lineage(model: str, as_json: bool) -> None:
    """Print where MODEL comes from: data, run, checkpoint, version, aliases.

    MODEL is models:/engagement@champion, models:/engagement/3, a run, or a bundle's folder.

    \b
    Examples:
        rapt lineage models:/engagement@champion
        rapt lineage demo-20260101-120000-ab12 --json
    """
    from cluster.home import audits_folder, mlflow_uri
    from training.lineage import lineage_of, lines_of

    found = lineage_of(mlflow_uri(), model, audits=audits_folder())
    if as_json:
        click.echo(found.model_dump_json())
        return
    for line in lines_of(found):
        click.echo(line)

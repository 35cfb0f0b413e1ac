"""`rapt cluster`: a Ray head on this machine."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from cluster.local_cluster import ClusterStatus

__all__ = ["cluster"]


@click.group()
def cluster() -> None:
    """Start, look at and stop a Ray cluster on this machine alone, for whoever has no other.

    It listens on 127.0.0.1 and answers nobody without its token, which lies in RAPT_HOME/cluster/token for this user
    alone; rapt's commands find it there by themselves.

    \b
    Example:
        rapt cluster up
    """


@cluster.command(context_settings={"show_default": True})
@click.option("--cpus", type=click.IntRange(1, 4096), help="CPUs that the cluster hands out. [default: this machine's]")
@click.option("--gpus", type=click.IntRange(0, 64), help="GPUs that the cluster hands out. [default: those that Ray finds]")
@click.option("--port", type=click.IntRange(1024, 65535), help="Ray's port. [default: 6379, a free one where that is taken]")
@click.option("--dashboard-port", type=click.IntRange(1024, 65535), help="The dashboard's port. [default: 8265, or a free one]")
@click.option("--json", "as_json", is_flag=True, help="Print the cluster's status as JSON.")
def up(cpus: int | None, gpus: int | None, port: int | None, dashboard_port: int | None, as_json: bool) -> None:
    """Start the cluster and wait until it takes jobs.

    Its jobs have the RAPT_HOME and the environment that this command has: put the credentials of S3 and of MLflow into
    it (AWS_PROFILE, AWS_ENDPOINT_URL_S3, MLFLOW_TRACKING_URI ...). They are never put into a job's settings, which the
    dashboard shows. After a change of them: `rapt cluster down`, then up.

    \b
    Example:
        rapt cluster up
        rapt submit demo --data my-shards
    """
    from cluster.local_cluster import start_cluster, status_of
    from cluster.terminal import progress_console

    with progress_console.status("starting the cluster"):
        there, is_new = start_cluster(cpus=cpus, gpus=gpus, port=port, dashboard_port=dashboard_port)
    found = status_of(there)
    if as_json:
        click.echo(found.model_dump_json())
        return
    click.echo("the cluster is up" if is_new else "the cluster is up already")
    _print(found)


@cluster.command()
@click.option("--json", "as_json", is_flag=True, help="Print the status as JSON.")
def status(as_json: bool) -> None:
    """Say whether the cluster is up, where it answers, what it has and how many jobs run.

    \b
    Example:
        rapt cluster status --json
    """
    from cluster.local_cluster import local_cluster, status_of

    found = status_of(local_cluster())
    if as_json:
        click.echo(found.model_dump_json())
    elif not found.up:
        click.echo("no cluster is up; start one with `rapt cluster up`")
    else:
        _print(found)


@cluster.command()
def down() -> None:
    """Stop the cluster: every process of it, and no other, and wait for them. Jobs that run end where they are.

    Their runs go on from their last checkpoints with `rapt submit RECIPE --run RUN`, on another cluster too. Stop them
    with `rapt jobs stop` first to have them write one.

    \b
    Example:
        rapt cluster down
    """
    from cluster.local_cluster import stop_cluster
    from cluster.terminal import progress_console

    with progress_console.status("stopping the cluster"):
        was_up = stop_cluster()
    click.echo("the cluster is down" if was_up else "no cluster was up")


def _print(found: "ClusterStatus") -> None:
    from cluster.local_cluster import local_token_path

    if not found.answers:
        click.echo(f"process {found.pid} runs, but {found.dashboard} does not answer; `rapt cluster down` ends it")
        return
    click.echo(f"dashboard  {found.dashboard}  (it asks for the token, which is in {local_token_path()})")
    click.echo(f"ray        {found.ray_address}")
    click.echo(f"resources  {found.cpus:g} CPUs, {found.gpus:g} GPUs; jobs running: {found.jobs_running}")

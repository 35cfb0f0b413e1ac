"""`rapt submit`: a training run as a job of a Ray cluster."""

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from cluster.commands.jobs import print_submitted, watch
from cluster.commands.options import job_address_option
from cluster.commands.train import train

if TYPE_CHECKING:
    from cluster.packing import Pack

__all__ = ["submit"]

_NOT_FOR_JOBS = ("recipe", "data", "local", "address", "resume", "run", "show", "as_json")  # of rapt train's options


@click.command(
    context_settings={"show_default": True},
    params=[option for option in train.params if option.name not in _NOT_FOR_JOBS],
)
@click.argument("recipe")
@click.option("--data", required=True, help="Shards: s3://bucket/prefix, or a folder that every node of the cluster sees.")
@job_address_option
@click.option("--run", "run_id", metavar="RUN", help="The run's name; one that is there already goes on. [default: a new one]")
@click.option("--image", help="Run in this container image, with the Rapt that is in it, instead of packing the checkout.")
@click.option(
    "--cluster-home", metavar="PATH", help="RAPT_HOME of the job: a folder that all nodes share. [default: the cluster's]"
)
@click.option("--no-wait", is_flag=True, help="Print the job's and the run's name and leave.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON; the log goes to standard error.")
@click.pass_context
def submit(
    context: click.Context,
    /,
    recipe: str,
    data: str,
    address: str | None,
    run_id: str | None,
    image: str | None,
    cluster_home: str | None,
    no_wait: bool,
    as_json: bool,
    **training: Any,
) -> None:
    """Train RECIPE as a job of a Ray cluster, show its log until it ends, and exit with its exit code.

    The cluster is that of --address, RAPT_RAY_ADDRESS or RAY_ADDRESS, else the one of `rapt cluster up`. The code is this
    checkout's: what git tracks and what it would, never what .gitignore names. Outside of a checkout the cluster's own
    Rapt is used. A token is found as Ray finds it (RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token).

    Credentials of S3 and MLflow are the cluster's: they come from its own environment, and nothing of this one is sent,
    since the dashboard shows a job's command and settings to everybody who may look. Ctrl-C leaves the job running.

    \b
    Examples:
        rapt cluster up
        rapt submit resnet_tcn --data s3://rapt/daisee-shards --workers 2 --set loop.epochs=1
        rapt submit demo --data my-shards --address http://ray.example.org:8265 --no-wait
        rapt submit demo --data my-shards --run demo-20260101-120000-ab12
    """
    from cluster.home import new_run_id
    from cluster.jobs import JobRequest, Jobs
    from cluster.named_run import check_run_name
    from cluster.ray_address import find_job_server

    if not image:
        _check_recipe(recipe, training.get("settings", ()))
    run_id = run_id or new_run_id(recipe)
    check_run_name(run_id)
    options = _forwarded(context, training)
    jobs = Jobs(find_job_server(address))
    pack = None if image else _pack()
    request = JobRequest(
        run_id=run_id,
        recipe=recipe,
        entrypoint=_entrypoint(recipe, data, options, run_id),
        commit=pack.commit if pack else "",
        pack=pack.path if pack else None,
        image=image or "",
        cluster_home=cluster_home or "",
    )
    job_id = jobs.submit(request)
    if no_wait:
        print_submitted(jobs, job_id, run_id, as_json=as_json)
        return
    click.echo(f"job {job_id} of run {run_id}, at {jobs.url}", err=True)
    watch(jobs, job_id, as_json=as_json)


def _check_recipe(recipe: str, settings: Sequence[str]) -> None:
    """A recipe or a setting that does not exist is told before anything is sent."""
    from training.config import stages_with_settings
    from training.recipes import stages

    stages_with_settings(stages(recipe), settings)


def _entrypoint(recipe: str, data: str, options: Sequence[str], run_id: str) -> str:
    """The job's command. Ray gives it to a shell, so every word is quoted."""
    from cluster.home import absolute_uri

    words = ["python", "-m", "cluster", "train", recipe, f"--data={absolute_uri(data)}", *options]
    return shlex.join([*words, "--run", run_id, "--address", "auto"])


def _forwarded(context: click.Context, training: dict[str, Any]) -> list[str]:
    """The options of `rapt train` that were given, as words of its command line."""
    words = []
    for option in train.params:
        name = option.name or ""
        if name not in training or context.get_parameter_source(name) is ParameterSource.DEFAULT:
            continue
        value = training[name]
        if isinstance(option, click.Option) and option.is_flag:
            words += [option.opts[0]] if value else option.secondary_opts[:1]
        elif value is not None:
            words += [_absolute(f"{option.opts[0]}={item}") for item in (value if option.multiple else (value,))]
    return words


def _absolute(word: str) -> str:
    """A word of the command line; a file that it names is named as it is from the job's folder."""
    from cluster.home import absolute_uri

    for start in ("--set=starts_from=", "--checkpoints="):
        if word.startswith(start) and word != start:
            return start + absolute_uri(word.removeprefix(start))
    return word


def _pack() -> "Pack | None":
    """The checkout that this program is of, packed; None where it is installed without one."""
    from pathlib import Path

    from cluster.home import home
    from cluster.packing import pack_checkout

    pack = pack_checkout(Path(__file__).parents[2], home() / "packs")
    if pack is None:
        click.echo("no git checkout: the job runs the Rapt that is installed on the cluster", err=True)
        return None
    click.echo(f"packed {pack.num_files} files ({pack.size_bytes / 2**20:.1f} MiB), commit {pack.commit}", err=True)
    if pack.left_out:
        click.echo(f"left out, links that lead out of the checkout: {', '.join(pack.left_out)}", err=True)
    return pack

"""`rapt jobs`: what runs as jobs of a Ray cluster."""

import json
import sys
import time
from typing import TYPE_CHECKING

import click

from cluster.commands.options import job_address_option

if TYPE_CHECKING:
    from cluster.jobs import Job, Jobs

__all__ = ["jobs", "print_submitted", "watch"]


@click.group()
def jobs() -> None:
    """List, follow, stop and resume the jobs that `rapt submit` started. JOB is a job's name, or its run's.

    \b
    Example:
        rapt jobs list
    """


@jobs.command("list")
@job_address_option
@click.option("--json", "as_json", is_flag=True, help="Print the jobs as JSON.")
def list_jobs(address: str | None, as_json: bool) -> None:
    """Show every job with its run, recipe, state, start and length, the last one below.

    \b
    Example:
        rapt jobs list
    """
    from cluster.terminal import columns

    found = _connect(address).submitted()
    if as_json:
        click.echo(json.dumps({"jobs": [_record(job) for job in found]}))
        return
    if not found:
        click.echo("no jobs yet; rapt submit demo --data my-shards")
        return
    rows = [("job", "run", "recipe", "state", "started", "took")]
    for job in found:
        started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(job.started_s)) if job.started_s else ""
        rows.append((job.job_id, job.run_id, job.recipe, job.state, started, _length(job)))
    for line in columns(rows):
        click.echo(line)


@jobs.command()
@click.argument("job")
@job_address_option
@click.option("--follow", is_flag=True, help="Go on until the job ends, and exit with its exit code.")
def logs(job: str, address: str | None, follow: bool) -> None:
    """Print what JOB has said.

    \b
    Example:
        rapt jobs logs demo-20260101-120000-ab12 --follow
    """
    there = _connect(address)
    found = there.find(job)
    if follow:
        watch(there, found.job_id)
    else:
        click.echo(there.logs(found.job_id), nl=False)


@jobs.command()
@click.argument("job")
@job_address_option
@click.option("--json", "as_json", is_flag=True, help="Print the job as JSON.")
def stop(job: str, address: str | None, as_json: bool) -> None:
    """Ask JOB to end (SIGTERM) and wait until it has, two minutes at most; then Ray kills it.

    \b
    Example:
        rapt jobs stop demo-20260101-120000-ab12
    """
    there = _connect(address)
    found = there.find(job)
    had_ended = found.has_ended
    found = there.stop(found)
    if as_json:
        click.echo(json.dumps(_record(found)))
    elif had_ended:
        click.echo(f"job {found.job_id} had ended already: {found.state}")
    else:
        click.echo(f"job {found.job_id} is {found.state}; its run goes on with: rapt jobs resume {found.job_id}")


@jobs.command()
@click.argument("job")
@job_address_option
@click.option("--no-wait", is_flag=True, help="Print the new job's name and leave.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON; the log goes to standard error.")
def resume(job: str, address: str | None, no_wait: bool, as_json: bool) -> None:
    """Go on with JOB's run from its last whole checkpoint: the same command and code, as a new job.

    \b
    Example:
        rapt jobs resume demo-20260101-120000-ab12
    """
    from cluster.home import home
    from data_shards.errors import ConfigError

    there = _connect(address)
    found = there.find(job)
    if found.state == "succeeded":
        raise ConfigError(f"job {found.job_id}: succeeded, so there is nothing to go on with; start a new run with rapt submit")
    job_id = there.again(found, home() / "packs")
    if no_wait:
        print_submitted(there, job_id, found.run_id, as_json=as_json)
        return
    click.echo(f"job {job_id} of run {found.run_id}, at {there.url}", err=True)
    watch(there, job_id, as_json=as_json)


def print_submitted(there: "Jobs", job_id: str, run_id: str, *, as_json: bool) -> None:
    """What a job is called, for whoever does not wait for it."""
    if as_json:
        click.echo(json.dumps({"job": job_id, "run": run_id, "address": there.url}))
    else:
        click.echo(f"job {job_id} of run {run_id}; rapt jobs logs {job_id} --follow")


def watch(there: "Jobs", job_id: str, *, as_json: bool = False) -> None:
    """Show a job's log until it ends and exit with its exit code; Ctrl-C leaves it running, with 130."""
    try:
        ended = there.follow(
            job_id,
            say=lambda text: click.echo(text, nl=False, err=as_json),
            notice=lambda sentence: click.echo(sentence, err=True),
        )
    except KeyboardInterrupt:
        click.echo(
            f"\njob {job_id} goes on; look at it with `rapt jobs logs {job_id} --follow`, stop it with `rapt jobs stop {job_id}`",
            err=True,
        )
        sys.exit(130)
    if as_json:
        click.echo(json.dumps(_record(ended)))
    else:
        click.echo(_verdict(ended), err=True)
    if ended.shell_code:
        sys.exit(ended.shell_code)


def _connect(address: str | None) -> "Jobs":
    from cluster.jobs import Jobs
    from cluster.ray_address import find_job_server

    return Jobs(find_job_server(address))


def _record(job: "Job") -> dict[str, object]:
    return {
        "job": job.job_id,
        "run": job.run_id,
        "recipe": job.recipe,
        "state": job.state,
        "started_s": job.started_s,
        "ended_s": job.ended_s,
        "exit_code": job.shell_code if job.has_ended else None,
    }


def _verdict(job: "Job") -> str:
    if job.state == "succeeded":
        return f"job {job.job_id} succeeded after {_length(job)}"
    goes_on = f"`rapt jobs resume {job.job_id}` goes on from the last checkpoint"
    if job.state == "stopped":
        return f"job {job.job_id} was stopped after {_length(job)}; {goes_on}"
    why = (
        f"exit code {job.exit_code}"
        if job.exit_code is not None
        else (job.message.strip().splitlines() or ["no reason given"])[0]
    )
    return f"job {job.job_id} failed after {_length(job)} ({why}); {goes_on}"


def _length(job: "Job") -> str:
    if job.started_s is None:
        return ""
    minutes, seconds = divmod(int((job.ended_s or time.time()) - job.started_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"

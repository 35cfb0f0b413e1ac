"""The `rapt` command. Importing it is cheap: each command imports what it needs when it runs."""

import os
import sys
from pathlib import Path
from typing import Any

import click

from cluster.commands.demo import demo
from cluster.commands.jobs import jobs
from cluster.commands.keys import keys
from cluster.commands.local_cluster import cluster
from cluster.commands.models import lineage, promote
from cluster.commands.report import report
from cluster.commands.reproduce import reproduce
from cluster.commands.runs import runs
from cluster.commands.serve import score, serve
from cluster.commands.shards import shards
from cluster.commands.submit import submit
from cluster.commands.train import evaluate, train
from cluster.waiting import StopRequest, stop_on_sigterm
from data_shards.errors import ConfigError, RaptError, Stopped

__all__ = ["main", "rapt"]


@click.group(context_settings={"auto_envvar_prefix": "RAPT", "help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="rapt-engagement")
def rapt() -> None:
    """Train and serve models of student engagement in webcam video.

    \b
    Try everything on simulated clips, on this machine:
        rapt demo
    Then, with your own data:
        rapt shards build folder my-clips my-shards
        rapt train demo --data my-shards --local
        rapt serve models:/engagement@champion

    State lies below RAPT_HOME (default .rapt). Every option can also be set as RAPT_COMMAND_OPTION in the
    environment or in rapt.yaml here, in that order.
    """


for command in (
    demo,
    shards,
    train,
    submit,
    jobs,
    cluster,
    runs,
    evaluate,
    promote,
    lineage,
    reproduce,
    serve,
    score,
    report,
    keys,
):
    rapt.add_command(command)


def main() -> None:
    """Run the command; a mistake is one sentence on standard error and a non-zero exit."""
    stop_on_sigterm()
    stop = StopRequest()
    try:
        rapt.main(standalone_mode=False, default_map=_settings_file(), obj=stop)
    except Stopped as stopped:
        _end(str(stopped), stop.exit_code)
    except RaptError as error:
        _fail(str(error), 1)
    except click.exceptions.Abort:
        _fail("stopped", 130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _fail("stopped", 130)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _fail(f"{place}{error.strerror or error}", 1)


def _settings_file() -> dict[str, Any]:
    """Defaults from rapt.yaml in this folder: {command: {option: value}}."""
    path = Path("rapt.yaml")
    if not path.exists():
        return {}
    if not path.is_file():
        raise ConfigError(f"{path.absolute()}: not a plain file; move it away")
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as YAML ({str(error).splitlines()[0]}); mend it or move it away") from None
    _check_settings(path, content, rapt)
    return content


def _check_settings(path: Path, content: Any, group: click.Group, place: str = "") -> None:
    """ConfigError where a level of rapt.yaml is not {command: {option: value}}."""
    if not isinstance(content, dict):
        where = f" below {place}" if place else ""
        raise ConfigError(f"{path}: must hold 'command:' and below it 'option: value'{where}; mend it or move it away")
    for name, below in content.items():
        command = group.commands.get(str(name))
        if command is None:
            raise ConfigError(f"{path}: no command '{place}{name}'; there are: {', '.join(group.commands)}")
        if isinstance(command, click.Group):
            _check_settings(path, below, command, f"{place}{name} ")
        elif not isinstance(below, dict) or any(isinstance(value, (dict, list)) for value in below.values()):
            raise ConfigError(f"{path}: '{place}{name}' must hold 'option: value' lines; mend it or move it away")


def _fail(sentence: str, status: int) -> None:
    _end(f"Error: {sentence}", status)


def _end(sentence: str, status: int) -> None:
    if "ray" in sys.modules:  # a cluster that this command started ends with it
        sys.modules["ray"].shutdown()
    click.echo(sentence, err=True)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # not sys.exit: threads of Ray or MLflow would hold a failed process open

"""`rapt keys`: who may ask the endpoint for what."""

import json
import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from serving.access.keys import KeyRecord, KeyScope

__all__ = ["keys"]

_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_SPAN = re.compile(r"([1-9]\d{0,4})([mhdw])")


class _Span(click.ParamType):  # type: ignore[type-arg]  # generic for the checker alone
    """A span of time: a number and m, h, d or w."""

    name = "span"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> timedelta:
        match = _SPAN.fullmatch(str(value))
        if match is None:
            self.fail(f"'{value}' is no span of time; write e.g. 90d, or 12h, 30m, 4w", parameter, context)
        return int(match[1]) * _UNITS[match[2]]


@click.group()
def keys() -> None:
    """Make, list and revoke the API keys of this machine's endpoint. Once there is one, the endpoint wants one.

    \b
    Example:
        rapt keys create school
    """


@keys.command(context_settings={"show_default": True})
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(("score", "jobs", "metrics")),
    default=("score",),
    help="What it is for; may be given several times.",
)
@click.option("--expires", type=_Span(), metavar="SPAN", help="For how long it holds: 90d, 12h, 30m, 4w. [default: for ever]")
@click.option("--rate", default=60, type=click.IntRange(1, 1_000_000), help="Requests a minute.")
@click.option("--concurrency", default=4, type=click.IntRange(1, 1000), help="Requests at once.")
@click.option("--max-mib", default=100, type=click.IntRange(1, 65_536), help="MiB of one request's body.")
@click.option("--json", "as_json", is_flag=True, help="Print the key and its record as JSON.")
def create(
    name: str, scopes: "tuple[KeyScope, ...]", expires: timedelta | None, rate: int, concurrency: int, max_mib: int, as_json: bool
) -> None:
    """Make a key called NAME and print it, once: it is stored nowhere. It holds at once, without a restart.

    \b
    Examples:
        rapt keys create school --expires 90d
        rapt keys create lessons --scope score --scope jobs --rate 600 --json
    """
    from cluster.home import keys_file
    from serving.access.keys import create_key, utc_now

    now = utc_now()
    record, key = create_key(
        keys_file(),
        name,
        now=now,
        scopes=scopes,
        expires_at=now + expires if expires else None,
        rate_per_minute=rate,
        concurrency=concurrency,
        max_mib=max_mib,
    )
    if as_json:
        click.echo(json.dumps({"key": key, **_shown(record, now)}))
        return
    click.echo(key)
    until = f"until {record.expires_at:%Y-%m-%d %H:%M} UTC" if record.expires_at else "until it is revoked"
    click.echo(
        f"'{name}' is for {' and '.join(record.scopes)}, {until}; keep the key, it is not shown again. Send it as "
        "'Authorization: Bearer KEY'.",
        err=True,
    )


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the keys as JSON.")
def list_keys(as_json: bool) -> None:
    """Show every key that was made, without its secret.

    \b
    Example:
        rapt keys list
    """
    from cluster.home import keys_file
    from cluster.terminal import columns
    from serving.access.keys import read_keys, utc_now

    found, now = read_keys(keys_file()).keys, utc_now()
    if as_json:
        click.echo(json.dumps({"keys": [_shown(key, now) for key in found]}))
        return
    if not found:
        click.echo("no keys yet, so the endpoint on loopback answers everybody of this machine; rapt keys create NAME")
        return
    rows = [("name", "id", "state", "scopes", "a minute", "at once", "MiB", "made", "ends")]
    for key in found:
        limits = (str(key.rate_per_minute), str(key.concurrency), str(key.max_mib))
        rows.append((key.name, key.id, key.state(now), ",".join(key.scopes), *limits, _day(key.created_at), _day(key.expires_at)))
    for line in columns(rows):
        click.echo(line)


@keys.command()
@click.argument("name_or_id")
@click.option("--json", "as_json", is_flag=True, help="Print the key's record as JSON.")
def revoke(name_or_id: str, as_json: bool) -> None:
    """Revoke the key of that NAME_OR_ID. A running endpoint refuses it from its next request on.

    \b
    Example:
        rapt keys revoke school
    """
    from cluster.home import keys_file
    from serving.access.keys import revoke_key, utc_now

    record = revoke_key(keys_file(), name_or_id, now=utc_now())
    if as_json:
        click.echo(json.dumps(_shown(record, utc_now())))
    else:
        click.echo(f"'{record.name}' ({record.id}) is revoked")


def _shown(record: "KeyRecord", now: datetime) -> dict[str, Any]:
    """The record for a person or a program: the digest of the secret is nobody's business."""
    return {**record.model_dump(mode="json", exclude={"secret_sha256"}), "state": record.state(now)}


def _day(time: datetime | None) -> str:
    return f"{time:%Y-%m-%d}" if time else "never"

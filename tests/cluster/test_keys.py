"""`rapt keys`: a key is shown once, and holds until it is revoked."""

import json
import re
from pathlib import Path

from serving.access.keys import read_keys, utc_now
from tests.cluster.test_command_line import rapt_run


def test_a_key_is_made_listed_and_revoked(tmp_path: Path) -> None:
    home = {"RAPT_HOME": str(tmp_path)}
    made = rapt_run("keys", "create", "school", "--scope", "score", "--scope", "jobs", "--expires", "90d", "--rate", "5", **home)
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    assert re.fullmatch(r"rapt_[0-9a-f]{12}_[0-9a-f]{64}", key)
    assert "not shown again" in made.stderr
    record = read_keys(tmp_path / "keys.json").find(key)
    assert record is not None
    assert (record.scopes, record.rate_per_minute, record.concurrency, record.max_mib) == (("score", "jobs"), 5, 4, 100)
    assert record.expires_at is not None
    assert (record.expires_at - record.created_at).days == 90
    listed = rapt_run("keys", "list", **home).stdout
    assert record.id in listed
    assert key.rpartition("_")[2] not in listed
    assert rapt_run("keys", "revoke", "school", **home).stdout == f"'school' ({record.id}) is revoked\n"
    (shown,) = json.loads(rapt_run("keys", "list", "--json", **home).stdout)["keys"]
    assert (shown["name"], shown["state"]) == ("school", "revoked")
    assert "secret_sha256" not in shown


def test_a_program_gets_the_key_as_json(tmp_path: Path) -> None:
    made = json.loads(rapt_run("keys", "create", "ci", "--json", RAPT_HOME=str(tmp_path)).stdout)
    record = read_keys(tmp_path / "keys.json").find(made["key"])
    assert record is not None
    assert (made["id"], made["name"], made["state"], made["expires_at"]) == (record.id, "ci", "valid", None)
    assert record.state(utc_now()) == "valid"


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    home = {"RAPT_HOME": str(tmp_path)}
    assert "no keys yet" in rapt_run("keys", "list", **home).stdout
    for arguments, sentence in (
        (("create", "a b"), "'a b': no name for a key"),
        (("create", "a", "--expires", "soon"), "'soon' is no span of time; write e.g. 90d"),
        (("revoke", "nobody"), "no key 'nobody' that could be revoked; there are: none"),
    ):
        run = rapt_run("keys", *arguments, **home)
        assert run.returncode != 0
        assert sentence in run.stderr
        assert "Traceback" not in run.stderr

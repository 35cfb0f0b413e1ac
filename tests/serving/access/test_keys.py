"""API keys: what is stored of them, who is let in, and when no more."""

import hashlib
import re
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from data_shards.errors import ConfigError
from serving.access.keys import Keyring, create_key, read_keys, revoke_key
from tests.conftest import ROOT

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_a_key_is_found_and_any_other_text_is_not(path: Path) -> None:
    record, key = create_key(path, "school", now=NOW)
    keys = read_keys(path)
    assert re.fullmatch(r"rapt_[0-9a-f]{12}_[0-9a-f]{64}", key)
    assert keys.find(key) == record
    other = create_key(path, "other", now=NOW)[1]
    mixed = f"rapt_{record.id}_{other.rpartition('_')[2]}"
    for wrong in ("", key[:-1], key + "0", key.upper(), f" {key}", mixed, f"rapt_{'0' * 12}_{'0' * 64}", "rapt_é_é", key + "\n"):
        assert keys.find(wrong) is None


def test_only_a_digest_of_the_secret_is_stored_and_nobody_else_may_read_it(path: Path) -> None:
    record, key = create_key(path, "school", now=NOW)
    secret = key.rpartition("_")[2]
    assert secret not in path.read_text()
    assert record.secret_sha256 == hashlib.sha256(secret.encode()).hexdigest()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    revoke_key(path, "school", now=NOW)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir() if "partial" in each.name] == []


def test_a_key_ends_when_it_expires_and_when_it_is_revoked(path: Path) -> None:
    record, _ = create_key(path, "school", now=NOW, expires_at=NOW + timedelta(days=1))
    assert record.state(NOW + timedelta(hours=23)) == "valid"
    assert record.state(NOW + timedelta(days=1)) == "expired"
    assert revoke_key(path, record.id, now=NOW).state(NOW) == "revoked"
    with pytest.raises(ConfigError, match="no key 'school' that could be revoked; there are: none"):
        revoke_key(path, "school", now=NOW)


def test_a_name_is_free_again_once_its_key_ended(path: Path) -> None:
    create_key(path, "school", now=NOW, expires_at=NOW + timedelta(days=1))
    with pytest.raises(ConfigError, match="a key named 'school' is in use"):
        create_key(path, "school", now=NOW)
    create_key(path, "school", now=NOW + timedelta(days=1))
    assert len(read_keys(path).keys) == 2


@pytest.mark.parametrize("name", ["", " ", "a b", "../x", "a\n", "x" * 65, "-x"])
def test_a_name_that_could_be_mistaken_is_refused(path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="no name for a key"):
        create_key(path, name, now=NOW)


def test_keys_that_are_made_at_the_same_time_are_all_there(path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from serving.access.keys import *\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "for number in range(10): create_key(Path(sys.argv[1]), f'{sys.argv[2]}{number}', now=utc_now())"
    )
    command = [sys.executable, "-c", program, str(path)]
    makers = [
        subprocess.Popen([*command, name], cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for name in "ab"
    ]
    for maker in makers:
        assert maker.stdout is not None
        maker.stdout.readline()
    for maker in makers:
        assert maker.stdin is not None
        maker.stdin.close()  # now both begin
    assert [maker.wait() for maker in makers] == [0, 0]
    assert len(read_keys(path).keys) == 20


def test_a_running_service_sees_new_and_revoked_keys_at_once(path: Path) -> None:
    keyring = Keyring(path, required=False)
    assert not keyring.required
    record, key = create_key(path, "school", now=NOW)
    assert keyring.required
    assert keyring.find(key) == record
    revoke_key(path, "school", now=NOW)
    assert keyring.required
    revoked = keyring.find(key)
    assert revoked is not None
    assert revoked.state(NOW) == "revoked"


def test_of_one_name_the_key_in_use_is_revoked_and_not_one_that_has_expired(path: Path) -> None:
    create_key(path, "school", now=NOW, expires_at=NOW + timedelta(hours=1))
    later = NOW + timedelta(hours=2)
    used, key = create_key(path, "school", now=later)
    assert revoke_key(path, "school", now=later).id == used.id
    found = read_keys(path).find(key)
    assert found is not None
    assert found.state(later) == "revoked"


def test_a_service_that_wanted_keys_stays_closed_when_their_file_vanishes(path: Path) -> None:
    _, key = create_key(path, "school", now=NOW)
    keyring = Keyring(path, required=False)
    path.unlink()
    assert keyring.required
    assert keyring.find(key) is None


def test_a_damaged_keys_file_is_named_and_lets_nobody_in(path: Path) -> None:
    create_key(path, "school", now=NOW)
    keyring = Keyring(path, required=False)
    path.write_text('{"keys": 3}')
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"keys\.json: no keys file .*put its last copy back"):
            _ = keyring.required
    with pytest.raises(ConfigError, match="no keys file"):
        Keyring(path, required=False)

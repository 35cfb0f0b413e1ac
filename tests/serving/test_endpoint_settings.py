"""What an endpoint refuses before it starts: settings, certificates and exposure."""

import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from cluster.command_line import rapt
from data_shards.errors import ConfigError
from serving.replicas.endpoint_settings import EndpointSettings, TlsFiles, check_exposure
from tests.serving.certificate import make_certificate


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """cert.pem with key.pem, and other.pem, the key of another."""
    folder = tmp_path_factory.mktemp("pems")
    make_certificate(folder)
    other, _ = make_certificate(folder / "other")
    other.rename(folder / "other.pem")
    return folder


def test_a_certificate_with_its_key_is_taken_and_its_group_may_read_it(pems: Path) -> None:
    assert TlsFiles(pems / "cert.pem", pems / "key.pem").key == pems / "key.pem"
    (pems / "key.pem").chmod(0o640)
    TlsFiles(pems / "cert.pem", pems / "key.pem")
    (pems / "key.pem").chmod(0o644)
    with pytest.raises(ConfigError, match=r"every user of this machine can read the key; take that away with chmod 600"):
        TlsFiles(pems / "cert.pem", pems / "key.pem")
    (pems / "key.pem").chmod(0o600)


@pytest.mark.parametrize(("cert", "key"), [("cert.pem", "other.pem"), ("key.pem", "key.pem")])
def test_what_does_not_belong_together_is_refused(pems: Path, cert: str, key: str) -> None:
    with pytest.raises(ConfigError, match="no certificate with its unencrypted key"):
        TlsFiles(pems / cert, pems / key)
    with pytest.raises(ConfigError, match=r"missing\.pem: cannot be read"):
        TlsFiles(pems / "missing.pem", pems / key)


def test_a_key_with_a_password_is_refused_and_nothing_asks_for_it(pems: Path) -> None:
    locked = ["openssl", "pkey", "-aes256", "-passout", "pass:secret", "-in", "key.pem", "-out", "locked.pem"]
    subprocess.run(locked, cwd=pems, check=True, capture_output=True)
    with pytest.raises(ConfigError, match="no certificate with its unencrypted key"):
        TlsFiles(pems / "cert.pem", pems / "locked.pem")


def test_the_longest_upload_is_that_of_the_largest_body_that_is_taken(tmp_path: Path) -> None:
    assert EndpointSettings().longest_upload_s == 100 * 1024 / 256
    assert EndpointSettings(jobs_folder=tmp_path).longest_upload_s == 4096 * 1024 / 256


def test_plain_http_beyond_loopback_must_be_said(pems: Path) -> None:
    for host in ("127.0.0.1", "localhost", "::1"):
        check_exposure(host, None, insecure=False)
    with pytest.raises(ConfigError, match=r"--host 0\.0\.0\.0: clips and keys would cross the network unencrypted"):
        check_exposure("0.0.0.0", None, insecure=False)
    check_exposure("0.0.0.0", None, insecure=True)
    check_exposure("0.0.0.0", TlsFiles(pems / "cert.pem", pems / "key.pem"), insecure=False)


def test_the_command_refuses_before_anything_starts(tiny_bundle: Path, pems: Path) -> None:
    for words, reason in (
        (["--host", "0.0.0.0"], "--insecure"),
        (["--tls-cert", str(pems / "cert.pem")], "belong together"),
    ):
        result = CliRunner().invoke(rapt, ["serve", str(tiny_bundle), *words])
        assert isinstance(result.exception, ConfigError)
        assert reason in str(result.exception)


def test_an_applications_args_are_settings_as_text() -> None:
    settings = EndpointSettings.from_arguments({"model": "m", "watch_s": "2.5", "batch_size": "4", "allow_emotion": "true"})
    assert (settings.watch_s, settings.batch_size, settings.allow_emotion) == (2.5, 4, True)
    for arguments, reason in (({"batch_size": "0"}, "batch_size"), ({"batch": "4"}, "batch"), ({"shadow_share": "2"}, "share")):
        with pytest.raises(ConfigError, match=reason):
            EndpointSettings.from_arguments(arguments)

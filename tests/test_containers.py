"""What can be known of the Dockerfile and the Kubernetes manifests without a container daemon and without a cluster."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from typing import Any

import click
import pytest
import yaml

from cluster.command_line import rapt
from data_shards.errors import ConfigError, ServiceError
from serving.confined.decode_child import LONGEST_S
from serving.replicas.endpoint_settings import EndpointSettings
from serving.service import build_service
from tests.conftest import ROOT
from training.config import stages_with_settings
from training.recipes import stages

DOCKERFILE = ROOT / "infra/containers/Dockerfile"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
MANIFESTS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((ROOT / "infra/kubernetes").glob("*.yaml"))}


def instructions() -> Iterator[tuple[str, str]]:
    """The Dockerfile's instructions in order, continued lines joined."""
    text = re.sub(r"\\\n", " ", DOCKERFILE.read_text())
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, rest = line.strip().partition(" ")
            yield name, rest.strip()


def targets() -> dict[str, list[tuple[str, str]]]:
    """Each stage's name and its instructions, those of the stage it is made from before its own."""
    found: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for instruction, rest in instructions():
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = list(found.get(base, [("FROM", base)]))
        elif name:
            found[name].append((instruction, rest))
    return found


@pytest.mark.parametrize("target", ["cpu", "cuda", "serving"])
def test_an_image_runs_as_nobody_in_particular_from_pinned_parts(target: str) -> None:
    made = targets()[target]
    base = made[0][1]
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base)
    assert [rest for name, rest in made if name == "USER"] == ["1000"]
    after_user = made[made.index(("USER", "1000")) :]
    assert "RUN" not in {name for name, _ in after_user}
    installs = [rest for name, rest in made if name == "RUN" and "pip install" in rest]
    assert len(installs) == 2
    assert all("-c constraints.txt" in install or "--no-deps" in install for install in installs)


def test_the_image_of_a_cpu_takes_the_torch_that_is_pinned() -> None:
    assert f"torch=={PINS['torch']}+cpu" in DOCKERFILE.read_text()


def test_the_serving_image_asks_the_endpoint_whether_it_is_ready() -> None:
    made = dict(targets()["serving"])
    assert "/readyz" in made["HEALTHCHECK"]
    command = yaml.safe_load(made["CMD"].partition("CMD ")[2] or made["CMD"])
    assert parsed(["rapt", *command])["host"] == "0.0.0.0"
    assert f":{parsed(['rapt', *command])['port']}/readyz" in made["HEALTHCHECK"]


def test_everything_that_is_copied_is_there_and_reaches_the_build() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split("\n")
    assert "*" in ignored
    sources = {source for name, rest in instructions() if name == "COPY" for source in rest.split()[:-1]}
    assert {"cluster", "data_shards", "serving", "training"} <= sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignored, source
    assert {line[1:] for line in ignored if line.startswith("!")} == sources


def test_the_names_of_images_are_those_of_this_version() -> None:
    built = set(re.findall(r"-t rapt:(\S+)", DOCKERFILE.read_text()))
    used = {container["image"] for pod in pods() for container in pod["containers"]}
    assert built == {f"{VERSION}-{target}" for target in ("cpu", "cuda", "serving")}
    assert used == {f"registry.example.org/rapt:{VERSION}-{target}" for target in ("cpu", "cuda")}


def parsed(words: list[str]) -> dict[str, Any]:
    """A command line as the program reads it, without running it. click.ClickException where it is none."""
    assert words[0] == "rapt"
    group: click.Command = rapt
    rest = words[1:]
    context = click.Context(rapt)
    while isinstance(group, click.Group):
        _, command, rest = group.resolve_command(context, rest)
        assert command is not None
        context = click.Context(command, parent=context)
        group = command
    return group.make_context(group.name, list(rest)).params


def clusters() -> Iterator[dict[str, Any]]:
    yield MANIFESTS["raycluster"]["spec"]
    yield MANIFESTS["rayjob"]["spec"]["rayClusterSpec"]
    yield MANIFESTS["rayservice"]["spec"]["rayClusterConfig"]


def pods() -> Iterator[dict[str, Any]]:
    for cluster in clusters():
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            yield group["template"]["spec"]


def test_the_clusters_run_the_ray_that_is_pinned_and_ask_for_a_token() -> None:
    for cluster in clusters():
        assert cluster["rayVersion"] == PINS["ray"]
        assert cluster["authOptions"] == {"mode": "token", "secretName": "rapt-ray-token"}
        for group in cluster["workerGroupSpecs"]:
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_no_pod_is_root_or_holds_a_secret_itself() -> None:
    for pod in pods():
        assert (pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["runAsUser"]) == (True, 1000)
        assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == MANIFESTS["state"]["metadata"]["name"]
        for container in pod["containers"]:
            assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
            assert [source["secretRef"]["name"] for source in container["envFrom"]] == ["rapt-s3", "rapt-mlflow"]
            assert {variable["name"] for variable in container["env"]} == {"RAPT_HOME", "RAY_USAGE_STATS_ENABLED"}
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted == {volume["name"] for volume in pod["volumes"]}
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])


def test_a_training_pod_has_the_time_that_its_checkpoint_takes() -> None:
    training = [pod for pod in pods() if "nvidia.com/gpu" in pod["containers"][0]["resources"]["limits"]]
    assert len(training) == 2
    for pod in training:
        told = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1]
        waited_s = re.search(r"seq (\d+)", told)
        assert waited_s
        assert int(waited_s[1]) < pod["terminationGracePeriodSeconds"]
        assert "pkill -TERM" in told


def test_the_variables_of_the_manifests_are_ones_that_the_code_reads() -> None:
    code = "".join(
        path.read_text()
        for package in ("cluster", "data_shards", "serving", "training")
        for path in (ROOT / package).rglob("*.py")
    )
    text = "".join(path.read_text() for path in (DOCKERFILE, *(ROOT / "infra/kubernetes").glob("*.yaml")))
    names = set(re.findall(r"\bRAPT_[A-Z_]+", text))
    assert names >= {"RAPT_HOME", "RAPT_COMMIT"}
    assert [name for name in names if f'"{name}"' not in code] == []


def test_the_job_is_a_run_that_rapt_would_start() -> None:
    job = MANIFESTS["rayjob"]["spec"]
    options = parsed(shlex.split(job["entrypoint"]))
    runs = stages_with_settings(stages(options["recipe"]), options["settings"])
    assert runs[-1].loop.microbatch_for(options["workers"].fewest) > 0
    (group,) = job["rayClusterSpec"]["workerGroupSpecs"]
    gpus = int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
    assert group["minReplicas"] * gpus >= options["workers"].most * options["gpus_per_worker"]


def test_the_service_is_one_that_ray_serve_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.serve.schema import ServeDeploySchema

    config = ServeDeploySchema.model_validate(yaml.safe_load(MANIFESTS["rayservice"]["spec"]["serveConfigV2"]))
    (application,) = config.applications
    assert application.import_path == f"{build_service.__module__}:{build_service.__name__}"
    with pytest.raises(ServiceError, match="no MLFLOW_TRACKING_URI"):
        build_service(application.args)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    built = build_service(application.args)
    others = [argument._bound_deployment.name for argument in built._bound_deployment.init_args[:2]]
    assert {deployment.name for deployment in application.deployments} == {built._bound_deployment.name, *others}
    with pytest.raises(ConfigError, match="args: batch_sise"):
        build_service({**application.args, "batch_sise": "4"})
    settings = EndpointSettings.from_arguments(application.args)
    assert settings.app.require_keys, "it listens beyond loopback"
    assert config.http_options.request_timeout_s == settings.longest_upload_s + LONGEST_S + 10
    ports = {port["name"]: port["containerPort"] for pod in pods() for port in pod["containers"][0].get("ports", ())}
    assert ports == {"gcs": 6379, "dashboard": 8265, "client": 10001, "serve": config.http_options.port}

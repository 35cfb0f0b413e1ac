"""DeepSpeed's configuration follows from the run alone; what it cannot do is refused in one sentence."""

import subprocess
import sys

import pytest

from cluster.deepspeed_config import deepspeed_config
from cluster.strategies import engine_for
from data_shards.errors import ConfigError
from tests.conftest import ROOT
from training.config import RunConfig, with_settings
from training.engine import TorchEngine


def zero(run: RunConfig, *settings: str) -> RunConfig:
    return with_settings(run, ["loop.strategy=deepspeed-zero2", *settings])


def test_it_is_pure_and_the_whole_of_it_is_known(tiny_run: RunConfig) -> None:
    run = zero(tiny_run, "loop.microbatch=2")
    assert deepspeed_config(run, 2) == deepspeed_config(run, 2)
    assert deepspeed_config(run, 2) == {
        "train_batch_size": 8,
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": 2,
        "gradient_clipping": 1.0,
        "communication_data_type": "fp32",
        "data_types": {"grad_accum_dtype": "fp32"},
        "fp16": {"enabled": False},
        "bf16": {"enabled": False},
        "torch_autocast": {"enabled": False, "dtype": "bfloat16", "lower_precision_safe_modules": []},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {
            "stage": 2,
            "reduce_bucket_size": 5_000_000,
            "allgather_bucket_size": 5_000_000,
            "overlap_comm": False,
        },
    }


@pytest.mark.parametrize(
    ("setting", "place", "value"),
    [
        ("loop.strategy=deepspeed-zero1", ("zero_optimization", "stage"), 1),
        ("loop.strategy=deepspeed-zero3", ("zero_optimization", "stage"), 3),
        ("loop.precision=bf16", ("torch_autocast", "enabled"), True),
        ("optimiser.clip_norm=0", ("gradient_clipping",), 0.0),
        ("loop.global_batch=32", ("gradient_accumulation_steps",), 1),
        ("loop.microbatch=1", ("gradient_accumulation_steps",), 2),
        ("loop.offload=optimiser", ("zero_optimization", "offload_optimizer", "device"), "cpu"),
    ],
)
def test_a_setting_lands_where_it_should(tiny_run: RunConfig, setting: str, place: tuple[str, ...], value: object) -> None:
    found: object = deepspeed_config(zero(tiny_run, setting), 4)
    for name in place:
        assert isinstance(found, dict)
        found = found[name]
    assert found == value


def test_zero_3_can_keep_weights_in_the_hosts_memory(tiny_run: RunConfig) -> None:
    run = with_settings(tiny_run, ["loop.strategy=deepspeed-zero3", "loop.offload=all"])
    made = deepspeed_config(run, 2, kept_whole=7)["zero_optimization"]
    assert (made["offload_param"], made["offload_optimizer"]) == ({"device": "cpu"}, {"device": "cpu"})
    assert made["stage3_param_persistence_threshold"] == 7


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["loop.offload=optimiser"], r"offload is DeepSpeed's; set loop.strategy=deepspeed-zero2"),
        (["loop.strategy=deepspeed-zero2", "loop.offload=all"], r"weights can be offloaded by deepspeed-zero3 alone; set"),
        (["loop.strategy=deepspeed-zero1", "loop.precision=fp64"], r"DeepSpeed keeps its weights in float32; set"),
        (["loop.strategy=deepspeed-zero3", "loop.compile=true"], r"torch.compile needs whole weights; set loop.compile=false"),
        (["loop.strategy=zero2"], r"loop.strategy: Input should be 'ddp', 'deepspeed-zero1'"),
    ],
)
def test_what_cannot_be_is_refused(tiny_run: RunConfig, settings: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        with_settings(tiny_run, settings)


def test_a_batch_that_cannot_be_shared_and_a_strategy_of_torch_are_refused(tiny_run: RunConfig) -> None:
    with pytest.raises(ConfigError, match="which 3 workers cannot share evenly"):
        deepspeed_config(zero(tiny_run), 3)
    with pytest.raises(ConfigError, match=r"loop\.strategy is ddp, which is not DeepSpeed's"):
        deepspeed_config(tiny_run, 2)


def test_ddp_needs_no_deepspeed_and_zero_says_where_it_is_missing(tiny_run: RunConfig) -> None:
    assert engine_for(tiny_run) is TorchEngine
    program = """
import sys
from importlib.machinery import PathFinder
class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, *rest):
        return None if name == "deepspeed" else PathFinder.find_spec(name, *rest)
sys.meta_path = [Without if finder is PathFinder else finder for finder in sys.meta_path]
from cluster.strategies import engine_for
from data_shards.errors import ConfigError
from training.config import with_settings
from training.recipes import recipe
try:
    engine_for(with_settings(recipe("demo"), ["loop.strategy=deepspeed-zero1"]))
except ConfigError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == (
        "loop.strategy is deepspeed-zero1, and DeepSpeed is not installed here; run `pip install deepspeed==0.19.8`, "
        "or set loop.strategy=ddp\n"
    ), done.stderr

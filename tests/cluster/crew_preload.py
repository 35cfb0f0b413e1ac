"""What workers of a crew have imported before they are forked: DeepSpeed alone takes seconds."""

import os

os.environ["DS_ACCELERATOR"] = "cpu"

import deepspeed  # noqa: F401

import cluster.deepspeed_engine  # noqa: F401
import training.loop  # noqa: F401

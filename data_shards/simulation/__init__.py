"""Labelled, webcam-like clips of drawn people, made from a seed.

They stand in for recordings that cannot be shipped: a set has pictures, sound, OpenFace features,
transcripts and the behaviour behind them, and some of its levels of engagement differ only over time. Every
file says that it is simulated.
"""

from data_shards.simulation.generate import generate
from data_shards.simulation.settings import SimulationSettings

__all__ = ["SimulationSettings", "generate"]

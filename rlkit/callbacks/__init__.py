"""Callbacks for RLlib's new API stack. Each works from a recipe and in anyone's own script.

    from rlkit.callbacks import RewardScale
    config = PPOConfig().callbacks([RewardScale.bind(scale=0.01)])

docs/callbacks.md explains the hooks and what each receives.
"""

from rlkit.callbacks.base import Bound, Callback, CallbackError
from rlkit.callbacks.best_checkpoint import BestCheckpoint
from rlkit.callbacks.episode_statistics import EpisodeStatistics
from rlkit.callbacks.gif import EpisodeGif
from rlkit.callbacks.guard import NumericsGuard
from rlkit.callbacks.hindsight import HindsightRelabel
from rlkit.callbacks.histograms import Histograms
from rlkit.callbacks.merge_agents import MergeAgentObservations
from rlkit.callbacks.postprocess import TrajectoryPostprocessor
from rlkit.callbacks.rewards import MonteCarloReturns, RewardScale, RewardShaping
from rlkit.callbacks.stopping import StopOnPlateau, TimeLimit
from rlkit.callbacks.throughput import Throughput
from rlkit.callbacks.trajectory import Aligned, Trajectory

__all__ = [
    "Aligned",
    "BestCheckpoint",
    "Bound",
    "Callback",
    "CallbackError",
    "EpisodeGif",
    "EpisodeStatistics",
    "HindsightRelabel",
    "Histograms",
    "MergeAgentObservations",
    "MonteCarloReturns",
    "NumericsGuard",
    "RewardScale",
    "RewardShaping",
    "StopOnPlateau",
    "Throughput",
    "TimeLimit",
    "Trajectory",
    "TrajectoryPostprocessor",
]

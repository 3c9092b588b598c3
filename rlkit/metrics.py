"""Tidy metric names, and where RLlib keeps each of them (one table for stop, checkpoint, tune, metrics.csv, plots).

RLlib nests its results and renames them between versions (#45547, #49138, #47865); recipes and files of rlkit use
the names below only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

# tidy name -> path in RLlib's result dict, joined by "/"
PATHS: dict[str, str] = {
    "iteration": "training_iteration",
    "env_steps": "num_env_steps_sampled_lifetime",
    "agent_steps": "env_runners/num_agent_steps_sampled_lifetime",
    "time_s": "time_total_s",
    "steps_per_s": "num_env_steps_sampled_lifetime_throughput",
    "episode_return": "env_runners/episode_return_mean",
    "episode_length": "env_runners/episode_len_mean",
    "eval/episode_return": "evaluation/env_runners/episode_return_mean",
    "eval/episode_length": "evaluation/env_runners/episode_len_mean",
}

# tidy prefix -> RLlib path prefix, for names that depend on the agents and modules of a run
FAMILIES: dict[str, str] = {
    "return/": "env_runners/agent_episode_returns_mean/",
    "eval/return/": "evaluation/env_runners/agent_episode_returns_mean/",
    "loss/": "learners/",
    "curriculum/": "env_runners/curriculum/",
}

"""What callbacks cost an env runner: CPU time of `sample()` on CartPole with 32 environments.

    python benchmarks/callback_cost.py

Bars: an empty callback under 2 %, a postprocessor under 10 %. The difference of two noisy runs could not
tell 1 %, so both are measured directly. A postprocessor: the time inside its `on_sample_end` against the
rest of the same `sample()`. Hooks per step: RLlib's `make_callback` with the arguments of a real step, with
the callback and without, 20,000 times each, against the runner's time per step.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.callbacks.utils import make_callback
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from rlkit import rllib
from rlkit.callbacks import (
    Callback,
    EpisodeStatistics,
    MonteCarloReturns,
    RewardScale,
    RewardShaping,
    TrajectoryPostprocessor,
)

ENVS, STEPS, ROUNDS, CALLS = 32, 6400, 7, 20_000


class Empty(Callback):
    """Overrides every hook of an env runner and does nothing."""

    def on_episode_created(self, **kwargs: Any) -> None: ...

    def on_episode_start(self, **kwargs: Any) -> None: ...

    def on_episode_step(self, **kwargs: Any) -> None: ...

    def on_episode_end(self, **kwargs: Any) -> None: ...

    def on_sample_end(self, **kwargs: Any) -> None: ...


class Timed(RLlibCallback):
    """Adds up the CPU time of another callback's `on_sample_end`; keeps the arguments of the last step."""

    def __init__(self, inner: Any):
        self.inner, self.seconds = inner, 0.0
        self.step: dict[str, Any] = {}

    def on_episode_step(self, **kwargs: Any) -> None:
        self.step = kwargs

    def on_sample_end(self, **kwargs: Any) -> None:
        start = time.thread_time()
        self.inner.on_sample_end(**kwargs)
        self.seconds += time.thread_time() - start


def runner_with(callback: Any, fragment: int) -> tuple[SingleAgentEnvRunner, Timed]:
    config = PPOConfig().environment("CartPole-v1").debugging(seed=0)
    config.env_runners(num_envs_per_env_runner=ENVS, rollout_fragment_length=fragment, num_env_runners=0)
    config.rl_module(model_config={"fcnet_hiddens": [64, 64]})
    runner, timed = SingleAgentEnvRunner(config=config), Timed(callback)
    rllib.runner_callbacks(runner)[:] = [timed]
    runner.sample()
    return runner, timed


def sampling(callback: Any, fragment: int) -> tuple[float, float]:
    """Return µs per env step: inside `on_sample_end`, and of the rest of the runner. Medians."""
    runner, timed = runner_with(callback, fragment)
    insides, owns = [], []
    for _ in range(ROUNDS):
        timed.seconds, steps, start = 0.0, 0, time.thread_time()
        while steps < STEPS:
            steps += sum(len(episode) for episode in runner.sample())
        runner.get_metrics()
        total = time.thread_time() - start
        insides.append(timed.seconds / steps * 1e6)
        owns.append((total - timed.seconds) / steps * 1e6)
    return statistics.median(insides), statistics.median(owns)


def stepping(callback: Any) -> float:
    """Return µs that `on_episode_step` adds to one env step. Median."""
    _, timed = runner_with(Empty(), 8)
    timed.step["episode"].add_env_step(
        observation=timed.step["episode"].get_observations(-1), action=0, reward=0.0
    )
    callback.on_episode_start(**timed.step)
    differences = []
    for _ in range(ROUNDS):
        took = []
        for callbacks in ([callback], []):
            start = time.thread_time()
            for _ in range(CALLS):
                make_callback("on_episode_step", callbacks_objects=callbacks, kwargs=timed.step)
            took.append(time.thread_time() - start)
        differences.append((took[0] - took[1]) / CALLS * 1e6)
    return statistics.median(differences)


def main() -> int:
    torch.set_num_threads(1)
    print(f"CartPole-v1, {ENVS} environments, CPU time, medians of {ROUNDS} rounds\n")
    print("| callback | fragment | µs per env step | runner's own | share | bar |")
    print("|---|---|---|---|---|---|")
    rows: list[tuple[str, Any, int, float | None]] = [("empty, every hook", Empty, 64, 0.02)]
    rows.append(("EpisodeStatistics", EpisodeStatistics, 64, None))
    for fragment in (1, 16, 64, 200):
        rows.append(("RewardScale", RewardScale.bind(scale=0.1), fragment, None if fragment == 1 else 0.10))
    rows.append(("RewardShaping", RewardShaping.bind(weights=[0, 0, -1, 0]), 64, 0.10))
    rows.append(("MonteCarloReturns, whole episodes", MonteCarloReturns.bind(), 64, 0.10))
    failed = 0
    for name, make, fragment, bar in rows:
        inside, own = sampling(make(), fragment)
        if not isinstance(make(), TrajectoryPostprocessor):
            inside += stepping(make())
        failed += bar is not None and inside > bar * own
        shown = "" if bar is None else f"{bar:.0%}"
        print(
            f"| {name} | {fragment} | {inside:.2f} | {own:.1f} | {inside / own:.1%} | {shown} |", flush=True
        )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())

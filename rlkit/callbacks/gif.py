"""A GIF of what the current policy does, every few iterations."""

from __future__ import annotations

from typing import Any

import numpy as np
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from rlkit import rllib
from rlkit.callbacks.base import Callback


class EpisodeGif(Callback):
    """Every `every` iterations, plays one episode greedily in the driver and writes it as a GIF.

    The environment is made anew with `render_mode="rgb_array"` among its arguments. Files are
    `gifs/iteration_000010.gif` in the algorithm's log folder (a trial's folder in a recipe's run).

    Args:
        every: iterations between two films.
        folder: where; default see above.
        fps: frames per second.
        max_steps: longest film.
        explore: act with exploration instead.
        seed: of the environment; the same start in every film.
    """

    def __init__(
        self,
        every: int = 10,
        folder: str | None = None,
        fps: int = 30,
        max_steps: int = 1000,
        explore: bool = False,
        seed: int = 0,
    ):
        for name, value in (("every", every), ("fps", fps), ("max_steps", max_steps)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.every, self.folder, self.fps, self.max_steps = every, folder, fps, max_steps
        self.explore, self.seed = explore, seed

    def on_train_result(
        self, *, result: dict, algorithm: Any, metrics_logger: Any = None, **kwargs: Any
    ) -> None:
        iteration = result["training_iteration"]
        if iteration % self.every:
            return
        import imageio

        frames = film(algorithm, self.max_steps, self.explore, self.seed)
        folder = rllib.log_folder(algorithm, self.folder, "gifs")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"iteration_{iteration:06d}.gif"
        imageio.mimsave(path, list(frames), duration=1000 / self.fps, loop=0)
        result["gif"] = str(path)


class FrameCollector(RLlibCallback):
    """Collects a frame after the reset and after every step of the first sub-environment."""

    def __init__(self) -> None:
        self.frames: list[np.ndarray] = []

    def on_episode_start(self, *, env: Any, **kwargs: Any) -> None:
        self._take(env)

    def on_episode_step(self, *, env: Any, **kwargs: Any) -> None:
        self._take(env)

    def _take(self, env: Any) -> None:
        frame = env.envs[0].render()
        if not isinstance(frame, np.ndarray):
            raise ValueError(
                f"render() returned {type(frame).__name__}, expected an image from render_mode rgb_array"
            )
        self.frames.append(frame)


def film(algorithm: Any, max_steps: int, explore: bool, seed: int) -> list[np.ndarray]:
    """Play at most one episode with the algorithm's current weights and connectors; return the frames."""
    trained = algorithm.config
    config = trained.copy(copy_frozen=False)
    config.env_runners(num_env_runners=0, num_envs_per_env_runner=1, gym_env_vectorize_mode="sync")
    config.environment(env_config={**trained.env_config, "render_mode": "rgb_array"})
    config.callbacks(FrameCollector)
    config.debugging(seed=seed)
    config.in_evaluation = True
    make = MultiAgentEnvRunner if trained.is_multi_agent else SingleAgentEnvRunner
    runner = make(config=config, worker_index=0)
    try:
        runner.set_state({"rl_module": algorithm.learner_group.get_weights()})
        if algorithm.env_runner is not None:
            runner.set_state(algorithm.env_runner.get_state(not_components="rl_module"))
        for step in range(max_steps):
            played = runner.sample(num_timesteps=1, explore=explore, force_reset=step == 0)
            if any(episode.is_done for episode in played):
                break
        frames: list[np.ndarray] = rllib.runner_callbacks(runner)[0].frames
        return frames[: max_steps + 1]
    finally:
        runner.stop()

"""RLlib's env runners, with the environment's own numbers: the runners of every algorithm that brings none of its own.

`EpisodeRunner` makes `EnvEpisode`s of environments with several agents and counts what the environment gave: the
length, returns and agent steps of an episode whatever its fragments, an agent step for each action. RLlib's
`MultiAgentEnvRunner` (2.60) sums over the episode objects it has returned, and counts observations as agent steps.

Both runners keep copies of the fragments that `on_episode_end` and the metrics look back on. RLlib keeps the very
objects that it returns; with a local runner the learner's connectors make each one step longer
(`AddOneTsToEpisodesAndTruncate`), and replay buffers append the next fragment to the last.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from rlkit import rllib
from rlkit.algos.sampling.episodes import EnvEpisode


class EpisodeRunner(MultiAgentEnvRunner):
    """RLlib's multi-agent runner for agents that come, go, take turns, or get rewards between their turns."""

    def __init__(self, config: Any, **kwargs: Any):
        self._over: list[EnvEpisode] = []  # since the last `get_metrics`
        super().__init__(config, **kwargs)

    def _new_episode(self, env_index: int, episodes: list[Any] | None = None) -> None:
        episodes = self._ongoing_episodes if episodes is None else episodes
        env = self.env.envs[env_index].unwrapped
        episodes[env_index] = EnvEpisode(
            observation_space={agent: env.get_observation_space(agent) for agent in env.possible_agents},
            action_space={agent: env.get_action_space(agent) for agent in env.possible_agents},
            agent_to_module_mapping_fn=self.config.policy_mapping_fn,
        )
        self._make_on_episode_callback("on_episode_created", env_index, episodes)

    def _sample(self, **kwargs: Any) -> list[Any]:
        samples: list[Any] = super()._sample(**kwargs)
        rllib.keep_chunks(self, samples)
        for episode in rllib.take_done_episodes(self):
            self._over.append(episode)
        return samples

    def _increase_sampled_metrics(self, num_steps: int, next_obs: Any, episode: Any) -> int:
        """RLlib counts `next_obs`: also agents that join, and those that only see the end."""
        steps: int = super()._increase_sampled_metrics(num_steps, episode.acted, episode)
        return steps

    def get_metrics(self) -> Any:
        for episode in self._over:
            modules: dict[str, float] = defaultdict(float)
            for agent, value in episode.returns.items():
                modules[episode.module_for(agent)] += value
            self._log_episode_metrics(
                episode.env_t,
                sum(episode.returns.values()),
                episode.seconds + episode.get_duration_s(),
                {str(agent): value for agent, value in episode.returns.items()},
                dict(modules),
                {str(agent): episode.steps.get(agent, 0) for agent in episode.returns},
            )
        self._over.clear()
        return super().get_metrics()


class SingleEpisodeRunner(SingleAgentEnvRunner):
    """RLlib's single-agent runner, whose metrics and `prev_episode_chunks` nobody changes afterwards."""

    def _sample(self, **kwargs: Any) -> list[Any]:
        samples: list[Any] = super()._sample(**kwargs)
        rllib.keep_chunks(self, samples)
        return samples


__all__ = ["EpisodeRunner", "SingleEpisodeRunner"]

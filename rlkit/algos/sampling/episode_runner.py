"""RLlib's env runners, with the environment's own numbers: the runners of every algorithm that brings none of its own.

`EpisodeRunner` makes `EnvEpisode`s of environments with several agents and counts what the environment gave: the
length, returns and agent steps of an episode whatever its fragments, an agent step for each action. RLlib's
`MultiAgentEnvRunner` (2.60) sums over the episode objects it has returned, and counts observations as agent steps.

Both runners keep copies of the fragments that `on_episode_end` and the metrics look back on. RLlib keeps the very
objects that it returns; with a local runner the learner's connectors make each one step longer
(`AddOneTsToEpisodesAndTruncate`), and replay buffers append the next fragment to the last.

Both send actions that lie in the environment's space (`connectors.repair`), and give the modules of runners and
learners the space that a module acts in (`rlkit.roster.module_space`).
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from rlkit import rllib
from rlkit.algos.sampling.connectors import repair
from rlkit.algos.sampling.normalise import learns
from rlkit.rllib.episodes import EnvEpisode
from rlkit.roster import module_space


def _spaces_of_modules(spaces: dict[str, tuple[Any, Any]]) -> dict[str, tuple[Any, Any]]:
    """Return what `get_spaces` of RLlib's runners says, with the spaces that modules act in."""
    own = (INPUT_ENV_SPACES, INPUT_ENV_SINGLE_SPACES)
    return {key: pair if key in own else (pair[0], module_space(pair[1])) for key, pair in spaces.items()}


class EpisodeRunner(rllib.EpisodesInside, MultiAgentEnvRunner):
    """RLlib's multi-agent runner for agents that come, go, take turns, or get rewards between their turns."""

    def __init__(self, config: Any, **kwargs: Any):
        self._over: list[EnvEpisode] = []  # since the last `get_metrics`
        super().__init__(config, **kwargs)
        repair(self.pipelines[1])

    def get_spaces(self) -> dict[str, tuple[Any, Any]]:
        return _spaces_of_modules(super().get_spaces())

    def new_episode(self, env: Any) -> EnvEpisode:
        return EnvEpisode(
            observation_space={agent: env.get_observation_space(agent) for agent in env.possible_agents},
            action_space={agent: env.get_action_space(agent) for agent in env.possible_agents},
            agent_to_module_mapping_fn=self.config.policy_mapping_fn,
        )

    def stepped(self, episode: EnvEpisode) -> list[Any]:
        return episode.acted

    def collect(self, **asked: Any) -> list[Any]:
        samples: list[Any] = self.collect_episodes(**asked)
        self.keep_chunks(samples)
        self._over += self.take_done_episodes()
        return samples

    def get_metrics(self) -> Any:
        over = []
        for episode in self._over:
            modules: dict[str, float] = defaultdict(float)
            for agent, value in episode.returns.items():
                modules[episode.module_for(agent)] += value
            over.append(
                (
                    episode.env_t,
                    sum(episode.returns.values()),
                    episode.seconds + episode.get_duration_s(),
                    {str(agent): value for agent, value in episode.returns.items()},
                    dict(modules),
                    {str(agent): episode.steps.get(agent, 0) for agent in episode.returns},
                )
            )
        self.log_episodes(over)
        self._over.clear()
        return super().get_metrics()


class SingleEpisodeRunner(rllib.RunnerInside, SingleAgentEnvRunner):
    """RLlib's single-agent runner, whose metrics and `prev_episode_chunks` nobody changes afterwards."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        repair(self.pipelines[1])
        if not self.config.in_evaluation:
            learns(self.pipelines[0], self.worker_index or 0)

    def get_spaces(self) -> dict[str, tuple[Any, Any]]:
        return _spaces_of_modules(super().get_spaces())

    def collect(self, **asked: Any) -> list[Any]:
        samples: list[Any] = self.collect_episodes(**asked)
        self.keep_chunks(samples)
        return samples


def default_runner(config: Any) -> type | None:
    """Return the env runner class of a config that names none; None where RLlib refuses."""
    if config.output:  # a class of its own that writes episodes, of one agent
        from ray.rllib.offline.offline_env_runner import OfflineSingleAgentEnvRunner

        return None if config.is_multi_agent else rllib.seeded(OfflineSingleAgentEnvRunner)
    return EpisodeRunner if config.is_multi_agent else SingleEpisodeRunner


__all__ = ["EpisodeRunner", "SingleEpisodeRunner", "default_runner"]

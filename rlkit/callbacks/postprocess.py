"""`on_postprocess_trajectory` for RLlib's new API stack: edit what the learner sees, not what is reported.

RLlib 2.60 keeps the sampled episode objects for its metrics, so rewards edited in place in `on_sample_end`
change the reported return: 3150 instead of 31.5 for rewards x100. Here every edited episode is a copy that
replaces the entry in `samples`. It goes to the learner, or into the replay buffer; the metrics keep the original.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from rlkit import rllib
from rlkit.callbacks.base import CallbackError, numbered_name
from rlkit.callbacks.episode_data import original
from rlkit.callbacks.switch import OffInEvaluation
from rlkit.callbacks.trajectory import Aligned, Trajectory, trajectories_of
from rlkit.callbacks.whole_episodes import WholeEpisodes
from rlkit.roster import matches

SCOPES = ("fragment", "episode")


class TrajectoryPostprocessor(OffInEvaluation):
    """Override `postprocess_trajectory`. Works on- and off-policy, with one or several agents, in every runner.

    Args of every subclass that passes them on:
        scope: `fragment` processes each piece as it is sampled; `episode` holds the pieces back until the
            episode ends and gives the learner whole episodes.
        agents: globs of the agents to process; default all.

    With several postprocessors each one sees what those before it in `config.callbacks` made. Evaluation is
    left alone. The edited return is logged beside RLlib's own as `env_runners/edited_return/<class name>`, that of a
    second one of the class as `<class name>_2`.
    """

    scope: str = "fragment"
    agents: list[str] | None = None
    env_runner: Any = None
    _edits_rewards = False
    _whole: WholeEpisodes
    _returns: dict[str, dict[Any, float]]

    def __new__(cls, *args: Any, **kwargs: Any) -> TrajectoryPostprocessor:
        made = super().__new__(cls)
        made._whole, made._returns = WholeEpisodes(), {}
        return made

    def __init__(self, scope: str = "fragment", agents: Sequence[str] | None = None):
        if scope not in SCOPES:
            raise ValueError(f"scope must be one of {', '.join(SCOPES)}, got {scope!r}")
        if isinstance(agents, str):
            raise ValueError(f"agents must be a list of globs, got {agents!r}; write [{agents!r}]")
        self.scope = scope
        self.agents = None if agents is None else list(agents)

    def postprocess_trajectory(
        self, trajectory: Trajectory, others: Mapping[Any, Aligned]
    ) -> Iterable[Trajectory] | None:
        """Edit one agent's trajectory in place; assign to `trajectory.columns[name]` to add a column.

        Args:
            trajectory: the agent's steps as arrays.
            others: the other agents of the same episode by id, aligned with this agent's steps.

        Returns:
            None, or further trajectories (`trajectory.copy()`, edited) that the learner gets as well. Only
            with a single agent: a joint row cannot hold steps that only one agent took.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define postprocess_trajectory")

    def on_sample_end(
        self, *, env_runner: Any, metrics_logger: Any, samples: list[Any], **kwargs: Any
    ) -> None:
        """Env runner, after each `sample()`: replace the episodes in `samples` by edited copies."""
        if env_runner.config.in_evaluation or not self._on:
            return
        self.env_runner = env_runner
        pieces = list(samples)
        if self.scope == "episode":
            ongoing = {episode.id_ for episode in rllib.ongoing_episodes(env_runner) if episode is not None}
            pieces = self._whole.add(pieces, ongoing)
        samples[:] = [edited for piece in pieces for edited in self._process(piece)]
        self._log(pieces, metrics_logger)

    def _process(self, episode: Any) -> Iterator[Any]:
        if isinstance(episode, SingleAgentEpisode):
            yield from self._process_single(episode)
        elif isinstance(episode, MultiAgentEpisode):
            yield self._process_multi(episode)
        else:
            raise TypeError(
                f"samples hold {type(episode).__name__}, expected RLlib's episodes; with a runner that "
                "writes columns of its own use RLlib's ordinary one (`sampling: episodes`)"
            )

    def _process_single(self, episode: SingleAgentEpisode) -> Iterator[SingleAgentEpisode]:
        if len(episode) == 0:
            yield episode
            return
        trajectory = Trajectory(episode, id=episode.id_, gamma=self.env_runner.config.gamma)
        extras = self._call(trajectory, {})
        yield self._finish(trajectory)
        for extra in extras:
            if not isinstance(extra, Trajectory):
                raise TypeError(
                    f"postprocess_trajectory returned {type(extra).__name__}, expected Trajectory objects"
                )
            yield self._finish(extra, count=False)

    def _process_multi(self, episode: MultiAgentEpisode) -> MultiAgentEpisode:
        config = self.env_runner.config
        modules = {sa.module_id for sa in episode.agent_episodes.values()}
        gamma = {m: config.get_config_for_module(m).gamma for m in modules}
        trajectories = trajectories_of(episode, gamma)
        edited = dict(episode.agent_episodes)
        for agent, trajectory in trajectories.items():
            if self.agents is not None and not matches(agent, self.agents):
                self._count(trajectory)
                continue
            if self._call(trajectory, Others(agent, trajectories)):
                raise ValueError(
                    f"further trajectories were returned for agent {agent!r}; "
                    "they are possible with a single agent only"
                )
            edited[agent] = self._finish(trajectory)
        if all(edited[agent] is sa for agent, sa in episode.agent_episodes.items()):
            return episode
        new = copy.copy(episode)
        new.agent_episodes = edited
        return new

    def _call(self, trajectory: Trajectory, others: Mapping[Any, Aligned]) -> list[Trajectory]:
        try:
            extras = self.postprocess_trajectory(trajectory, others)
            return [] if extras is None else list(extras)
        except Exception as error:
            raise self._error(trajectory, error) from error

    def _finish(self, trajectory: Trajectory, count: bool = True) -> SingleAgentEpisode:
        if count:
            self._count(trajectory)
        try:
            return trajectory.to_episode()
        except Exception as error:
            raise self._error(trajectory, error) from error

    def _error(self, trajectory: Trajectory, error: Exception) -> CallbackError:
        if isinstance(error, CallbackError):
            return error
        agent = f", agent {trajectory.agent!r}" if trajectory.agent is not None else ""
        end = trajectory.start + len(trajectory)
        where = f"episode {trajectory.id}{agent}, steps {trajectory.start} to {end}"
        return CallbackError(
            f"callback {type(self).__name__} failed in postprocess_trajectory ({where}): "
            f"{type(error).__name__}: {error}"
        )

    # the edited return, beside the environment's own

    def _count(self, trajectory: Trajectory) -> None:
        self._edits_rewards |= "rewards" in trajectory._edits
        returns = self._returns.setdefault(trajectory.id, {})
        rewards = trajectory._edits.get("rewards")
        total = _total(original(trajectory._episode.rewards) if rewards is None else rewards)
        returns[trajectory.agent] = returns.get(trajectory.agent, 0.0) + total

    def _log(self, pieces: Sequence[Any], metrics_logger: Any) -> None:
        for piece in pieces:
            if not piece.is_done:
                continue
            returns = self._returns.pop(piece.id_, None)
            if returns is None or not self._edits_rewards:
                continue
            name = numbered_name(self, rllib.runner_callbacks(self.env_runner))
            rllib.log_episode_mean(metrics_logger, ("edited_return", name), [sum(returns.values())])
            for agent, total in returns.items():
                if agent is not None:
                    by_agent = "edited_return_by_agent", name, str(agent)
                    rllib.log_episode_mean(metrics_logger, by_agent, [total])
        if len(self._returns) > 10_000:  # episodes cut off by forced resets never end
            self._returns.clear()


def _total(rewards: Any) -> float:
    try:
        return float(rewards.sum()) if isinstance(rewards, np.ndarray) else float(np.sum(rewards))
    except (TypeError, ValueError):
        return 0.0  # `to_episode` reports what is wrong with it


class Others(Mapping[Any, Aligned]):
    """The other agents of an episode by id, each aligned when it is asked for."""

    def __init__(self, agent: Any, trajectories: Mapping[Any, Trajectory]):
        self._own = trajectories[agent]
        self._trajectories = {other: t for other, t in trajectories.items() if other != agent}
        self._aligned: dict[Any, Aligned] = {}

    def __getitem__(self, agent: Any) -> Aligned:
        if agent not in self._aligned:
            steps = np.append(self._own.env_steps, self._own.last_env_step)
            self._aligned[agent] = Aligned(self._trajectories[agent], steps)
        return self._aligned[agent]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._trajectories)

    def __len__(self) -> int:
        return len(self._trajectories)

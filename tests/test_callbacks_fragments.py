"""Fragments of one episode, cut anywhere, join into the episode they were cut from."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from rlkit.callbacks.episode_data import env_steps_of
from rlkit.callbacks.trajectory import Trajectory, trajectories_of
from rlkit.callbacks.whole_episodes import WholeEpisodes

SPACE = gym.spaces.Dict({"x": gym.spaces.Box(-1e3, 1e3, (2,), np.float32), "n": gym.spaces.Discrete(100)})


def observation(t: int) -> dict[str, Any]:
    return {"x": np.array([t, -t], np.float32), "n": t % 100}


def single_pieces(length: int, cuts: set[int], lookback: int, terminated: bool, numpy: bool) -> list[Any]:
    """An episode of `length` steps as an env runner would return it: cut after each step in `cuts`."""
    episode = SingleAgentEpisode(id_="e", observation_space=SPACE, action_space=gym.spaces.Discrete(5))
    episode.add_env_reset(observation(0), {"t": 0})
    pieces = []
    for t in range(length):
        last = t == length - 1
        episode.add_env_step(
            observation(t + 1),
            t % 5,
            0.5 * t,
            {"t": t + 1},
            terminated=last and terminated,
            truncated=last and not terminated,
            extra_model_outputs={"logp": -float(t)},
        )
        if last or t + 1 in cuts:
            following = None if last else episode.cut(len_lookback_buffer=lookback)
            pieces.append(episode.to_numpy() if numpy else episode)
            episode = following
    return pieces


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(1, 30),
    cuts=st.sets(st.integers(1, 29)),
    lookback=st.integers(0, 3),
    terminated=st.booleans(),
    numpy=st.booleans(),
)
def test_a_single_agents_pieces_join(
    length: int, cuts: set[int], lookback: int, terminated: bool, numpy: bool
) -> None:
    whole = WholeEpisodes()
    pieces = single_pieces(length, cuts, lookback, terminated, numpy)
    before = [len(piece) for piece in pieces]
    joined = [
        e for i, piece in enumerate(pieces) for e in whole.add([piece], {"e"} if i < len(pieces) - 1 else ())
    ]
    assert len(joined) == 1
    (episode,) = joined
    episode.validate()
    assert (episode.t_started, episode.t, len(episode)) == (0, length, length)
    assert (episode.is_terminated, episode.is_truncated) == (terminated, not terminated)
    trajectory = Trajectory(episode, id="e")
    np.testing.assert_array_equal(trajectory.observations["x"][:, 0], range(length + 1))
    np.testing.assert_array_equal(trajectory.observations["n"], np.arange(length + 1) % 100)
    np.testing.assert_array_equal(trajectory.actions, np.arange(length) % 5)
    np.testing.assert_array_equal(trajectory.rewards, 0.5 * np.arange(length))
    np.testing.assert_array_equal(trajectory.columns["logp"], -np.arange(length, dtype=float))
    assert [info["t"] for info in trajectory.infos] == list(range(length + 1))
    trajectory.rewards += 1
    trajectory.columns["new"] = np.arange(length)
    edited = trajectory.to_episode()
    edited.validate()
    assert list(edited.get_rewards()) == [0.5 * t + 1 for t in range(length)]
    assert list(edited.get_extra_model_outputs("new")) == list(range(length))
    assert [len(piece) for piece in pieces] == before
    assert sum(float(sum(piece.get_rewards())) for piece in pieces) == 0.25 * length * (length - 1)


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(2, 15),
    cuts=st.sets(st.integers(1, 14)),
    acts=st.lists(st.sets(st.sampled_from(["b", "c"])), min_size=16, max_size=16),
    # With 0, RLlib 2.60's own cut drops an agent whose action is still unanswered.
    lookback=st.integers(1, 2),
)
def test_several_agents_pieces_join_and_stay_aligned(
    length: int, cuts: set[int], acts: list[set[str]], lookback: int
) -> None:
    """Agent a acts always, b and c now and then; every agent observes at the end."""
    acting = [{"a"} | acts[t] for t in range(length)] + [{"a", "b", "c"}]
    acting[0] = {"a", "b", "c"}
    episode = MultiAgentEpisode(id_="m", agent_to_module_mapping_fn=lambda agent, *_, **__: agent)

    def observe(t: int) -> dict[str, Any]:
        return {agent: np.array([t, ord(agent)], np.float32) for agent in sorted(acting[t])}

    episode.add_env_reset(observations=observe(0), infos={})
    pieces = []
    for t in range(length):
        last = t == length - 1
        episode.add_env_step(
            observe(t + 1),
            {agent: t % 5 for agent in sorted(acting[t])},
            {agent: float(t) for agent in sorted(acting[t])},
            {},
            terminateds={"__all__": last},
            truncateds={"__all__": False},
            extra_model_outputs={agent: {"logp": -float(t)} for agent in sorted(acting[t])},
        )
        if last or t + 1 in cuts:
            following = None if last else episode.cut(len_lookback_buffer=lookback)
            pieces.append(episode.to_numpy())
            episode = following
    parts = [trajectories_of(piece, {}) for piece in pieces]
    for agent in "abc":
        own = [part[agent] for part in parts if agent in part]
        steps = [t for t in range(length) if agent in acting[t]]
        np.testing.assert_array_equal(np.concatenate([t.env_steps for t in own]), steps)
        np.testing.assert_array_equal(np.concatenate([t.actions for t in own]), [t % 5 for t in steps])
        np.testing.assert_array_equal(np.concatenate([t.observations[:-1, 0] for t in own]), steps)
    whole = WholeEpisodes()
    joined = [e for i, p in enumerate(pieces) for e in whole.add([p], {"m"} if i < len(pieces) - 1 else ())]
    assert len(joined) == 1
    trajectories = trajectories_of(joined[0], {})
    for agent, trajectory in trajectories.items():
        steps = [t for t in range(length) if agent in acting[t]]
        np.testing.assert_array_equal(trajectory.env_steps, steps)
        np.testing.assert_array_equal(trajectory.observations[:, 0], [*steps, length])
        np.testing.assert_array_equal(trajectory.actions, [t % 5 for t in steps])
        np.testing.assert_array_equal(env_steps_of(joined[0], agent), [*steps, length])
    assert set(trajectories) == {"a", "b", "c"}


def test_pieces_that_do_not_follow_each_other_are_an_error() -> None:
    pieces = single_pieces(9, {3, 6}, 0, True, True)
    whole = WholeEpisodes()
    whole.add([pieces[0]], {"e"})
    with pytest.raises(ValueError, match="a fragment ends at step 3, the next begins at 6"):
        whole.add([pieces[2]], ())

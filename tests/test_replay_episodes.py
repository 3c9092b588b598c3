"""RLlib's episodes, cut into chunks as env runners cut them, come out of replay as the steps that were taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from rlkit.replay import Replay
from rlkit.replay.episodes import agent_fragments, joint_columns, joint_fragments
from rlkit.rllib.episodes import EnvEpisode

OBS = gym.spaces.Box(-np.inf, np.inf, (1,))
ACTION = gym.spaces.Discrete(9)
MODULE = "default_policy"


def observe(value: float) -> np.ndarray:
    return np.array([value], np.float32)


def single(
    length: int, chunk: int, *, terminated: bool = False, truncated: bool = False
) -> list[SingleAgentEpisode]:
    """An episode whose observation is t and whose reward is t + 1, in chunks with a lookback of one step."""
    chunks: list[SingleAgentEpisode] = []
    episode = SingleAgentEpisode(id_="one")
    episode.add_env_reset(observe(0), infos={"label": -1})
    for t in range(length):
        last = t == length - 1
        episode.add_env_step(
            observe(t + 1), t % 9, float(t + 1), infos={"label": t},
            terminated=terminated and last, truncated=truncated and last,
            extra_model_outputs={"state_out": {"h": np.full(2, t + 1.0, np.float32)}, "logp": -float(t)},
        )  # fmt: skip
        if last or (t + 1) % chunk == 0:
            successor = None if episode.is_done else episode.cut(len_lookback_buffer=1)
            chunks.append(episode.to_numpy())
            if successor is not None:
                episode = successor
    return chunks


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_chunks_make_the_whole_episode(chunk: int) -> None:
    buffer = Replay(100, {"obs": OBS}, {"actions": ACTION, "infos/label": None, "extra/logp": None})
    for part in single(10, chunk, terminated=True):
        fragments = agent_fragments([part], default_module=MODULE, extras=("infos/label", "extra/logp"))
        buffer.add(fragments[MODULE])
    batch = buffer.transitions(np.arange(10), n_step=3, gamma=1.0)
    np.testing.assert_array_equal(batch["obs"][:, 0], np.arange(10))
    np.testing.assert_array_equal(batch["new_obs"][:, 0], np.minimum(np.arange(10) + 3, 10))
    np.testing.assert_array_equal(
        batch["rewards"], [sum(range(t + 1, min(t + 3, 10) + 1)) for t in range(10)]
    )
    np.testing.assert_array_equal(batch["terminateds"], np.arange(10) >= 7)
    np.testing.assert_array_equal(batch["infos/label"], np.arange(10))
    np.testing.assert_array_equal(batch["extra/logp"], -np.arange(10.0))


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_recurrent_states_cross_chunks(chunk: int) -> None:
    from rlkit.replay import Column

    initial = {"h": np.zeros(2, np.float32)}
    buffer = Replay(100, {"obs": OBS, "state_in": Column.like("state_in", initial)}, {"actions": ACTION})
    for part in single(10, chunk):
        buffer.add(agent_fragments([part], default_module=MODULE, initial_state=lambda _: initial)[MODULE])
    batch = buffer.sequences(np.arange(10), 2)
    np.testing.assert_array_equal(batch["state_in"]["h"][:, 0], np.arange(10.0))
    np.testing.assert_array_equal(batch["next_state_in"]["h"][:, 0], np.arange(10.0) + 1)


def test_a_missing_extra_column_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"episode one: the replay column 'infos/colour' is missing, got infos \['label'\]"
    ):
        agent_fragments(single(3, 5), default_module=MODULE, extras=("infos/colour",))


def test_an_edited_copy_is_what_replay_sees() -> None:
    """Callbacks replace a sample by an edited copy; copies are lists again, and are read alike."""
    part = single(4, 4)[0]
    copy = SingleAgentEpisode(
        id_="one", observations=[observe(t) for t in range(5)], actions=[0] * 4, rewards=[100.0] * 4,
        len_lookback_buffer=0,
    )  # fmt: skip
    assert part.is_numpy
    assert not copy.is_numpy
    fragment = agent_fragments([copy], default_module=MODULE)[MODULE][0]
    assert fragment.steps["rewards"].tolist() == [100.0] * 4


# Several agents ------------------------------------------------------------------------------------------

Dicts = Sequence[tuple[Mapping[str, float], Mapping[str, bool], Mapping[str, bool]]]


def team(steps: Dicts, first: Sequence[str], chunk: int) -> list[MultiAgentEpisode]:
    """Play `steps` of (observations, terminateds, truncateds).

    An agent's action is its observation mod 9, its reward the observation it got.
    """
    episode = MultiAgentEpisode(agent_to_module_mapping_fn=lambda agent, _: f"m_{agent}")
    episode.add_env_reset(observations={a: observe(0) for a in first})
    acting, chunks = list(first), []
    last_obs = dict.fromkeys(first, 0.0)
    for i, (observations, terminateds, truncateds) in enumerate(steps):
        episode.add_env_step(
            {a: observe(v) for a, v in observations.items()},
            {a: int(last_obs[a]) % 9 for a in acting},
            {a: float(observations.get(a, 0.0)) for a in {*acting, *observations}},
            terminateds=dict(terminateds), truncateds=dict(truncateds),
        )  # fmt: skip
        last_obs |= observations
        acting = [a for a in observations if not terminateds.get(a) and not truncateds.get(a)]
        if i == len(steps) - 1 or (i + 1) % chunk == 0:
            successor = None if episode.is_done else episode.cut(len_lookback_buffer=1)
            chunks.append(episode.to_numpy())
            if successor is not None:
                episode = successor
    return chunks


def steps_of(agents: Sequence[str], length: int, **last: Any) -> list[Any]:
    rows: list[Any] = [({a: float(t + 1) for a in agents}, {}, {}) for t in range(length)]
    rows[-1] = (rows[-1][0], last.get("terminateds", {}), last.get("truncateds", {}))
    return rows


AGENTS = ("a", "b")


@pytest.mark.parametrize(
    "flags", [{"a": True, "b": True}, {"__all__": True, "a": True, "b": True}, {"__all__": True}]
)
def test_a_truncated_team_bootstraps(flags: dict[str, bool]) -> None:
    """RLlib calls an episode in which all agents are done terminated, even if all were truncated."""
    episode = team(steps_of(AGENTS, 3, truncateds=flags), AGENTS, 100)[0]
    for fragments in agent_fragments([episode], default_module=MODULE).values():
        assert fragments[0].steps["terminateds"].tolist() == [False, False, False]
        assert fragments[0].steps["truncateds"].tolist() == [False, False, True]
        assert fragments[0].done
    fragment = next(iter(joint_fragments([episode], AGENTS, *columns())))
    assert not fragment.steps["terminateds"].any()
    assert fragment.steps["truncateds"].tolist() == [[False, False], [False, False], [True, True]]


def test_a_terminated_team_does_not() -> None:
    episode = team(steps_of(AGENTS, 2, terminateds={"__all__": True}), AGENTS, 100)[0]
    for fragments in agent_fragments([episode], default_module=MODULE).values():
        assert fragments[0].steps["terminateds"].tolist() == [False, True]


def test_mixed_ends_keep_each_agents_flag() -> None:
    episode = team(steps_of(AGENTS, 2, terminateds={"a": True}, truncateds={"b": True}), AGENTS, 100)[0]
    fragments = agent_fragments([episode], default_module=MODULE)
    assert fragments["m_a"][0].steps["terminateds"].tolist() == [False, True]
    assert fragments["m_b"][0].steps["terminateds"].tolist() == [False, False]
    assert fragments["m_b"][0].steps["truncateds"].tolist() == [False, True]


def columns() -> Any:
    return joint_columns(AGENTS, dict.fromkeys(AGENTS, OBS), dict.fromkeys(AGENTS, ACTION))


def joint_replay(chunks: Sequence[MultiAgentEpisode]) -> Replay:
    states, steps = columns()
    buffer = Replay(100, states, steps, agents=2)
    for chunk in chunks:
        buffer.add(joint_fragments([chunk], AGENTS, states, steps))
    return buffer


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_joint_rows_are_aligned(chunk: int) -> None:
    buffer = joint_replay(team(steps_of(AGENTS, 6, truncateds={"__all__": True}), AGENTS, chunk))
    batch = buffer.transitions(np.arange(6))
    for i, agent in enumerate(AGENTS):
        np.testing.assert_array_equal(batch["obs"][agent][:, 0], np.arange(6))
        np.testing.assert_array_equal(batch["new_obs"][agent][:, 0], np.arange(6) + 1)
        np.testing.assert_array_equal(batch["actions"][agent], np.arange(6))
        np.testing.assert_array_equal(batch["rewards"][:, i], np.arange(6) + 1)
    assert batch["acted"].all()
    assert batch["next_present"].all()


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_an_agent_that_dies_and_one_that_comes_late(chunk: int) -> None:
    """a dies at step 2; b enters at step 1 and ends at step 5. Rows stay aligned, absence is masked."""
    steps: list[Any] = [
        ({"a": 1.0, "b": 1.0}, {}, {}),
        ({"a": 2.0, "b": 2.0}, {}, {}),
        ({"a": 3.0, "b": 3.0}, {"a": True}, {}),
        ({"b": 4.0}, {}, {}),
        ({"b": 5.0}, {}, {"b": True}),
    ]
    batch = joint_replay(team(steps, ["a"], chunk)).transitions(np.arange(5))
    np.testing.assert_array_equal(batch["acted"], [[1, 0], [1, 1], [1, 1], [0, 1], [0, 1]])
    np.testing.assert_array_equal(batch["present"], [[1, 0], [1, 1], [1, 1], [1, 1], [0, 1]])
    np.testing.assert_array_equal(batch["next_present"], [[1, 1], [1, 1], [1, 1], [0, 1], [0, 1]])
    np.testing.assert_array_equal(batch["terminateds"], [[0, 0], [0, 0], [1, 0], [0, 0], [0, 0]])
    np.testing.assert_array_equal(batch["truncateds"], [[0, 0], [0, 0], [0, 0], [0, 0], [0, 1]])
    np.testing.assert_array_equal(batch["obs"]["a"][:3, 0], [0, 1, 2])
    np.testing.assert_array_equal(batch["obs"]["b"][1:, 0], [1, 2, 3, 4])
    np.testing.assert_array_equal(batch["new_obs"]["b"][1:, 0], [2, 3, 4, 5])
    np.testing.assert_array_equal(batch["rewards"][:, 0], [1, 2, 3, 0, 0])


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_an_agent_that_vanishes_without_a_flag(chunk: int) -> None:
    """a is not heard of after step 2: its last complete step stays, and is not terminated."""
    steps: list[Any] = [
        ({"a": 1.0, "b": 1.0}, {}, {}),
        ({"a": 2.0, "b": 2.0}, {}, {}),
        ({"b": 3.0}, {}, {}),
        ({"b": 4.0}, {}, {}),
    ]
    chunks = team(steps, AGENTS, chunk)
    batch = joint_replay(chunks).transitions(np.arange(4))
    np.testing.assert_array_equal(batch["acted"], [[1, 1], [1, 1], [0, 1], [0, 1]])
    assert not batch["terminateds"].any()
    buffer = Replay(100, {"obs": OBS}, {"actions": ACTION})
    for part in chunks:
        buffer.add(agent_fragments([part], default_module=MODULE).get("m_a", []))
    alone = buffer.transitions(np.arange(len(buffer)))
    np.testing.assert_array_equal(alone["obs"][:, 0], [0, 1])
    np.testing.assert_array_equal(alone["new_obs"][:, 0], [1, 2])
    assert not alone["terminateds"].any()


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_agents_that_take_turns_have_their_own_time(chunk: int) -> None:
    steps: list[Any] = [
        ({"b": 1.0}, {}, {}),
        ({"a": 2.0}, {}, {}),
        ({"b": 3.0}, {}, {}),
        ({"a": 4.0}, {}, {}),
        ({"b": 5.0}, {}, {}),
    ]
    buffer = Replay(100, {"obs": OBS}, {"actions": ACTION})
    for part in team(steps, ["a"], chunk):
        buffer.add(agent_fragments([part], default_module=MODULE).get("m_a", []))
    batch = buffer.transitions(np.arange(len(buffer)))
    np.testing.assert_array_equal(batch["obs"][:, 0], [0, 2])
    np.testing.assert_array_equal(batch["new_obs"][:, 0], [2, 4])


@pytest.mark.parametrize("lookback", [0, 1])
@pytest.mark.parametrize("chunk", [1, 2, 6, 100])
def test_states_of_agents_that_take_turns_cross_chunks(chunk: int, lookback: int) -> None:
    """a acts in the steps 1, 3, 5, ..., b in 2, 4, 6, ...; a step's number is the state that it leaves."""
    episode = EnvEpisode(agent_to_module_mapping_fn=lambda agent, _: f"m_{agent}")
    episode.add_env_reset(observations={"a": observe(0)})
    found: dict[str, list[float]] = {"m_a": [], "m_b": []}
    for t in range(1, 19):
        acts, next_one = AGENTS[(t + 1) % 2], AGENTS[t % 2]
        episode.add_env_step(
            {next_one: observe(t)}, {acts: 0}, {acts: 1.0}, terminateds={"__all__": t == 18},
            extra_model_outputs={acts: {"state_out": np.float32(t)}},
        )  # fmt: skip
        if t % chunk == 0 or t == 18:
            following = None if episode.is_done else episode.cut(len_lookback_buffer=lookback)
            parts = agent_fragments(
                [episode.to_numpy()], default_module=MODULE, initial_state=lambda _: np.float32(-99)
            )
            for module, (part,) in parts.items():
                found[module] += part.states["state_in"][:-1].tolist()
            episode = episode if following is None else following
    assert found["m_a"] == [-99, 1, 3, 5, 7, 9, 11, 13, 15]
    assert found["m_b"] == [-99, 2, 4, 6, 8, 10, 12, 14, 16]


def test_an_agent_that_joint_rows_do_not_know_is_named() -> None:
    episode = team(steps_of(("a", "c"), 2), ("a", "c"), 100)[0]
    with pytest.raises(ValueError, match=r"has the agents \['c'\], expected only \['a', 'b'\]"):
        list(joint_fragments([episode], AGENTS, *columns()))

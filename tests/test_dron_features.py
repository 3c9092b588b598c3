"""Opponent features: their numbers, and that nothing of the present, the future or a label leaks in."""

from __future__ import annotations

import copy

import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from rlkit.algos import DRONConfig
from rlkit.algos.dron_rules import PAPER_FEATURES
from rlkit.algos.opponents.features import OpponentFeatures, opponents_of
from rlkit.algos.opponents.history import FeatureOptions, OpponentHistory
from rlkit.envs.soccer import SoccerEnv, SoccerParallelEnv
from rlkit.errors import EnvError
from rlkit.replay.episodes import agent_fragments
from rlkit.rllib.episodes import EnvEpisode

OBS, ACT = SoccerEnv().observation_space, SoccerEnv().action_space


class Told(gym.Env):
    """Tells what an opponent did."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(3)

    def __init__(self, config=None):
        pass

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {"opponent_action": 0}

    def step(self, action):
        return np.zeros(2, np.float32), 0.0, False, False, {"opponent_action": 1}


def connect(**options) -> OpponentFeatures:
    return OpponentFeatures(OBS, ACT, **options)


def run(connector: OpponentFeatures, *episodes) -> None:
    connector(rl_module=None, batch={}, episodes=list(episodes))


def newest(episode: SingleAgentEpisode) -> dict:
    return episode.observations.data[-1]


def info(action: int, moves=(0, 0, 0, 0, 0), lost: int = 0, kind: int = 0) -> dict:
    return {
        "opponent_action": action, "opponent_moves": np.array(moves), "ball_lost": lost, "opponent_type": kind
    }  # fmt: skip


def begin(name: str = "e", kind: int = 0) -> SingleAgentEpisode:
    episode = SingleAgentEpisode(name, observation_space=OBS, action_space=ACT)
    episode.add_env_reset(np.zeros(15, np.float32), {"opponent_type": kind})
    return episode


def step(episode: SingleAgentEpisode, told: dict, done: bool = False) -> None:
    episode.add_env_step(np.full(15, 0.5, np.float32), 0, 0.0, told, terminated=done)


# The numbers ----------------------------------------------------------------------------------------------------------


def test_features_of_three_moves_worked_out_by_hand():
    connector = connect()
    episode = begin()
    run(connector, episode)
    np.testing.assert_array_equal(newest(episode)["opponent"], np.zeros((1, 30)))
    for told in (
        info(2, (1, 1, -1, 1, 0)),  # with the ball, left
        info(2, (1, 1, 0, 1, 0)),
        info(4, (0, -1, 1, 0, 1), lost=1),  # without it, stands
    ):
        step(episode, told)
        run(connector, episode)
    got = newest(episode)["opponent"][0]
    with_ball = np.array([1 + 0.8, 0 - 0.8, 1 + 0.8, 0.0]) * 0.2
    without = np.array([-1, 1, 0, 1]) * 0.2
    np.testing.assert_allclose(got[0:4], with_ball, atol=1e-6)
    np.testing.assert_allclose(got[4:8], without, atol=1e-6)
    np.testing.assert_array_equal(got[8:13], [1, 1, 0, 1, 0])  # the move before the last
    np.testing.assert_array_equal(got[13:18], [0, -1, 1, 0, 1])
    np.testing.assert_array_equal(got[18:23], [0, 0, 0, 0, 1])  # last action: one-hot, not accumulated
    assert got[23] == pytest.approx(0.1)  # one ball lost
    assert got[24] == pytest.approx(0.03)  # three of 100 moves
    np.testing.assert_allclose(got[25:30], [0, 0, 2 / 3, 0, 1 / 3], atol=1e-6)


def test_each_feature_can_be_switched_off_and_the_papers_set_has_25():
    sizes = {"moves": 8, "last_moves": 10, "last_action": 5, "lost": 1, "clock": 1, "frequencies": 5}
    for name, size in sizes.items():
        space = connect(features=[name]).observation_space
        assert space["opponent"].shape == (1, size)
        assert FeatureOptions((name,)).size(5) == size
    assert connect(features=PAPER_FEATURES).observation_space["opponent"].shape == (1, 25)
    assert "opponent" not in connect(features=[], window=4).observation_space.spaces


def test_the_window_holds_what_was_seen_and_what_the_opponent_then_did():
    connector = connect(features=[], window=3)
    episode = begin()
    run(connector, episode)
    for action in (2, 4):
        step(episode, {"opponent_action": action})
        run(connector, episode)
    window = newest(episode)["history"][0]
    assert window.shape == (3, 15 + 5 + 1)
    assert not window[0].any()  # before the episode
    np.testing.assert_array_equal(window[1], [*np.zeros(15), 0, 0, 1, 0, 0, 1])  # first observation, action 2
    np.testing.assert_array_equal(window[2], [*np.full(15, 0.5), 0, 0, 0, 0, 1, 1])


def test_rows_keep_apart_and_many_of_them_fit():
    history = OpponentHistory(FeatureOptions(("last_action",)), 1, 5)
    rows = np.arange(300)
    history.reset(rows)
    actions = np.eye(5, dtype=np.float32)[rows % 5][:, None]
    history.update(rows, actions, np.ones((300, 1), bool))
    np.testing.assert_array_equal(history.features(rows)[:, 0], actions[:, 0])
    history.reset(rows[:10])
    assert not history.features(rows[:10]).any()
    assert history.features(rows[10:]).any(axis=(1, 2)).all()


# Leaks ----------------------------------------------------------------------------------------------------------------


def play_soccer(style: str, steps: int, forced: list[int] | None = None, **options) -> list[dict]:
    """What the learner sees against a style; `forced` replaces what infos say the opponent did."""
    env, connector = SoccerEnv("styles"), connect(**options)
    episode = SingleAgentEpisode("e", observation_space=OBS, action_space=ACT)
    obs, told = env.reset(seed=3, options={"opponent": style})
    episode.add_env_reset(obs, told)
    run(connector, episode)
    seen = [newest(episode)]
    for t in range(steps):
        obs, reward, done, _, told = env.step(4)
        if forced is not None:
            told["opponent_action"] = forced[t]
        episode.add_env_step(obs, 4, reward, told, terminated=done)
        run(connector, episode)
        seen.append(newest(episode))
        if done:
            break
    return seen


@pytest.mark.parametrize("options", [{}, {"features": [], "window": 5}])
def test_an_action_shows_from_the_next_observation_on_and_never_before(options):
    one, other = [0, 1, 2, 3, 4, 0], [0, 1, 2, 0, 4, 0]  # they differ in the move after observation 3
    seen = play_soccer("up", 6, one, **options), play_soccer("up", 6, other, **options)
    key = "history" if "window" in options else "opponent"
    for t in range(4):
        np.testing.assert_array_equal(seen[0][t][key], seen[1][t][key])
    assert (seen[0][4][key] != seen[1][4][key]).any()


def test_the_type_label_changes_labels_only():
    connectors = [connect(label_types=True, label_actions=True) for _ in range(2)]
    episodes = [begin(kind=0), begin(kind=1)]
    for kind, (connector, episode) in enumerate(zip(connectors, episodes, strict=True)):
        run(connector, episode)
        for action in (1, 3):
            step(episode, info(action, kind=kind))
            run(connector, episode)
    for a, b in zip(episodes[0].observations.data, episodes[1].observations.data, strict=True):
        assert a.keys() == b.keys() == {"state", "opponent"}
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
    labels = [[i["dron_type"].tolist() for i in e.infos.data[1:]] for e in episodes]
    assert labels == [[[0], [0]], [[1], [1]]]


def test_labels_say_what_the_opponent_did_and_was_at_the_observation_before():
    connector = connect(label_types=True, label_actions=True)
    episode = begin(kind=0)
    run(connector, episode)
    step(episode, info(3, kind=1))  # switches after the first move
    run(connector, episode)
    step(episode, info(2, kind=1))
    run(connector, episode)
    assert [int(i["dron_action"][0]) for i in episode.infos.data[1:]] == [3, 2]
    assert [int(i["dron_type"][0]) for i in episode.infos.data[1:]] == [0, 1]


# Episodes -------------------------------------------------------------------------------------------------------------


def test_features_start_anew_with_every_episode_also_under_the_same_name():
    connector = connect()
    for done in (True, False):
        episode = begin("same")
        run(connector, episode)
        assert not newest(episode)["opponent"].any()
        step(episode, info(1, (1, 1, 1, 1, 0)), done=done)
        run(connector, episode)
        assert newest(episode)["opponent"].any()


def test_features_go_on_where_an_episode_is_cut_into_fragments():
    whole, cut = begin("whole"), begin("cut")
    connector = connect(window=4)
    for action in (0, 1, 2, 3):
        run(connector, whole, cut)
        for episode in (whole, cut):
            step(episode, info(action, (1, 1, 0, 0, 0)))
        if action % 2:
            run(connector, whole, cut)
            cut = cut.cut(len_lookback_buffer=1)
    run(connector, whole, cut)
    for name in ("opponent", "history"):
        np.testing.assert_array_equal(newest(whole)[name], newest(cut)[name])


def test_asking_twice_for_the_same_step_changes_nothing():
    connector = connect()
    episode = begin()
    run(connector, episode)
    step(episode, info(1, (1, 1, 1, 1, 0)))
    again = copy.deepcopy(episode)
    run(connector, episode)
    first = newest(episode)["opponent"].copy()
    run(connector, again)
    np.testing.assert_array_equal(newest(again)["opponent"], first)
    run(connector, episode)
    np.testing.assert_array_equal(newest(episode)["opponent"], first)


def test_a_placebo_gives_other_games_features_of_the_same_kind():
    connector = connect(features=["last_action"], shuffle=True)
    episodes = [begin(f"e{i}") for i in range(5)]
    run(connector, *episodes)
    own = 0
    for _ in range(60):
        for i, episode in enumerate(episodes):
            step(episode, info(i))
        run(connector, *episodes)
        shown = [newest(e)["opponent"][0] for e in episodes]
        own += sum(bool(s[i]) for i, s in enumerate(shown))
        assert all(s.sum() in (0, 1) for s in shown)
    assert own == 0  # never its own


def test_a_placebo_of_one_environment_shows_the_episodes_before():
    connector, shown = connect(features=["last_action"], shuffle=True), []
    for number, action in enumerate((1, 2, 3)):
        episode = begin(f"e{number}")
        run(connector, episode)
        for t in range(20):
            step(episode, info(action), done=t == 19)
            run(connector, episode)
            shown.append((number, newest(episode)["opponent"][0].nonzero()[0].tolist()))
    assert all(seen == [] for number, seen in shown if number == 0)  # there is no other one yet
    assert {tuple(seen) for number, seen in shown if number == 2} >= {(1,), (2,)}
    assert (3,) not in {tuple(seen) for _, seen in shown}


def test_a_placebo_draws_from_a_stream_of_its_runner():
    drawn = []
    for seed, index in ((0, 1), (0, 2), (1, 1), (0, 1)):
        config = DRONConfig().environment(Told).training(features=["last_action"], shuffle_features=True)
        config.debugging(seed=seed).validate()
        runner = config.env_runner_cls(config=config, worker_index=index)
        runner.sample(num_timesteps=2, random_actions=True)
        (connector,) = (c for c in runner.pipelines[0].connectors if isinstance(c, OpponentFeatures))
        drawn.append(connector.placebo.rng.integers(1 << 60))
        runner.stop()
    assert len(set(drawn)) == 3
    assert drawn[0] == drawn[3]


# Several agents -------------------------------------------------------------------------------------------------------


def spaces(agents: list[str], actions: gym.Space = ACT) -> tuple[gym.spaces.Dict, gym.spaces.Dict]:
    return gym.spaces.Dict(dict.fromkeys(agents, OBS)), gym.spaces.Dict(dict.fromkeys(agents, actions))


def joint(agents: list[str]) -> MultiAgentEpisode:
    observations, actions = spaces(agents)
    episode = MultiAgentEpisode(
        "joint", observation_space=dict(observations.spaces), action_space=dict(actions.spaces)
    )
    episode.add_env_reset(
        observations={a: np.zeros(15, np.float32) for a in agents}, infos={a: {} for a in agents}
    )
    return episode


def joint_step(episode: MultiAgentEpisode, actions: dict[str, int], seeing: list[str] | None = None) -> None:
    seeing = list(actions) if seeing is None else seeing
    episode.add_env_step(
        {a: np.full(15, 0.5, np.float32) for a in seeing}, actions, dict.fromkeys(seeing, 0.0), {a: {} for a in seeing},
        terminateds={"__all__": False}, truncateds={"__all__": False},
    )  # fmt: skip


def seen_by(episode: MultiAgentEpisode, agent: str) -> dict:
    return episode.agent_episodes[agent].observations.data[-1]


def test_globs_choose_the_modelled_opponents():
    agents = ["adversary_0", "adversary_1", "agent_0"]
    assert opponents_of("agent_0", agents, ["adversary_*"]) == ["adversary_0", "adversary_1"]
    assert opponents_of("adversary_0", agents, ["*"]) == ["adversary_1", "agent_0"]
    assert opponents_of("adversary_0", agents, {"agent_*": ["adversary_*"]}) == []


def test_several_opponents_have_features_of_their_own_and_labels():
    agents = ["adversary_0", "adversary_1", "agent_0"]
    connector = OpponentFeatures(
        *spaces(agents), opponents={"agent_*": ["adversary_*"]}, features=["last_action", "frequencies"],
        label_actions=True,
    )  # fmt: skip
    assert connector.observation_space["agent_0"]["opponent"].shape == (2, 10)
    assert connector.observation_space["adversary_0"] == OBS
    episode = joint(agents)
    run(connector, episode)
    joint_step(episode, {"adversary_0": 1, "adversary_1": 3, "agent_0": 0})
    run(connector, episode)
    last = seen_by(episode, "agent_0")["opponent"][:, :5].argmax(axis=1)
    assert last.tolist() == [1, 3]
    assert seen_by(episode, "adversary_0").shape == (15,)  # left as it was
    assert episode.agent_episodes["agent_0"].infos.data[-1]["dron_action"].tolist() == [1, 3]


def test_in_turn_based_games_the_move_just_made_is_seen():
    agents = ["first", "second"]
    connector = OpponentFeatures(*spaces(agents), features=["last_action"])
    episode = MultiAgentEpisode(
        "turns", observation_space=dict(spaces(agents)[0].spaces), action_space=dict(spaces(agents)[1].spaces)
    )
    episode.add_env_reset(observations={"first": np.zeros(15, np.float32)}, infos={})
    run(connector, episode)
    joint_step(episode, {"first": 3}, seeing=["second"])
    run(connector, episode)
    assert seen_by(episode, "second")["opponent"][0].argmax() == 3  # before its first observation
    joint_step(episode, {"second": 2}, seeing=["first"])
    run(connector, episode)
    assert seen_by(episode, "first")["opponent"][0].argmax() == 2
    joint_step(episode, {"first": 1}, seeing=["second"])
    run(connector, episode)
    assert seen_by(episode, "second")["opponent"][0].argmax() == 1


def test_soccer_for_two_gives_both_players_the_same_kind_of_features():
    env = SoccerParallelEnv()
    agents = env.possible_agents
    connector = OpponentFeatures(
        gym.spaces.Dict({a: env.observation_space(a) for a in agents}),
        gym.spaces.Dict({a: env.action_space(a) for a in agents}),
    )
    obs, infos = env.reset(seed=0)
    episode = MultiAgentEpisode(
        "two", observation_space=dict(connector.input_observation_space.spaces),
        action_space=dict(connector.input_action_space.spaces),
    )  # fmt: skip
    episode.add_env_reset(observations=obs, infos=infos)
    run(connector, episode)
    obs, rewards, _, _, infos = env.step({"player_a": 3, "player_b": 0})
    episode.add_env_step(
        obs, {"player_a": 3, "player_b": 0}, rewards, infos, terminateds={"__all__": False},
        truncateds={"__all__": False},
    )  # fmt: skip
    run(connector, episode)
    a, b = (seen_by(episode, agent)["opponent"][0] for agent in agents)
    assert a.shape == b.shape == (30,)
    assert a[18:23].argmax() == 0
    assert b[18:23].argmax() == 3


def test_continuous_opponents_show_their_last_action():
    box = gym.spaces.Box(-1, 1, (2,), np.float32)
    connector = OpponentFeatures(*spaces(["me", "it"], box), features=["last_action"])
    episode = MultiAgentEpisode(
        "box", observation_space=dict(connector.input_observation_space.spaces),
        action_space=dict(connector.input_action_space.spaces),
    )  # fmt: skip
    episode.add_env_reset(observations={a: np.zeros(15, np.float32) for a in ("me", "it")}, infos={})
    run(connector, episode)
    it = np.array([0.25, -0.5], np.float32)
    joint_step(episode, {"me": np.zeros(2, np.float32), "it": it})
    run(connector, episode)
    np.testing.assert_array_equal(seen_by(episode, "me")["opponent"][0], it)


# Bad input ------------------------------------------------------------------------------------------------------------


def after_one_step(connector: OpponentFeatures, told: dict, first: dict | None = None) -> None:
    episode = begin()
    if first is not None:
        episode.infos.data[0] = first
    run(connector, episode)
    step(episode, told)
    run(connector, episode)


def test_an_environment_without_opponents_is_an_error_that_says_what_it_has():
    with pytest.raises(EnvError, match=r"infos has \['speed'\], expected 'opponent_action'.*algorithm: DQN"):
        after_one_step(connect(), {"speed": 1})
    with pytest.raises(ValueError, match=r"\['enemy_\*'\] matches no opponent.*\['it', 'me'\]"):
        OpponentFeatures(*spaces(["me", "it"]), opponents=["enemy_*"])


def test_missing_events_name_the_features_to_leave_out():
    with pytest.raises(
        EnvError, match=r"expected 'opponent_moves' for the features \['moves', 'last_moves', 'lost'\]"
    ):
        after_one_step(connect(), {"opponent_action": 1})
    after_one_step(connect(features=["last_action", "clock", "frequencies"]), {"opponent_action": 1})


def test_a_missing_type_label_is_an_error():
    with pytest.raises(EnvError, match=r"expected 'opponent_type', the label of supervise: type"):
        after_one_step(connect(label_types=True), info(1), first={})


def test_action_labels_need_discrete_opponents_of_known_size():
    box = gym.spaces.Box(-1, 1, (2,), np.float32)
    with pytest.raises(ValueError, match="Discrete actions, got Box"):
        OpponentFeatures(*spaces(["me", "it"], box), features=["clock"], label_actions=True)
    observations, actions = spaces(["me", "it"])
    actions = gym.spaces.Dict({**actions.spaces, "it": gym.spaces.Discrete(3)})
    with pytest.raises(
        ValueError, match=r"opponents of 'me' have 3 actions, expected 5; set opponent_actions: 3"
    ):
        OpponentFeatures(
            observations, actions, opponents={"me": ["it"]}, features=["clock"], label_actions=True
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": ["move"]}, "did you mean 'moves'"),
        ({"features": ["clock", "clock"]}, "each name once"),
        ({"window": -1}, "at least 0"),
        ({"clock_horizon": 0}, "at least 1"),
    ],
)
def test_bad_options_say_what_is_expected(options, message):
    with pytest.raises(ValueError, match=message):
        connect(**options)


def test_opponents_whose_actions_have_no_vector_are_refused():
    with pytest.raises(ValueError, match="expected Discrete or Box"):
        OpponentFeatures(*spaces(["me", "it"], gym.spaces.MultiDiscrete([2, 2])), features=["clock"])


def test_labels_of_an_agent_that_ends_unobserved_and_of_one_that_models_nobody():
    ids = ["a", "b"]
    obs = gym.spaces.Dict({name: gym.spaces.Box(-1, 1, (2,)) for name in ids})
    act = gym.spaces.Dict({name: gym.spaces.Discrete(2) for name in ids})
    connector = OpponentFeatures(
        obs, act, opponents={"a": ["b"]}, features=["last_action"], label_actions=True, label_types=True
    )
    episode = EnvEpisode(
        "e",
        observation_space=obs.spaces,
        action_space=act.spaces,
        agent_to_module_mapping_fn=lambda name, _: name,
    )
    zeros, told = (
        {name: np.zeros(2, np.float32) for name in ids},
        {name: {"opponent_type": 1} for name in ids},
    )
    episode.add_env_reset(observations=zeros, infos=told)
    run(connector, episode)
    going = {"terminateds": {"__all__": False}, "truncateds": {}, "extra_model_outputs": {}}
    episode.add_env_step(zeros, dict.fromkeys(ids, 1), dict.fromkeys(ids, 0.0), told, **going)
    run(connector, episode)
    ends = {**going, "terminateds": {"a": True, "__all__": False}}
    left = {"b": zeros["b"]}
    episode.add_env_step(left, dict.fromkeys(ids, 1), {"a": -1.0, "b": 0.0}, {"b": told["b"]}, **ends)
    run(connector, episode)
    episode.to_numpy()
    columns = {"a": ("infos/dron_action", "infos/dron_type")}
    found = agent_fragments([episode], default_module="d", extras=columns)
    assert found["a"][0].steps["infos/dron_action"].tolist() == [[1], [-1]]
    assert found["a"][0].steps["infos/dron_type"].tolist() == [[1], [1]]
    assert "infos/dron_action" not in found["b"][0].steps

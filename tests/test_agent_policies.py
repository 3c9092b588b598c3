"""Both ways to compute actions agree, bit for bit, and with RLlib's env runners (no Ray, untrained modules)."""

from __future__ import annotations

import copy
import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from case_envs import Two, Waves
from policies import Pair, Steps, Untouched, both, make
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.connectors.env_to_module import FlattenObservations, MeanStdFilter, PrevActionsPrevRewards
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from rlkit.algos.sampling.acting import in_blocks
from rlkit.errors import UsageError
from rlkit.models import module_spec
from rlkit.play import connectors as pipelines
from rlkit.play.agent import Agent
from rlkit.play.answers import Answer
from rlkit.play.connectors import ConnectorPolicy
from rlkit.play.crossplay import Sides
from rlkit.play.policy import DirectPolicy
from rlkit.play.rollout import Pool, Row, play
from rlkit.runs.manifest import Manifest

logging.getLogger("ray").setLevel(logging.ERROR)

EXPLORING = ("PPO, continuous", "PPO, dict", "DQN, distributional")
OBS = gym.spaces.Box(-1, 1, (3,), np.float32)
LOPSIDED = gym.spaces.Box(np.array([-2, 0], np.float32), np.array([6, 1], np.float32))
LSTM = {"use_lstm": True, "lstm_cell_size": 8, "max_seq_len": 5}

CASES: dict[str, tuple[Callable[[], Any], gym.Space]] = {
    "PPO, discrete": (PPOConfig, gym.spaces.Discrete(4)),
    "PPO, continuous": (PPOConfig, LOPSIDED),
    "PPO, clipped": (
        lambda: PPOConfig().environment(normalize_actions=False, clip_actions=True),
        LOPSIDED,
    ),
    "PPO, multi-discrete": (PPOConfig, gym.spaces.MultiDiscrete([3, 2])),
    "PPO, dict": (PPOConfig, gym.spaces.Dict(push=gym.spaces.Discrete(3), turn=LOPSIDED)),
    "PPO, LSTM": (lambda: PPOConfig().rl_module(model_config=LSTM), LOPSIDED),
    "DQN, distributional": (lambda: DQNConfig().training(num_atoms=5), gym.spaces.Discrete(4)),
    "SAC": (SACConfig, LOPSIDED),
}


def pool(env: Any) -> Pool:
    return Pool(lambda render: copy.deepcopy(env))


def mapping(agent: str, *args: Any, **kwargs: Any) -> str:
    return f"{agent}_policy"


def pair_config(config: Any = None) -> Any:
    return (config or PPOConfig()).multi_agent(
        policies={mapping(agent) for agent in Pair().possible_agents}, policy_mapping_fn=mapping
    )


@pytest.mark.parametrize(
    ("case", "explore"), [*((case, False) for case in CASES), *((case, True) for case in EXPLORING)]
)
def test_the_short_way_gives_the_rows_of_the_pipelines_for_any_number_of_slots(
    case: str, explore: bool
) -> None:
    build, actions = CASES[case]
    env = Steps(OBS, actions)
    direct, pipeline = both(build(), env)
    assert isinstance(direct, DirectPolicy)
    rows = play(direct, pool(env), range(7), slots=1, explore=explore)
    assert [row.seed for row in rows] == list(range(7))
    assert len({row.ret for row in rows}) > 1
    for policy, slots in ((direct, 3), (direct, 7), (pipeline, 1), (pipeline, 4)):
        assert play(policy, pool(env), range(7), slots=slots, explore=explore) == rows


@pytest.mark.parametrize("explore", [False, True])
def test_agents_that_come_and_go_with_spaces_of_their_own(explore: bool) -> None:
    direct, pipeline = both(pair_config(), Pair())
    rows = play(direct, pool(Pair()), range(5), slots=2, explore=explore)
    assert set(rows[0].agents) == {"early", "late", "steady"}
    assert rows[0].ret == pytest.approx(sum(rows[0].agents.values()))
    assert play(pipeline, pool(Pair()), range(5), slots=5, explore=explore) == rows


def waves_config() -> Any:
    return PPOConfig().multi_agent(policies={"shared"}, policy_mapping_fn=lambda *_, **__: "shared")


def test_agents_that_end_as_the_next_appear_are_played_with_connectors_too() -> None:
    env = Waves()
    env.observation_space, env.action_space = map(
        gym.spaces.Dict, (env.observation_spaces, env.action_spaces)
    )
    direct, pipeline = both(waves_config(), env)
    rows = play(direct, pool(env), range(3), slots=2)
    assert [(row.length, row.ret, len(row.agents)) for row in rows] == [(30, 60.0, 12)] * 3
    assert play(pipeline, pool(env), range(3), slots=2) == rows
    together = Sides(
        {"A": pipeline, "B": copy.deepcopy(pipeline)}, {a: "AB"[int(a) // 4 % 2] for a in env.names}
    )
    assert play(together, pool(env), range(3), slots=2) == rows


class Paused(Two):
    """`b` has nothing to do while `a` ends, and plays on."""

    def step(self, actions: dict) -> tuple[dict, dict, dict, dict, dict]:
        self.t += 1
        agent = "a" if self.t < 3 else "b"
        ended = {"a": True} if self.t == 2 else {}
        flags = {**ended, "__all__": self.t == 6}
        return {agent: self.see(agent)}, dict.fromkeys(actions, 1.0), flags, {"__all__": False}, {}


def test_an_episode_goes_on_where_an_agent_ends_while_the_others_pause() -> None:
    env = Paused()
    env.observation_space, env.action_space = map(
        gym.spaces.Dict, (env.observation_spaces, env.action_spaces)
    )
    for policy in both(waves_config(), env):
        (row,) = play(policy, pool(env), [0])
        assert (row.length, row.agents) == (6, {"a": 2.0, "b": 4.0})


@pytest.mark.parametrize("case", ["DQN, distributional", "SAC", "PPO, discrete"])
def test_both_ways_give_the_same_q_values(case: str) -> None:
    build, actions = CASES[case]
    env = Steps(OBS, actions)
    answers = []
    for policy in both(build(), env):
        memories = [policy.begin(str(i)) for i in range(3)]
        for i, memory in enumerate(memories):
            policy.see(memory, env.reset(seed=i)[0])
        answers.append(policy.act(memories, q_values=True, block=4))
    width = {"DQN, distributional": (4,), "SAC": ()}
    for one, other in zip(*answers, strict=True):
        assert set(one.q_values) == set(one.actions if case in width else ())
        for agent, values in one.q_values.items():
            assert values.shape == width[case]
            assert np.array_equal(values, other.q_values[agent])


def looking_back() -> list[Any]:
    return [PrevActionsPrevRewards(n_prev_actions=2, n_prev_rewards=2), FlattenObservations()]


def runner_returns(config: Any, policy: Any, env: Any, seeds: range) -> list[float]:
    """Greedy returns of RLlib's own env runner with the weights of a policy, one episode per seed."""
    returns = []
    for seed in seeds:
        seeded = config.copy(copy_frozen=False).debugging(seed=seed)
        seeded.environment(lambda _: copy.deepcopy(env))
        runner = SingleAgentEnvRunner(config=seeded)
        runner.module.load_state_dict(policy.modules[DEFAULT_MODULE_ID].state_dict(), strict=False)
        (episode,) = runner.sample(num_episodes=1, explore=False)
        returns.append(episode.get_return())
        runner.stop()
    return returns


@pytest.mark.parametrize(
    ("case", "first"),
    [
        ("PPO, continuous", list),
        ("PPO, clipped", list),
        ("PPO, LSTM", list),
        ("SAC", list),
        ("DQN, distributional", list),
        ("PPO, discrete", looking_back),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_rows_are_those_of_rllibs_single_agent_runner(case: str, first: Callable[[], list[Any]]) -> None:
    build, actions = CASES[case]
    env = Steps(OBS, actions)
    policy = make(build(), env, first=first)
    config = build().env_runners(env_to_module_connector=lambda env=None, spaces=None, device=None: first())
    rows = play(policy, pool(env), range(3))
    assert isinstance(policy, DirectPolicy if first is list else ConnectorPolicy)
    # A batch of one has other last bits than a block of 32.
    assert runner_returns(config, policy, env, range(3)) == pytest.approx([row.ret for row in rows], rel=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_rows_are_those_of_rllibs_multi_agent_runner() -> None:
    config = pair_config().environment(Pair).debugging(seed=0).env_runners(num_envs_per_env_runner=4)
    policy = make(config, Pair())
    runner = MultiAgentEnvRunner(config=config)
    for name, module in policy.modules.items():
        runner.module[name].load_state_dict(module.state_dict(), strict=False)
    episodes = runner.sample(num_episodes=4, explore=False)
    rows = play(policy, pool(Pair()), range(4))
    assert [episode.get_return() for episode in episodes] == pytest.approx(
        [row.ret for row in rows], rel=1e-5
    )


def test_filter_statistics_are_applied_and_frozen() -> None:
    env = Steps(gym.spaces.Box(-9, 9, (3,), np.float32), LOPSIDED)
    policy = make(PPOConfig(), env, first=lambda: [MeanStdFilter()])
    connector = policy.env_to_module.connectors[0]
    fresh = play(policy, pool(env), range(4))
    connector._update_stats = True  # as during training
    play(policy, pool(env), range(4))
    connector._update_stats = False
    learned = connector.get_state()
    assert learned[None]["running_stats"][0]["num_pushes"] == 4 * 8
    rows = play(policy, pool(env), range(4), slots=2)
    assert rows != fresh
    assert play(policy, pool(env), range(4), slots=1) == rows
    assert connector.get_state() == learned


def heard(agent: Agent, **said: Any) -> list[list[float]]:
    """The last two rewards that connectors have put beside each row's observation after two steps of a batch."""
    seen: list[Any] = []
    forward = agent.policy._forward

    def watched(batches: Any, *args: Any) -> Any:
        seen.append(batches[DEFAULT_MODULE_ID]["obs"])
        return forward(batches, *args)

    agent.policy._forward = watched
    agent.act(np.zeros((3, 3), np.float32))
    agent.act(np.zeros((3, 3), np.float32), **said)
    agent.policy._forward = forward
    agent.reset()
    return seen[-1][:, -2:].tolist()


def test_every_row_of_a_batch_gets_its_own_reward() -> None:
    policy = make(PPOConfig(), Steps(OBS, gym.spaces.Discrete(4)), first=looking_back)
    agent = Agent(policy, Manifest(Path("checkpoint")))
    assert heard(agent, reward=np.array([1.0, 2.0, 3.0])) == [[0.0, 1.0], [0.0, 2.0], [0.0, 3.0]]
    assert heard(agent, reward=[1, 2, 3]) == [[0.0, 1.0], [0.0, 2.0], [0.0, 3.0]]
    assert heard(agent, reward=5.0) == [[0.0, 5.0]] * 3
    with pytest.raises(UsageError, match="got 2 rewards for 3 observations"):
        agent.act(np.zeros((3, 3), np.float32), reward=[1.0, 2.0])
    with pytest.raises(UsageError, match="got 3 rewards for one observation"):
        agent.act(np.zeros(3, np.float32), reward=[1.0, 2.0, 3.0])
    with pytest.raises(UsageError, match="got one dict of rewards for 3 observations"):
        agent.act(np.zeros((3, 3), np.float32), reward={"a": 1.0})
    agent.act(np.zeros((3, 3), np.float32))
    agent.reset(np.int64(0))
    agent.reset(np.array([1, 2]))
    assert agent._memories == {}


def test_several_agents_get_a_dict_of_rewards_for_each_row() -> None:
    _, policy = both(pair_config(), Pair())
    agent = Agent(policy, Manifest(Path("checkpoint")))
    seen: list[Any] = []
    policy.see = lambda *args, reward, **options: seen.append(reward)  # type: ignore[method-assign]
    policy.act = lambda memories, **options: [Answer() for _ in memories]  # type: ignore[method-assign]
    row = {"early": np.zeros(3, np.float32)}
    for reward in ({"early": 1.0}, 2.0):
        agent.act(row, reward=reward)
    agent.reset()
    agent.act([row, row], reward=[{"early": 3.0}, {"early": 4.0}])
    agent.act([row, row], reward=5.0)
    assert seen == [{"early": 1.0}, 2.0, {"early": 3.0}, {"early": 4.0}, 5.0, 5.0]


def test_a_stranger_among_the_agents_is_named() -> None:
    direct, _ = both(pair_config(), Pair())
    with pytest.raises(UsageError, match=r"unknown agent 'stead'; did you mean 'steady'.*agents: \['early'"):
        direct.action_map("stead")


def test_exploring_without_a_count_of_steps_is_refused() -> None:
    for policy in both(DQNConfig(), Steps(OBS, gym.spaces.Discrete(4))):
        policy.env_steps = None
        memory = policy.begin("episode")
        policy.see(memory, np.zeros(3, np.float32))
        assert policy.act([memory])[0].actions
        with pytest.raises(UsageError, match="does not say how many environment steps"):
            policy.act([memory], explore=True)


def test_long_episodes_are_cut_without_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    env = Steps(OBS, gym.spaces.Discrete(4), length=40)
    policy = make(PPOConfig(), env, first=looking_back)
    rows = play(policy, pool(env), range(2))
    _, several = both(pair_config(), Pair())
    pairs = play(several, pool(Pair()), range(2))
    monkeypatch.setattr(pipelines, "CHUNK", 4)
    monkeypatch.setattr(pipelines, "LOOKBACK", 3)
    assert play(policy, pool(env), range(2)) == rows
    assert play(several, pool(Pair()), range(2)) == pairs


def test_modules_that_see_each_other_are_called_together() -> None:
    calls: list[set[str]] = []

    class Joint(MultiRLModule):
        def _forward_inference(self, batch: dict, **kwargs: Any) -> dict:
            calls.append(set(batch))
            return super()._forward_inference(batch, **kwargs)

    direct, _ = both(pair_config(), Pair())
    assert not direct._joint
    modules = direct.modules
    modules.__class__ = Joint
    policy = DirectPolicy(modules, direct.env_to_module, direct.module_to_env)
    rows = play(policy, pool(Pair()), range(2), slots=2)
    assert len(rows) == 2
    assert {"early_policy", "steady_policy"} in calls


def test_global_random_numbers_are_left_as_they_were() -> None:
    env = Steps(OBS, gym.spaces.Discrete(4))
    policy = make(DQNConfig(), env)
    before = (
        torch.get_rng_state(),
        np.random.get_state()[1].tolist(),
        random.getstate(),
        torch.get_num_threads(),
    )
    play(policy, pool(env), range(3), explore=True)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1].tolist(), random.getstate(), torch.get_num_threads()) == before[1:]


def test_exploration_follows_the_schedule_of_the_checkpoint() -> None:
    env = Steps(OBS, gym.spaces.Discrete(4))
    config = DQNConfig().training(epsilon=[(0, 1.0), (10_000, 0.0)])
    policy = make(config, env)
    policy.env_steps = 10_000
    greedy = play(policy, pool(env), range(5))
    assert play(policy, pool(env), range(5), explore=True) == greedy
    policy.env_steps = 0
    assert play(policy, pool(env), range(5), explore=True) != greedy


@pytest.mark.parametrize("build", [PPOConfig, DQNConfig])
def test_action_masks_are_obeyed(build: Callable[[], Any]) -> None:
    class Masked(Steps):
        """Only one action is legal: the one that the observation's first number points to."""

        def _masked(self, observation: np.ndarray) -> dict[str, np.ndarray]:
            self.legal = int(observation[0] > 0)
            mask = np.eye(4, dtype=np.int8)[self.legal]
            return {"observations": observation, "action_mask": mask}

        def reset(self, **kwargs: Any) -> tuple[Any, dict]:
            return self._masked(super().reset(**kwargs)[0]), {}

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
            assert action == self.legal
            observation, *rest = super().step(action)
            return self._masked(observation), *rest

    env = Masked(OBS, gym.spaces.Discrete(4))
    outer = Masked(OBS, gym.spaces.Discrete(4))
    outer.observation_space = gym.spaces.Dict(observations=OBS, action_mask=gym.spaces.MultiBinary(4))
    config = build()
    config.rl_module(rl_module_spec=module_spec(config, {"name": "mlp", "hiddens": [16]}))
    rows = [play(policy, pool(env), range(4)) for policy in both(config, outer)]
    assert rows[0] == rows[1]
    assert [row.length for row in rows[0]] == [8] * 4
    explored = play(both(config, outer)[0], pool(env), range(4), explore=True)
    assert [row.length for row in explored] == [8] * 4


def test_an_untouched_connector_means_pipelines_and_the_same_rows() -> None:
    env = Steps(OBS, LOPSIDED)
    rows: list[list[Row]] = []
    for first in (list, lambda: [Untouched()]):
        policy = make(SACConfig(), env, first=first)
        rows.append(play(policy, pool(env), range(3)))
    assert isinstance(policy, ConnectorPolicy)
    assert rows[0] == rows[1]


@pytest.mark.parametrize("rows", [1, 4, 5, 9])
def test_blocks_pad_and_join(rows: int) -> None:
    seen: list[int] = []

    def run(batch: dict) -> dict:
        seen.append(len(batch["obs"]["x"]))
        return {"actions": batch["obs"]["x"] * 2, "state_out": {"h": (batch["state_in"]["h"] + 1,)}}

    batch = {"obs": {"x": torch.arange(rows)}, "state_in": {"h": torch.arange(rows)}}
    out = in_blocks(run, batch, 4)
    assert out["actions"].tolist() == [2 * i for i in range(rows)]
    assert out["state_out"]["h"][0].tolist() == [i + 1 for i in range(rows)]
    assert seen == [4] * -(-rows // 4)

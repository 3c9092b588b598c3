"""What is right in one way of acting is right in all: spaces, equal episodes, states, masks (untrained modules)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from policies import Steps, make
from ray.rllib.algorithms.dqn import DQNConfig as RLlibDQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.connectors.env_to_module import FlattenObservations, MeanStdFilter, PrevActionsPrevRewards
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from rlkit import rllib
from rlkit.algos.sampling import acting
from rlkit.algos.sampling.actions import ActionMap
from rlkit.algos.sampling.array_episodes import ArrayFragment
from rlkit.algos.sampling.array_runner import ArrayEnvRunner
from rlkit.models import module_spec
from rlkit.play.agent import Agent
from rlkit.play.connectors import ConnectorPolicy
from rlkit.play.rollout import Pool, play
from rlkit.replay.episodes import rows
from rlkit.roster import module_space

logging.getLogger("ray").setLevel(logging.ERROR)

S = gym.spaces
OBS = S.Box(-1, 1, (3,), np.float32)
HALF = S.Box(np.array([0, -1], np.float32), np.array([np.inf, 1], np.float32))
UNEQUAL = S.Box(np.array([0, -10], np.float32), np.array([1, 30], np.float32))
SPACES: dict[str, gym.Space] = {
    "discrete": S.Discrete(3),
    "start": S.Discrete(3, start=-1),
    "half": HALF,
    "unequal": UNEQUAL,
    "unbounded": S.Box(-np.inf, np.inf, (2,), np.float32),
    "double": S.Box(-3.0, 5.0, (2,), np.float64),
    "float16": S.Box(-3.0, 5.0, (2,), np.float16),
    "scalar": S.Box(-2.0, 6.0, (), np.float32),
    "matrix": S.Box(-2.0, 6.0, (2, 3), np.float32),
    "whole": S.Box(-3, 4, (2,), np.int64),
    "bytes": S.Box(0, 255, (3,), np.uint8),
    "multi-discrete": S.MultiDiscrete([3, 2]),
    "multi-discrete start": S.MultiDiscrete([3, 2], start=[-1, 5]),
    "multi-discrete matrix": S.MultiDiscrete([[3, 2], [4, 2]]),
    "multi-binary": S.MultiBinary(4),
    "multi-binary matrix": S.MultiBinary([2, 2]),
    "dict": S.Dict(turn=S.Discrete(3, start=2), push=S.Dict(x=UNEQUAL, y=S.MultiBinary(2))),
    "tuple": S.Tuple([S.Discrete(2), S.Tuple([HALF, S.MultiDiscrete([[2], [3]])])]),
}


class Strict(Steps):
    """An episode of six steps that fails for an action which its space does not contain, or (`exact`) in dtype."""

    def __init__(self, action_space: gym.Space, observation_space: gym.Space = OBS, exact: bool = True):
        super().__init__(observation_space, action_space, length=6)
        self.exact = exact

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        self.t, self.sum = 0, 0.0
        if seed is not None:
            self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        for part, space in zip(leaves(action), leaves(self.action_space), strict=True):
            assert np.asarray(part).dtype == space.dtype or not self.exact, (part, space)
        return super().step(action)


def leaves(value: Any) -> list[Any]:
    if isinstance(value, S.Dict | S.Tuple):
        value = value.spaces
    if isinstance(value, dict):
        return [leaf for key in sorted(value) for leaf in leaves(value[key])]
    return [leaf for part in value for leaf in leaves(part)] if isinstance(value, tuple) else [value]


def config_for(space: gym.Space, base: Callable[[], Any] = PPOConfig, **env_runners: Any) -> Any:
    config = base().environment(lambda _: Strict(space)).debugging(seed=1)
    config.env_runners(num_env_runners=0, num_envs_per_env_runner=3, rollout_fragment_length=8, **env_runners)
    return config


def wild(module: torch.nn.Module) -> None:
    """Make a module choose far outside of [-1, 1] too."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(4.0)


@pytest.mark.parametrize("clip", [False, True], ids=["normalize", "clip"])
@pytest.mark.parametrize("name", SPACES)
@pytest.mark.filterwarnings("ignore:.*Casting input x to numpy array")
def test_every_action_lies_in_its_space_wherever_it_comes_from(name: str, clip: bool) -> None:
    space = SPACES[name]
    config = config_for(space).environment(normalize_actions=not clip, clip_actions=clip)
    runner = ArrayEnvRunner(config=config)
    wild(runner.module)
    for explore in (True, False):
        assert sum(len(episode) for episode in runner.sample(explore=explore)) >= 24  # arrays
        assert runner.why_episodes is None
        assert len(runner.sample(num_episodes=3, explore=explore)) == 3  # RLlib's loop
    modules = {DEFAULT_MODULE_ID: runner.module}
    for kind in (None, ConnectorPolicy):
        policy = policy_of_runner(runner, modules, kind)
        pool = Pool(lambda render: Strict(space))
        for explore in (True, False):
            assert [row.length for row in play(policy, pool, range(2), explore=explore)] == [6, 6]
        agent = Agent(policy, None)  # type: ignore[arg-type]
        for action in (agent.act(OBS.sample(), explore=True), *agent.act([OBS.sample()] * 2)):
            assert space.contains(action), action
    runner.stop()


def policy_of_runner(runner: Any, modules: dict[str, Any], kind: Any) -> Any:
    from rlkit.play.connectors import policy_of

    return (kind or policy_of)(modules, *runner.pipelines)


def test_what_the_map_does_by_hand() -> None:
    assert ActionMap(SPACES["start"], True, False)(np.array([0, 2])).tolist() == [-1, 1]
    half = ActionMap(HALF, True, False)
    assert half(np.float32([[-0.5, -0.5], [7.0, 3.0]])).tolist() == [[0.0, -0.5], [7.0, 1.0]]
    unequal = np.float32([[-1, -1], [0, 0], [3, 0.5]])
    assert ActionMap(UNEQUAL, True, False)(unequal).tolist() == [[0, -10], [0.5, 10], [1, 20]]
    assert ActionMap(UNEQUAL, False, True)(unequal).tolist() == [[0, -1], [0, 0], [1, 0.5]]
    assert ActionMap(UNEQUAL, False, False)(unequal).tolist() == unequal.tolist()
    whole = ActionMap(SPACES["whole"], True, False)
    assert whole(np.float32([[-1, 1], [0.1, -9]])).tolist() == [[-3, 4], [1, -3]]
    assert whole(np.array([[0, 7]])).tolist() == [[-3, 4]]  # choices count from low
    bits = ActionMap(SPACES["multi-binary matrix"], True, False)(np.array([[1, 0, 0, 1]]))
    assert bits.dtype == np.int8
    assert bits.tolist() == [[[1, 0], [0, 1]]]
    wide = S.Box(-3e38, 3e38, (1,), np.float32)
    assert ActionMap(wide, True, False)(np.float32([[-1], [0], [1]])).tolist() == [
        [wide.low[0]],
        [0.0],
        [wide.high[0]],
    ]


@pytest.mark.parametrize("name", [n for n in SPACES if n != "bytes"])
def test_the_way_back_gives_the_modules_action(name: str) -> None:
    space = SPACES[name]
    space.seed(3)
    mapping = ActionMap(space, True, False)
    for _ in range(5):
        action = space.sample()
        inside = mapping.back(action)
        for one, part in zip(leaves(inside), leaves(module_space(space)), strict=True):
            assert (np.shape(one), np.asarray(one).dtype) == (part.shape, part.dtype)
        again = mapping.one(inside)
        for one, other in zip(leaves(action), leaves(again), strict=True):
            assert np.allclose(one, other, atol=1e-4)


def content(episode: Any) -> tuple:
    def flat(value: Any) -> Any:
        # RLlib's `TensorToNumpy` makes int32 of int64 (2.60)
        found = [np.asarray(leaf) for leaf in leaves(value)]
        return [(leaf.astype(np.int64) if leaf.dtype.kind == "i" else leaf).tobytes() for leaf in found]

    outputs = {name: flat(rows(buffer)) for name, buffer in episode.extra_model_outputs.items()}
    return (
        episode.t_started, len(episode), episode.is_terminated, episode.is_truncated,
        flat(rows(episode.observations)), flat(rows(episode.actions)), flat(rows(episode.rewards)),
        sorted(outputs.items()), episode.observations.lookback,
    )  # fmt: skip


LSTM = {"use_lstm": True, "lstm_cell_size": 8, "max_seq_len": 5}
MIXED = S.Dict(
    a=S.Discrete(3), b=S.Box(-9, 9, (2, 2), np.float64), c=S.MultiDiscrete([2, 3]), d=S.MultiBinary(2)
)
EQUAL: dict[str, tuple[Callable[[], Any], gym.Space, gym.Space, Callable[[], list[Any]]]] = {
    "PPO, discrete": (PPOConfig, S.Discrete(4), OBS, list),
    "PPO, box": (PPOConfig, UNEQUAL, OBS, list),
    "PPO, multi-discrete": (PPOConfig, S.MultiDiscrete([3, 2]), OBS, list),
    "PPO, dict": (PPOConfig, S.Dict(push=S.Discrete(3), turn=UNEQUAL), OBS, list),
    "PPO, LSTM": (lambda: PPOConfig().rl_module(model_config=LSTM), UNEQUAL, OBS, list),
    "PPO, flattened": (PPOConfig, S.Discrete(4), MIXED, lambda: [FlattenObservations()]),
    "PPO, filter": (PPOConfig, S.Discrete(4), S.Box(-9, 9, (3,), np.float64), lambda: [MeanStdFilter()]),
    "DQN": (RLlibDQNConfig, S.Discrete(4), OBS, list),
    "SAC": (SACConfig, UNEQUAL, OBS, list),
}


@pytest.mark.parametrize("case", EQUAL)
def test_episodes_are_rllibs_to_the_last_bit(case: str) -> None:
    build, acts, sees, pieces = EQUAL[case]

    def sampled(cls: type) -> tuple[Any, list[Any], dict[str, Any]]:
        config = build().environment(lambda _: Strict(acts, sees, exact=False)).debugging(seed=1)
        config.env_runners(
            num_env_runners=0, num_envs_per_env_runner=3, rollout_fragment_length=8,
            env_to_module_connector=lambda env, spaces, device: pieces(),
        )  # fmt: skip
        torch.manual_seed(0)
        runner = cls(config=config)
        torch.manual_seed(1)
        found = [sorted(content(e) for e in runner.sample()) for _ in range(4)]
        return runner, found, runner.get_metrics()

    _, theirs, their_metrics = sampled(rllib.seeded(SingleAgentEnvRunner))
    runner, ours, our_metrics = sampled(ArrayEnvRunner)
    assert runner.why_episodes is None
    assert ours == theirs
    for name in ("num_env_steps_sampled", "num_episodes", "episode_return_mean", "episode_len_mean"):
        assert our_metrics[name].peek() == pytest.approx(their_metrics[name].peek()), name


def fragments(config: Any, calls: int = 1) -> tuple[Any, list[ArrayFragment]]:
    config.array_fragments = True
    torch.manual_seed(0)
    runner = ArrayEnvRunner(config=config)
    torch.manual_seed(1)
    found = [runner.sample() for _ in range(calls)]
    assert all(len(samples) == 1 and isinstance(samples[0], ArrayFragment) for samples in found)
    return runner, [samples[0] for samples in found]


def test_a_fragment_holds_the_steps_of_the_episodes() -> None:
    _, (one, two) = fragments(config_for(UNEQUAL), calls=2)
    torch.manual_seed(0)
    runner = ArrayEnvRunner(config=config_for(UNEQUAL))
    torch.manual_seed(1)
    episodes = runner.sample()
    assert one.env_steps == sum(map(len, episodes)) == 24
    assert one.rewards.shape == one.fresh.shape == one.action_logp.shape == (len(one.fresh), 3)
    assert one.obs.shape == (len(one.fresh) + 1, 3, 3)
    assert one.action_dist_inputs.shape == (len(one.fresh), 3, 4)
    first = next(e for e in episodes if e.t_started == 0 and e.is_done)
    assert any(np.array_equal(one.obs[:7, n], rows(first.observations)) for n in range(3))
    assert one.done.sum() == sum(e.is_done for e in episodes)
    # in the iteration after an end the environment was reset: no step, no reward
    t, n = np.argwhere(one.done[:-1])[0]
    assert one.fresh[t + 1, n]
    assert one.rewards[t + 1, n] == 0
    assert not one.goes_on()[t, n]
    assert not one.goes_on()[t + 1, n]
    assert one.goes_on()[0].all()
    assert np.array_equal(one.obs[-1], two.obs[0])
    assert two.times.tolist() == [len(one.fresh) - 7] * 3  # six steps, a reset, and what came then


def test_recurrent_state_is_kept_and_reset_with_its_episode() -> None:
    config = config_for(UNEQUAL).rl_module(model_config=LSTM)
    runner, (one, two) = fragments(config, calls=2)
    h = one.states["actor"]["h"]
    assert h.shape == (len(one.fresh) + 1, 3, 1, 8)
    assert not h[0].any()
    assert h[1].all()
    for t, n in np.argwhere(one.fresh):
        assert h[t, n].any()  # the module still saw the last observation with the state it had
        assert not h[t + 1, n].any()
    assert np.array_equal(two.states["actor"]["h"][0], h[-1])
    # the same actions' distributions, from the states of the fragment alone
    batch = {"obs": torch.from_numpy(one.obs[:-1].reshape(-1, 1, 3))}
    batch["state_in"] = acting.map_tensors(lambda v: v[:-1].reshape(-1, 1, 8), acting.tensors(one.states))
    with torch.no_grad():
        out = acting.act(runner.module, batch, explore=True, t=0)
    assert np.allclose(out["action_dist_inputs"].squeeze(1).numpy().reshape(one.action_dist_inputs.shape),
                       one.action_dist_inputs, atol=1e-6)  # fmt: skip


class Masked(gym.Env):
    """One of six actions is legal in each step; another one is an error."""

    observation_space = S.Dict(observation=OBS, action_mask=S.Box(0, 1, (6,), np.float32))
    action_space = S.Discrete(6)

    def _see(self) -> dict[str, np.ndarray]:
        self.legal = int(self.np_random.integers(6))
        return {
            "observation": np.zeros(3, np.float32),
            "action_mask": np.eye(6, dtype=np.float32)[self.legal],
        }

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.t = 0
        return self._see(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        assert action == self.legal
        self.t += 1
        return self._see(), 1.0, self.t == 5, False, {}


@pytest.mark.parametrize("base", [PPOConfig, RLlibDQNConfig])
def test_masks_are_obeyed_on_arrays(base: Callable[[], Any]) -> None:
    config = base().environment(lambda _: Masked()).debugging(seed=1)
    config.env_runners(num_env_runners=0, num_envs_per_env_runner=4, rollout_fragment_length=20)
    config.rl_module(rl_module_spec=module_spec(config, {"name": "mlp", "hiddens": [16]}))
    runner, (fragment,) = fragments(config)
    assert runner.why_episodes is None
    assert fragment.obs["action_mask"].shape == (len(fragment.fresh) + 1, 4, 6)
    assert fragment.env_steps == 80


class Follows(RLlibCallback):
    """Notes what episodes look like to hooks."""

    def __init__(self) -> None:
        self.created, self.started, self.ended = 0, [], []

    def on_episode_created(self, *, episode: Any, **kwargs: Any) -> None:
        self.created += 1
        episode.custom_data["born"] = self.created

    def on_episode_start(self, *, episode: Any, **kwargs: Any) -> None:
        self.started.append((episode.custom_data["born"], episode.get_observations(-1).tolist()))

    def on_episode_end(self, *, episode: Any, prev_episode_chunks: Any, **kwargs: Any) -> None:
        chunks = [*prev_episode_chunks, episode]
        length, earned = sum(map(len, chunks)), sum(e.get_return() for e in chunks)
        self.ended.append((episode.custom_data["born"], length, round(earned, 3), len(chunks)))


@pytest.mark.parametrize("as_fragments", [False, True])
def test_hooks_see_episodes_as_they_were(as_fragments: bool) -> None:
    def noted(cls: type, arrays: bool) -> tuple[Any, dict[str, Any]]:
        config = config_for(UNEQUAL).callbacks(Follows).env_runners(rollout_fragment_length=4)
        config.array_fragments = arrays
        torch.manual_seed(0)
        runner = cls(config=config)
        torch.manual_seed(1)
        for _ in range(7):
            runner.sample()
        return runner, runner.get_metrics()

    runner, metrics = noted(ArrayEnvRunner, as_fragments)
    theirs, _ = noted(rllib.seeded(SingleAgentEnvRunner), False)
    assert runner.why_episodes is None
    (ours,), (rllibs,) = runner._callbacks, theirs._callbacks
    assert ours.started == rllibs.started
    assert [length for _, length, _, _ in ours.ended] == [6] * len(ours.ended)
    assert any(chunks > 1 for *_, chunks in ours.ended)
    assert [end[:1] for end in ours.ended] == [end[:1] for end in rllibs.ended]
    assert metrics["episode_len_mean"].peek() == 6
    returns = [earned for _, _, earned, _ in ours.ended]
    assert metrics["episode_return_mean"].peek() == pytest.approx(np.mean(returns), abs=1e-3)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda c: c.callbacks(on_episode_step=lambda **kwargs: None), "on_episode_step"),
        (
            lambda c: c.env_runners(
                env_to_module_connector=lambda env, spaces, device: [
                    PrevActionsPrevRewards(),
                    FlattenObservations(),
                ]
            ),
            "PrevActionsPrevRewards",
        ),
        (lambda c: c.env_runners(batch_mode="complete_episodes"), "complete_episodes"),
    ],
    ids=["hook", "connector", "whole episodes"],
)
def test_what_needs_episodes_goes_rllibs_way_and_says_why_once(
    change: Callable[[Any], Any], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = change(config_for(S.Discrete(3, start=-1)))
    config.array_fragments = True
    runner = ArrayEnvRunner(config=config)
    with caplog.at_level("WARNING", logger="rlkit"):
        for _ in range(2):
            assert sum(map(len, runner.sample())) >= 6
    said = [record.message for record in caplog.records if "RLlib's loop" in record.message]
    assert len(said) == 1
    assert why in said[0]


def test_a_reader_of_samples_gets_episodes() -> None:
    seen: list[Any] = []

    def read(samples: list[Any], **kwargs: Any) -> None:
        seen.extend(samples)

    config = config_for(UNEQUAL).callbacks(on_sample_end=read)
    config.array_fragments = True
    runner = ArrayEnvRunner(config=config)
    samples = runner.sample()
    assert seen == samples
    assert sum(map(len, samples)) == 24


def test_distributions_in_short_draw_what_rllibs_draw() -> None:
    from ray.rllib.core.distribution.torch.torch_distribution import TorchCategorical, TorchDiagGaussian

    for kind, short in (
        (TorchCategorical, acting.categorical),
        (TorchDiagGaussian, lambda x: acting.diagonal_gaussian(x, True)),
    ):
        for shape in ((8, 4), (3, 1, 6)):
            inputs = torch.randn(shape)
            torch.manual_seed(5)
            distribution = kind.from_logits(inputs)
            actions = distribution.sample()
            torch.manual_seed(5)
            ours, logp = short(inputs)
            assert torch.equal(ours, actions)
            assert torch.equal(logp, distribution.logp(actions))


@pytest.mark.parametrize("rllibs", [False, True])
def test_a_greedy_action_of_sac_is_squashed(rllibs: bool) -> None:
    """RLlib 2.60 clips the Gaussian's mean, so that a mean of 1 acts at the bound; tanh(1) is .7616."""
    space = gym.spaces.Box(-2.0, 2.0, (1,), np.float32)
    policy = make(SACConfig(), Steps(gym.spaces.Box(-1, 1, (3,), np.float32), space), force=rllibs)
    assert isinstance(policy, ConnectorPolicy) == rllibs
    head = list(policy.modules[DEFAULT_MODULE_ID].pi.modules())[-1]
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.tensor([1.0, 0.0]))  # mean, log std
    memory = policy.begin("0")
    policy.see(memory, np.zeros(3, np.float32))
    (answer,) = policy.act([memory])
    (action,) = answer.actions.values()
    assert np.allclose(action, 2 * np.tanh(1.0), atol=1e-5)


def test_the_policy_of_a_config_maps_actions_too() -> None:
    policy = make(PPOConfig(), Strict(SPACES["start"]))
    assert [row.length for row in play(policy, Pool(lambda r: Strict(SPACES["start"])), range(3))] == [6] * 3

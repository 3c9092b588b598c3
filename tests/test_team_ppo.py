"""Teams on PPO's columns: independent critics (IPPO) and centralised ones (MAPPO)."""

from __future__ import annotations

import logging
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo import PPOConfig as RLlibPPOConfig
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from ray.tune.registry import register_env

from rlkit import recipe as recipes
from rlkit.algos import PPOConfig
from rlkit.algos.onpolicy.episodes import fragments_of
from rlkit.algos.onpolicy.gae import gae, gae_of_team
from rlkit.algos.onpolicy.team_module import ValueNormalizer
from rlkit.algos.sampling.episode_runner import EpisodeRunner
from rlkit.algos.sampling.team_fragment import TeamFragment
from rlkit.algos.sampling.team_runner import TeamEnvRunner
from rlkit.envs.make import env_creator
from rlkit.errors import RunFailed
from rlkit.models.spec import module_spec
from rlkit.roster import fixed_policies

SPREAD = "pettingzoo/mpe2.simple_spread_v3"


class Dying(MultiAgentEnv):
    """`b` comes in step 1 and terminates in step 3, `a` is cut in step 5. Their spaces differ."""

    reward = 1.0

    def __init__(self, config: Any = None):
        super().__init__()
        self.possible_agents = ["a", "b"]
        self.agents = ["a"]
        self.observation_spaces = {
            "a": gym.spaces.Box(-9, 9, (2,), np.float32),
            "b": gym.spaces.Box(-9, 9, (3,), np.float32),
        }
        self.action_spaces = {"a": gym.spaces.Discrete(2), "b": gym.spaces.Box(-1, 1, (1,), np.float32)}
        self.t = 0

    def _seen(self) -> dict[str, Any]:
        agents = ["a", *(["b"] if 1 <= self.t <= 3 else [])]
        return {x: np.full(self.observation_spaces[x].shape, self.t, np.float32) for x in agents}

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self.t = 0
        return self._seen(), {}

    def step(self, actions: Any) -> Any:
        self.t += 1
        seen = self._seen()
        self.agents = sorted(seen)
        rewards = dict.fromkeys(seen, self.reward)
        terminated = {"__all__": False} | ({"b": True} if self.t == 3 else {})
        return seen, rewards, terminated, {"__all__": self.t == 5}, {}


class Flags(Dying):
    """Both act for three steps; the last flags are those of `ends`."""

    ends: tuple[dict[str, bool], dict[str, bool]] = ({}, {})

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.agents = ["a", "b"]

    def _seen(self) -> dict[str, Any]:
        return {x: np.full(self.observation_spaces[x].shape, self.t, np.float32) for x in ("a", "b")}

    def step(self, actions: Any) -> Any:
        self.t += 1
        flags = self.ends if self.t == 3 else ({}, {})
        terminated, truncated = ({"__all__": False, **given} for given in flags)
        return self._seen(), {"a": 1.0, "b": 1.0}, terminated, truncated, {}


class Absent(Dying):
    """`c` may come, and never does."""

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.possible_agents = ["a", "b", "c"]
        self.observation_spaces["c"], self.action_spaces["c"] = (
            self.observation_spaces["a"],
            self.action_spaces["a"],
        )


register_env("dying", Dying)
register_env("flags", Flags)
register_env("absent", Absent)
register_env(SPREAD, env_creator(SPREAD))


def config_of(env: str = SPREAD, policies: Any = ("p",), **training: Any) -> PPOConfig:
    config = PPOConfig().environment(env)
    config.env_runners(num_env_runners=0, num_envs_per_env_runner=2, rollout_fragment_length=30)
    config.training(
        train_batch_size_per_learner=60, minibatch_size=30, num_epochs=2, lr=1e-3, use_kl_loss=False, **training
    )  # fmt: skip
    mapping = (
        (lambda agent, episode, **_: policies[0]) if len(policies) == 1 else (lambda agent, *_, **__: agent)
    )
    config.multi_agent(policies=list(policies), policy_mapping_fn=mapping)
    config.rl_module(model_config={"fcnet_hiddens": [16]})
    return config.debugging(seed=0, log_level="ERROR")


# Advantages


def test_an_agents_advantages_run_along_its_own_steps() -> None:
    # one environment, agents x (all steps) and y (steps 0 and 2; cut after 2, never seen again)
    acted = np.array([[1, 1], [1, 0], [1, 1], [0, 0]], bool)[:, None]
    present = np.array([[1, 1], [1, 0], [1, 1], [1, 0], [1, 1]], bool)[:, None]
    last = np.array([0, 0, 0, 1, 1], bool)[:, None]
    rewards = np.array([[1, 1], [2, 0], [3, 3], [0, 0]], float)[:, None]
    values = np.array([[10, 1], [20, 99], [30, 3], [40, 77], [50, 50]], float)[:, None]
    none = np.zeros_like(acted)
    terminated, truncated = none.copy(), none.copy()
    truncated[2, 0, 1] = True
    found = gae_of_team(rewards, values, terminated, truncated, acted, present, last, gamma=0.5, lambda_=0.5)
    # x: deltas 1 + 10 - 10 = 1, 2 + 15 - 20 = -3, 3 + 20 - 30 = -7
    assert found[:, 0, 0].tolist() == pytest.approx([1 - 0.25 * (3 + 0.25 * 7), -3 - 0.25 * 7, -7, 0])
    # y: deltas 1 + .5 * 3 - 1 = 1.5 (to its next observation, two rows on), 3 - 3 = 0 (no bootstrap)
    assert found[:, 0, 1].tolist() == pytest.approx([1.5, 0, 0, 0])


def test_an_agent_that_is_cut_off_before_its_episode_ends_is_bootstrapped() -> None:
    # agent 1 is truncated in row 0 and seen once more in row 1, where V is 10; the episode goes on without it
    def column(*rows: list[float]) -> np.ndarray:
        return np.array(rows)[:, None]

    acted = column([1, 1], [1, 0], [1, 0]).astype(bool)
    present = column([1, 1], [1, 1], [1, 0], [1, 0]).astype(bool)
    truncated = column([0, 1], [0, 0], [1, 0]).astype(bool)
    rewards, values = column([0, 1.0], [0, 0], [0, 0]), column([0, 2.0], [0, 10.0], [0, 0], [0, 0])
    last = np.array([[0], [0], [0], [1]], bool)
    found = gae_of_team(
        rewards, values, np.zeros_like(truncated), truncated, acted, present, last, gamma=0.5, lambda_=0.5
    )
    assert found[0, 0, 1] == 1 + 0.5 * 10 - 2
    assert not found[1:, 0, 1].any()


def test_a_full_team_has_the_advantages_of_single_agents() -> None:
    rng = np.random.default_rng(0)
    shape = (12, 3, 2)
    rewards, values = rng.normal(size=shape), rng.normal(size=(13, 3, 2))
    fresh = np.zeros(shape[:2], bool)
    fresh[[4, 9], [0, 2]] = True
    terminated, truncated = np.zeros(shape, bool), np.zeros(shape, bool)
    terminated[3, 0], truncated[8, 2] = True, True
    last = np.concatenate([fresh, np.ones((1, 3), bool)])
    acted = np.repeat(~fresh[..., None], 2, axis=2)
    goes_on = np.zeros(shape, bool)
    goes_on[:-1] = acted[:-1] & ~(terminated | truncated)[:-1] & acted[1:]
    found = gae_of_team(
        rewards, values, terminated, truncated, acted, np.ones_like(values, bool), last, gamma=0.9, lambda_=0.8
    )  # fmt: skip
    expected = gae(rewards, values, terminated, goes_on, gamma=0.9, lambda_=0.8)
    np.testing.assert_allclose(found[acted], expected[acted], atol=1e-5)


# Value normalisation


def test_popart_moves_no_value_and_running_statistics_are_unbiased() -> None:
    layer, normalizer = torch.nn.Linear(4, 2), ValueNormalizer(2)
    features = torch.randn(8, 4)
    before = normalizer.plain(layer(features)).detach()
    targets = torch.tensor([[100.0, 1.0], [300.0, 3.0]])
    normalizer.see(targets, None, layer)
    mean, deviation = normalizer.moments()
    torch.testing.assert_close(mean, torch.tensor([200.0, 2.0]))  # one batch: its own mean, not .01 of it
    torch.testing.assert_close(deviation, torch.tensor([100.0, 1.0]), rtol=1e-3, atol=0)
    torch.testing.assert_close(normalizer.plain(layer(features)).detach(), before, rtol=1e-4, atol=1e-3)
    normalizer.see(torch.tensor([[7.0, 4.0]]), torch.tensor([[False, True]]))
    assert normalizer.moments()[0][0] == pytest.approx(200.0)  # an absent agent's target does not count


@pytest.mark.parametrize("normalize", ["running", "popart"])
def test_old_values_of_a_batch_are_what_the_critic_puts_out_before_the_first_update(normalize: str) -> None:
    config = config_of("flags", ("a", "b"), critic="centralized", normalize_values=normalize)
    config.validate()
    spaces = {a: (Flags().observation_spaces[a], Flags().action_spaces[a]) for a in "ab"}
    module = config.build_learner(spaces=spaces).module["a"].unwrapped()
    inputs = torch.randn(6, 2 + 3)  # what both observe
    for mean in (-30.0, -25.0, 80.0):
        values = module.team_values(inputs).detach()
        targets = torch.full_like(values, mean) + torch.randn_like(values)
        old, wanted = module.in_its_units(values, targets, None)
        torch.testing.assert_close(old, module.critic(inputs).detach(), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(module.value_normalizer.plain(wanted), targets, rtol=1e-3, atol=1e-3)


# Sampling


class Whole(Flags):
    """Actions are whole numbers, and floats of half precision."""

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.action_spaces = {
            "a": gym.spaces.Box(-3, 4, (2,), np.int64),
            "b": gym.spaces.Box(-1, 1, (1,), np.float16),
        }


register_env("whole", Whole)


def test_rows_hold_what_modules_chose_not_what_the_environment_got() -> None:
    runner = TeamEnvRunner(config=config_of("whole", ("a", "b")).env_runners(env_runner_cls=TeamEnvRunner))
    (sample,) = runner.sample()
    assert runner.why_episodes is None
    for name in ("a", "b"):
        part, module = sample.of_module(name), runner.module[name]
        taken = torch.from_numpy(np.asarray(part.actions[~part.fresh]))
        assert taken.dtype == torch.float32
        inputs = torch.from_numpy(np.asarray(part.action_dist_inputs[~part.fresh]))
        again = module.get_train_action_dist_cls().from_logits(inputs).logp(taken).numpy()
        np.testing.assert_allclose(again, part.action_logp[~part.fresh], rtol=1e-4, atol=1e-4)


class Numbered(MultiAgentEnv):
    """Agents 1 and 2 see their number."""

    def __init__(self, config: Any = None):
        super().__init__()
        self.possible_agents = self.agents = [1, 2]
        self.observation_spaces = dict.fromkeys([1, 2], gym.spaces.Box(0, 9, (1,), np.float32))
        self.action_spaces = dict.fromkeys([1, 2], gym.spaces.Discrete(2))

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return {i: np.full(1, i, np.float32) for i in (1, 2)}, {}

    def step(self, actions: Any) -> Any:
        flags = {"__all__": False}
        return self.reset()[0], {1: 1.0, 2: 2.0}, flags, flags, {}


register_env("numbered", Numbered)


def test_agents_that_are_whole_numbers_are_told_apart_or_refused() -> None:
    config = config_of("numbered", ("one", "two")).env_runners(env_runner_cls=TeamEnvRunner)
    config.multi_agent(policy_mapping_fn=lambda agent, *_, **__: ["one", "two"][agent - 1])
    runner = TeamEnvRunner(config=config)
    (sample,) = runner.sample()
    assert runner.why_episodes is None
    for number, module in enumerate(("one", "two"), 1):
        part = sample.of_module(module)
        assert set(part.obs.ravel().tolist()) == set(part.rewards.ravel().tolist()) == {number}
    with pytest.raises(ValueError, match="got the agents 1, 2, expected names"):
        fixed_policies([1, 2], lambda agent, episode: "p", ["p"])


class Alike(Flags):
    """Both have the spaces of `a`; episodes of three steps."""

    ends = ({"__all__": True}, {})

    def __init__(self, config: Any = None):
        super().__init__(config)
        for spaces in (self.observation_spaces, self.action_spaces):
            spaces["b"] = spaces["a"]


register_env("alike", Alike)


def test_a_policy_that_changes_between_episodes_is_noticed_in_the_midst_of_a_sample(
    caplog: pytest.LogCaptureFixture,
) -> None:
    played: dict[Any, int] = {}

    def swaps(agent: str, episode: Any, **_: Any) -> str:
        number = played.setdefault(episode.id_, len(played))
        return "ab"[(number + (agent == "b")) % 2]

    config = config_of("alike", ("a", "b")).env_runners(
        num_envs_per_env_runner=1, rollout_fragment_length=8, env_runner_cls=TeamEnvRunner
    )
    config.multi_agent(policy_mapping_fn=swaps)
    runner = TeamEnvRunner(config=config)
    with caplog.at_level(logging.WARNING):
        found = runner.sample()  # the third episode's policies are the first one's
    assert not any(isinstance(part, TeamFragment) for part in found)
    assert "the policy of an agent changes between episodes" in caplog.text
    counted = runner.get_metrics()[NUM_ENV_STEPS_SAMPLED_LIFETIME].peek()
    assert counted == sum(part.env_t - part.env_t_started for part in found)


@pytest.mark.parametrize(
    ("ends", "terminated"),
    [
        (({"__all__": True}, {"__all__": True}), [True, True]),
        (({"a": True, "b": True, "__all__": True}, {"a": True, "b": True, "__all__": True}), [True, True]),
        (({"__all__": True}, {"a": True, "b": True}), [False, False]),
        (({"a": True, "__all__": True}, {"b": True}), [True, False]),
    ],
)
@pytest.mark.parametrize("kind", [TeamEnvRunner, EpisodeRunner])
def test_the_last_flags_of_a_team_are_an_agents_own_and_both_mean_terminated(
    ends: Any, terminated: list[bool], kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Flags, "ends", ends)
    runner = kind(config=config_of("flags", ("a", "b")).env_runners(env_runner_cls=kind, explore=False))
    found = runner.sample()
    parts = [f.of_module(m) for f in found for m in ("a", "b")] if kind is TeamEnvRunner else None
    if parts is None:
        parts = [fragments_of(found, default_module="")[module] for module in ("a", "b")]
    assert [bool(part.terminated.any()) for part in parts] == terminated
    assert [bool(part.truncated.any()) for part in parts] == [not flag for flag in terminated]


def test_a_team_sampled_on_arrays_is_that_of_rllibs_episodes() -> None:
    made = {}
    for kind in (TeamEnvRunner, EpisodeRunner):
        config = config_of().env_runners(env_runner_cls=kind, explore=False)
        config.validate()
        made[kind] = kind(config=config, worker_index=0)
    made[EpisodeRunner].module.set_state(made[TeamEnvRunner].module.get_state())
    with torch.no_grad():
        (ours,), theirs = (made[kind].sample() for kind in (TeamEnvRunner, EpisodeRunner))
    assert isinstance(ours, TeamFragment)
    mine, rllibs = ours.of_module("p"), fragments_of(theirs, default_module="")["p"]
    assert mine is not None
    for name in ("actions", "rewards", "terminated", "truncated"):
        a, b = (np.sort(getattr(x, name)[~x.fresh]) for x in (mine, rllibs))
        np.testing.assert_allclose(a, b, atol=1e-5, err_msg=name)
    assert mine.truncated.sum() == rllibs.truncated.sum() == 2 * 3
    assert ours.last.sum() == 2 + 2  # episodes of 25 steps, and the end of the sample


# Training


@pytest.mark.parametrize("normalize", [None, "running", "popart"])
def test_agents_that_come_late_and_die_are_learned_from_where_they_acted(
    ray_local: None, caplog: pytest.LogCaptureFixture, normalize: str | None
) -> None:
    config = config_of("dying", ("a", "b"), critic="centralized", normalize_values=normalize)
    with caplog.at_level(logging.WARNING):
        algorithm = config.build_algo()
    try:
        before = {m: algorithm.get_module(m).state_dict() for m in "ab"}
        before = {m: {k: v.clone() for k, v in state.items()} for m, state in before.items()}
        with caplog.at_level(logging.WARNING):
            algorithm.train()
            algorithm.train()
        assert sum("RLlib's loop samples episodes" in r.message for r in caplog.records) == 1
        for m in "ab":
            state = algorithm.get_module(m).state_dict()
            assert all(torch.isfinite(v).all() for v in state.values())
            assert any(not torch.equal(v, before[m][k]) for k, v in state.items())
            assert not any(name.startswith("critic") for name in state)  # actors alone outside of the learner
    finally:
        algorithm.stop()


@pytest.mark.parametrize("c_plays", ["a", "c"], ids=["shares", "alone"])
def test_an_agent_that_never_acts_teaches_nothing(ray_local: None, c_plays: str) -> None:
    config = config_of("absent", ("a", "b", "c"), critic="centralized")
    config.multi_agent(
        policies=sorted({"a", "b", c_plays}),
        policy_mapping_fn=lambda agent, *_, **__: c_plays if agent == "c" else agent,
    )
    algorithm = config.build_algo()
    try:
        before = {k: v.clone() for k, v in algorithm.get_module(c_plays).state_dict().items()}
        algorithm.train()
        after = algorithm.get_module(c_plays).state_dict()
        same = all(torch.equal(after[k], v) for k, v in before.items())
        assert same == (c_plays == "c")
    finally:
        algorithm.stop()


def test_a_checkpoint_goes_on_bit_for_bit(ray_local: None, tmp_path: Any) -> None:
    config = config_of(critic="centralized", normalize_values="popart")
    first = config.build_algo()
    try:
        first.train()
        first.save_to_path(str(tmp_path / "c"))
        second = config.copy().build_algo()
        second.restore_from_path(str(tmp_path / "c"))
        a, b = (x.learner_group._learner.module["p"].state_dict() for x in (first, second))
        assert any("value_normalizer" in name for name in a)
        for name in a:
            assert torch.equal(a[name], b[name]), name
        second.stop()
    finally:
        first.stop()


def test_a_nan_reward_stops_before_a_weight_changes(ray_local: None, monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm = config_of("dying", ("a", "b"), critic="centralized").build_algo()
    try:
        learner = algorithm.learner_group._learner
        before = {k: v.clone() for k, v in learner.module["a"].state_dict().items()}
        monkeypatch.setattr(Dying, "reward", float("nan"))
        with pytest.raises(RunFailed, match=r"module 'a'.*reward"):
            algorithm.train()
        assert all(torch.equal(v, before[k]) for k, v in learner.module["a"].state_dict().items())
    finally:
        algorithm.stop()


@pytest.mark.parametrize(
    ("training", "match"),
    [
        ({"critic": "central"}, "expected centralized or local"),
        ({"critic_input": "state"}, "with critic: local"),
        ({"critic": {"q": "centralized"}}, "there is no policy 'q'"),
        ({"critic": "centralized", "normalize_values": "pop"}, "expected running or popart"),
    ],
)
def test_what_cannot_work_is_refused(training: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        config_of(**training).validate()


@pytest.mark.parametrize("name", ["lstm", "gru", "attention"])
def test_a_recurrent_model_is_refused_beside_a_centralised_critic(name: str) -> None:
    for critic in ("centralized", {"*": "local", "a": "centralized"}):
        config = config_of("dying", ("a", "b"), critic=critic)
        config.rl_module(rl_module_spec=module_spec(config, {"name": name}))
        message = f"policy 'a' has the recurrent model '{name}'.*write name: mlp, or critic"
        with pytest.raises(ValueError, match=message):
            config.get_multi_rl_module_spec(env=Dying())


def test_a_state_is_read_where_there_is_one() -> None:
    config = config_of(critic="centralized", critic_input="state")
    assert config.state_space().shape == (54,)
    with pytest.raises(ValueError, match="gives no global state"):
        config_of("dying", ("a", "b"), critic="centralized", critic_input="state").state_space()


def test_a_recipe_is_told_where_a_centralised_critic_cannot_be() -> None:
    with pytest.raises(recipes.RecipeError) as error:
        recipes.from_mapping(
            {"algorithm": "PPO", "env": "CartPole-v1", "config": {"training": {"critic": "centralized"}}}
        )
    assert "needs several agents, CartPole-v1 has one; fix: write critic: local" in str(error.value)


# Updates


def test_a_minibatch_of_two_policies_is_updated_as_rllib_does() -> None:
    spaces = {a: (Dying().observation_spaces[a], Dying().action_spaces[a]) for a in "ab"}
    learners = []
    for kind in (PPOConfig, RLlibPPOConfig):
        config = (
            kind()
            .environment("dying")
            .multi_agent(policies=list("ab"), policy_mapping_fn=lambda a, *_, **__: a)
        )
        config.training(lr=1e-3, minibatch_size=16, vf_clip_param=0.5, entropy_coeff=0.01)
        config.rl_module(model_config={"fcnet_hiddens": [16]})
        config.validate()
        learners.append(config.build_learner(spaces=spaces))
    mine, rllibs = learners
    rllibs.module.set_state(mine.module.get_state())
    torch.manual_seed(0)
    batch = {}
    for m in "ab":
        module = mine.module[m].unwrapped()
        obs = torch.randn(16, *spaces[m][0].shape)
        with torch.no_grad():
            inputs = module.forward_train({"obs": obs})["action_dist_inputs"] + 0.2
        policy = module.get_exploration_action_dist_cls().from_logits(inputs)
        actions = policy.sample()
        batch[m] = {
            "obs": obs, "actions": actions, "action_dist_inputs": inputs, "action_logp": policy.logp(actions),
            "advantages": torch.randn(16), "value_targets": torch.randn(16),
        }  # fmt: skip
    steps = {NUM_ENV_STEPS_SAMPLED_LIFETIME: 16}
    chunk = {m: {name: column[None] for name, column in columns.items()} for m, columns in batch.items()}
    mine.update_from_columns([chunk], num_updates=1, env_steps=16, timesteps=steps)
    rllibs.update(batch=MultiAgentBatch({m: SampleBatch(c) for m, c in batch.items()}, 16), timesteps=steps)
    for m in "ab":
        a, b = (learner.module[m].state_dict() for learner in learners)
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=0, atol=1e-6)


def test_values_are_normalised_for_centralised_critics_alone() -> None:
    from rlkit import recipe as recipes

    text = (
        "name: x\nalgorithm: PPO\nenv: pettingzoo/mpe2.simple_spread_v3\npolicies: shared\nstop: {iterations: 1}\n"
        "config: {training: {normalize_values: running}}\n"
    )
    with pytest.raises(
        recipes.RecipeError, match=r"training.normalize_values: .* here are none; fix: write critic"
    ):
        recipes.loads(text)
    with pytest.raises(
        recipes.RecipeError, match=r"training.critic_input: .* here are none; fix: write critic"
    ):
        recipes.loads(text.replace("normalize_values: running", "critic_input: state"))
    recipes.loads(text.replace("running", "running, critic_input: state, critic: centralized"))

"""PPO on columns: updates are RLlib's, its state survives, and what is wrong is named."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo import PPOConfig as RLlibPPOConfig
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.distribution.torch.torch_distribution import TorchCategorical, TorchDiagGaussian
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.rllib.examples.rl_modules.classes.random_rlm import RandomRLModule
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from rlkit import registry
from rlkit.algos import PPOConfig
from rlkit.algos.onpolicy.distributions import distribution
from rlkit.algos.onpolicy.learner import epochs
from rlkit.algos.ppo import surrogate, value_loss
from rlkit.algos.sampling.array_episodes import ArrayFragment
from rlkit.algos.sampling.team_fragment import TeamFragment
from rlkit.callbacks import RewardScale
from rlkit.errors import RunFailed
from rlkit.launch.trial import trainable
from rlkit.models import module_spec

B = 32
MODEL = {"fcnet_hiddens": [16, 16], "fcnet_activation": "tanh"}
PLAIN = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)
MASKED = gym.spaces.Dict(action_mask=gym.spaces.Box(0, 1, (3,), np.float32), observations=PLAIN)


class Spaces(gym.Env):
    """An environment of which only the spaces matter."""

    def __init__(self, observation: gym.Space, action: gym.Space):
        self.observation_space, self.action_space = observation, action


# The pure parts


def test_the_surrogate_is_clipped_on_the_side_that_would_gain() -> None:
    ratio = torch.tensor([1.5, 1.5, 0.5, 0.5])
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0])
    found = surrogate(ratio.log(), torch.zeros(4), advantages, 0.2)
    torch.testing.assert_close(found, torch.tensor([1.2, -1.5, 0.5, -0.8]))


def test_the_value_loss_is_limited_and_may_keep_values_near_the_old_ones() -> None:
    values, targets = torch.tensor([3.0, 1.0]), torch.tensor([0.0, 0.0])
    limited, error = value_loss(values, targets, 4.0)
    assert (limited.tolist(), error.tolist()) == ([4.0, 1.0], [9.0, 1.0])
    # 3 is kept at 5 - .5 = 4.5 above the target, 1 at 1
    _, error = value_loss(values, targets, 100.0, torch.tensor([5.0, 1.0]), 0.5)
    assert error.tolist() == [4.5**2, 1.0]


def test_epochs_visit_every_row_once_before_one_comes_again() -> None:
    order = epochs(10, 24, shuffle=True)
    assert sorted(order[:10].tolist()) == sorted(order[10:20].tolist()) == list(range(10))
    assert order[:10].tolist() != order[10:20].tolist()
    assert epochs(3, 7, shuffle=False).tolist() == [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize("space", [gym.spaces.Discrete(3), gym.spaces.Box(-1, 1, (2,))])
def test_distributions_are_rllibs(space: gym.Space) -> None:
    kind = TorchCategorical if isinstance(space, gym.spaces.Discrete) else TorchDiagGaussian
    size = 3 if kind is TorchCategorical else 4
    torch.manual_seed(0)
    old, new = torch.randn(B, size), torch.randn(B, size)
    if kind is TorchCategorical:
        old[:8, 0] = new[:8, 0] = -3.4e38  # a masked action
    actions = torch.from_numpy(np.stack([space.sample() for _ in range(B)]))
    actions = torch.where(actions == 0, 1, actions) if kind is TorchCategorical else actions
    p, q = kind.from_logits(old), kind.from_logits(new)
    mine_p, mine_q = distribution(kind)(old), distribution(kind)(new)
    torch.testing.assert_close(mine_p.logp(actions), p.logp(actions))
    torch.testing.assert_close(mine_p.entropy(), p.entropy())
    torch.testing.assert_close(mine_p.kl(mine_q), p.kl(q))


# One minibatch update

OPTIONS: dict[str, tuple[gym.Space, gym.Space, dict[str, Any], dict[str, Any]]] = {
    "discrete": (PLAIN, gym.spaces.Discrete(3), {}, {}),
    "shared value function": (PLAIN, gym.spaces.Discrete(3), {}, {"vf_share_layers": True}),
    "continuous": (PLAIN, gym.spaces.Box(-1, 1, (2,)), {}, {}),
    "free log std": (PLAIN, gym.spaces.Box(-1, 1, (2,)), {}, {"free_log_std": True}),
    "multi-discrete": (PLAIN, gym.spaces.MultiDiscrete([3, 2]), {}, {}),
    "dict actions": (PLAIN, gym.spaces.Dict(a=gym.spaces.Discrete(3), b=gym.spaces.Box(-1, 1, (1,))), {}, {}),
    "masked": (MASKED, gym.spaces.Discrete(3), {"entropy_coeff": 0.01}, {"name": "mlp", "hiddens": [16]}),
    "no KL": (PLAIN, gym.spaces.Discrete(3), {"use_kl_loss": False}, {}),
    "large KL": (PLAIN, gym.spaces.Discrete(3), {"kl_coeff": 5.0, "kl_target": 1e-9}, {}),
    "clipped value loss": (PLAIN, gym.spaces.Discrete(3), {"vf_clip_param": 0.5, "vf_loss_coeff": 0.3}, {}),
    "entropy": (PLAIN, gym.spaces.Discrete(3), {"entropy_coeff": 0.1}, {}),
    "entropy schedule": (PLAIN, gym.spaces.Box(-1, 1, (2,)), {"entropy_coeff": [[0, 0.1], [400, 0.0]]}, {}),
    "learning-rate schedule": (PLAIN, gym.spaces.Discrete(3), {"lr": [[0, 1e-3], [400, 0.0]]}, {}),
    "gradients clipped": (PLAIN, gym.spaces.Discrete(3), {"grad_clip": 0.1}, {}),
    "gradients clipped by value": (
        PLAIN,
        gym.spaces.Discrete(3),
        {"grad_clip": 0.01, "grad_clip_by": "value"},
        {},
    ),
    "no critic": (PLAIN, gym.spaces.Discrete(3), {"use_critic": False}, {}),
}


def learner_of(config: Any, env: gym.Env, training: dict[str, Any], model: dict[str, Any]) -> Any:
    config.environment(observation_space=env.observation_space, action_space=env.action_space)
    config.training(**{"lr": 1e-3, "gamma": 0.99, "minibatch_size": 8, **training})
    if "name" in model:
        config.rl_module(rl_module_spec=module_spec(config, model))
    else:
        config.rl_module(model_config={**MODEL, **model})
    config.validate()
    return config.build_learner(env=env)


def batch_of(learner: Any, env: gym.Env, rng: np.random.Generator) -> dict[str, Any]:
    """A batch whose old log-probabilities and distributions are close to what the module has."""
    module = learner.module[DEFAULT_MODULE_ID].unwrapped()
    obs: Any = rng.standard_normal((B, 4)).astype(np.float32)
    if isinstance(env.observation_space, gym.spaces.Dict):
        mask = np.ones((B, 3), np.float32)
        mask[: B // 2, 2] = 0
        obs = {"action_mask": mask, "observations": obs}
    tensors = {"obs": _tensors(obs)}
    with torch.no_grad():
        inputs = module.forward_train(tensors)["action_dist_inputs"]
        inputs = inputs + 0.3 * torch.from_numpy(rng.standard_normal(inputs.shape).astype(np.float32))
        policy = module.get_exploration_action_dist_cls().from_logits(inputs)
        actions = policy.sample()
        logp = policy.logp(actions)
    return {
        **tensors,
        "actions": actions,
        "action_dist_inputs": inputs,
        "action_logp": logp,
        "advantages": torch.from_numpy(rng.standard_normal(B).astype(np.float32)),
        "value_targets": torch.from_numpy(rng.standard_normal(B).astype(np.float32)),
    }


def _tensors(value: Any) -> Any:
    return {k: _tensors(v) for k, v in value.items()} if isinstance(value, dict) else torch.from_numpy(value)


def _in_front(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _in_front(v) for k, v in value.items()}
    return tuple(map(_in_front, value)) if isinstance(value, tuple) else value[None]


@pytest.mark.parametrize(("observation", "action", "training", "model"), OPTIONS.values(), ids=OPTIONS)
def test_an_update_is_rllibs(
    observation: gym.Space, action: gym.Space, training: dict[str, Any], model: dict[str, Any]
) -> None:
    env = Spaces(observation, action)
    torch.manual_seed(0)
    mine = learner_of(PPOConfig(), env, training, model)
    rllibs = learner_of(RLlibPPOConfig(), env, training, model)
    rllibs.module.set_state(mine.module.get_state())
    rng = np.random.default_rng(0)
    for timestep in (100, 200, 300):
        batch = batch_of(mine, env, rng)
        timesteps = {NUM_ENV_STEPS_SAMPLED_LIFETIME: timestep}
        found = mine.update_from_columns(
            [{DEFAULT_MODULE_ID: _in_front(batch)}], num_updates=1, env_steps=100, timesteps=timesteps
        )
        expected = rllibs.update(
            batch=MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(batch)}, B), timesteps=timesteps
        )
        a, b = (learner.module[DEFAULT_MODULE_ID].state_dict() for learner in (mine, rllibs))
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=0, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
        for name, value in expected[DEFAULT_MODULE_ID].items():
            if name.startswith(("gradients_", "num_")) or "throughput" in name:
                continue
            if name == "mean_kl_loss" and not mine.config.use_kl_loss:
                continue  # RLlib does not compute it then
            if isinstance(value.peek(), float | np.floating | torch.Tensor):
                got = float(found[DEFAULT_MODULE_ID][name].peek())
                assert got == pytest.approx(float(value.peek()), abs=1e-5, nan_ok=True), name


def test_masked_rows_of_rllibs_own_batches_are_left_out() -> None:
    env = Spaces(PLAIN, gym.spaces.Discrete(3))
    mine = learner_of(PPOConfig(), env, {}, {})
    rllibs = learner_of(RLlibPPOConfig(), env, {}, {})
    rllibs.module.set_state(mine.module.get_state())
    batch = {**batch_of(mine, env, np.random.default_rng(0)), "loss_mask": torch.arange(B) % 4 != 0}
    for learner in (mine, rllibs):
        learner.update(batch=MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(batch)}, B), timesteps={})
    a, b = (learner.module[DEFAULT_MODULE_ID].state_dict() for learner in (mine, rllibs))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=1e-6)


# Whole calls


def fragment_of(rng: np.random.Generator, *, length: int = 16, envs: int = 2) -> ArrayFragment:
    shape = (length, envs)
    inputs = np.zeros((*shape, 3), np.float32)
    return ArrayFragment(
        obs=rng.standard_normal((length + 1, envs, 4)).astype(np.float32),
        actions=rng.integers(0, 3, shape),
        rewards=rng.standard_normal(shape),
        terminated=rng.random(shape) < 0.1,
        truncated=np.zeros(shape, bool),
        fresh=np.zeros(shape, bool),
        action_logp=np.full(shape, -math.log(3), np.float32),
        action_dist_inputs=inputs,
    )


def call(learner: Any, fragment: ArrayFragment, steps: int = 32, after: int = 32) -> Any:
    return learner.update_from_fragments(
        {DEFAULT_MODULE_ID: [fragment]},
        env_steps=steps,
        timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: after},
    )


def small(**training: Any) -> Any:
    torch.manual_seed(0)
    return learner_of(PPOConfig(), Spaces(PLAIN, gym.spaces.Discrete(3)), training, {})


def weights(learner: Any) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in learner.module[DEFAULT_MODULE_ID].state_dict().items()}


def test_a_minibatch_that_does_not_divide_the_batch_is_filled_from_the_next_epoch() -> None:
    learner = small(minibatch_size=20, num_epochs=3)
    seen = []
    learner.compute_loss_for_module = lambda **given: (
        seen.append(given["batch"]["obs"].clone()),
        type(learner).compute_loss_for_module(learner, **given),
    )[1]
    call(learner, fragment_of(np.random.default_rng(0)))
    assert [len(obs) for obs in seen] == [20] * math.ceil(3 * 32 / 20)
    first = torch.cat(seen)[:32]
    assert len(torch.unique(first, dim=0)) == 32


def test_resets_are_not_learned_from() -> None:
    fragment = fragment_of(np.random.default_rng(0))
    fragment.terminated[:] = False
    fragment.terminated[3, 0] = fragment.fresh[4, 0] = True
    fragment.rewards[4, 0] = 1e6  # never read
    learner = small(num_epochs=1, minibatch_size=31, shuffle_batch_per_epoch=False)
    rows = learner.rows_of(DEFAULT_MODULE_ID, [fragment])
    assert len(rows["obs"]) == 31
    assert torch.isfinite(rows["advantages"]).all()
    assert not (rows["obs"] == torch.from_numpy(fragment.obs[4, 0])).all(-1).any()


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("rewards", r"module 'default_policy': 1 of 32 rewards are NaN or inf"),
        ("obs", r"module 'default_policy': 1 of 34 values are NaN or inf.*an observation"),
        ("action_logp", r"the loss of module 'default_policy' is nan.*default_policy/"),
    ],
)
def test_nan_stops_before_a_weight_changes_and_is_named(where: str, message: str) -> None:
    learner = small(num_epochs=1, minibatch_size=32)
    fragment = fragment_of(np.random.default_rng(0))
    values = getattr(fragment, where)
    values[(3, 1, 0) if values.ndim == 3 else (3, 1)] = np.nan
    before = weights(learner)
    with pytest.raises(RunFailed, match=message):
        call(learner, fragment)
    for name, value in weights(learner).items():
        assert torch.equal(value, before[name]), name


def test_the_clip_range_follows_its_schedule_by_env_steps() -> None:
    learner = small(clip_param=[[0, 0.4], [100, 0.2], [200, 0.0]])
    fragment = fragment_of(np.random.default_rng(0))
    used = []
    learner.compute_loss_for_module = lambda **given: (
        used.append(learner.clip_param(DEFAULT_MODULE_ID)),
        type(learner).compute_loss_for_module(learner, **given),
    )[1]
    for after in (50, 100, 200, 300):
        call(learner, fragment, steps=50, after=after)
    assert sorted({round(x, 6) for x in used}, reverse=True) == [0.4, 0.3, 0.1, 0.0]


def test_stop_kl_ends_the_epochs() -> None:
    fragment = fragment_of(np.random.default_rng(0))
    found = call(small(num_epochs=50, lr=1e-2, stop_kl=0.01, use_kl_loss=False), fragment)
    lifetime = int(found["__all_modules__"]["num_updates_lifetime"].peek())
    assert 1 < lifetime < 200
    mine = {name: float(found[DEFAULT_MODULE_ID][name].peek()) for name in ("mean_kl_loss", "total_loss")}
    assert mine["mean_kl_loss"] > 0.01
    assert math.isfinite(mine["total_loss"])
    steps = int(found[DEFAULT_MODULE_ID]["num_module_steps_trained"].peek())
    assert steps == 8 * lifetime  # what the divergence refused was not learned from


def test_a_call_that_stop_kl_ends_at_once_has_no_update() -> None:
    fragment = fragment_of(np.random.default_rng(0))
    fragment.action_dist_inputs[..., 0] = 5.0  # nothing like what the policy is now
    learner = small(stop_kl=0.01)
    before = weights(learner)
    found = call(learner, fragment)
    assert int(found["__all_modules__"]["num_updates_lifetime"].peek()) == 0
    assert all(torch.equal(value, before[name]) for name, value in weights(learner).items())


def test_a_policy_has_its_values_where_another_one_ends_the_updates() -> None:
    config = PPOConfig().environment(Pair).multi_agent(
        policies=["a", "b"], policy_mapping_fn=lambda agent, *_, **__: agent,
        algorithm_config_overrides_per_module={"b": {"stop_kl": 0.02}},
    )  # fmt: skip
    config.training(lr=1e-2, minibatch_size=8, num_epochs=50, kl_coeff=0.0).rl_module(model_config=MODEL)
    config.validate()
    spaces = dict.fromkeys("ab", (PLAIN, gym.spaces.Discrete(3)))
    torch.manual_seed(0)
    learner = config.build_learner(spaces=spaces)
    fragments = {m: fragment_of(np.random.default_rng(0)) for m in "ab"}
    for m, fragment in fragments.items():  # sampled with the weights as they are
        with torch.no_grad():
            out = learner.module[m].forward_train({"obs": torch.from_numpy(fragment.obs[:-1])})
        fragment.action_dist_inputs[:] = out["action_dist_inputs"].numpy()
    found = learner.update_from_fragments(
        {m: [fragment] for m, fragment in fragments.items()},
        env_steps=32,
        timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: 32},
    )
    for m in "ab":
        for name in ("policy_loss", "vf_loss", "mean_kl_loss", "curr_kl_coeff", "total_loss"):
            assert math.isfinite(float(found[m][name].peek())), (m, name)
    assert 1 < int(found["__all_modules__"]["num_updates_lifetime"].peek()) < 200


def test_a_minibatch_of_one_row_has_no_deviation() -> None:
    learner = small(standardize_advantages="minibatch", minibatch_size=1, num_epochs=1)
    found = call(learner, fragment_of(np.random.default_rng(0)))
    assert np.isfinite(float(found[DEFAULT_MODULE_ID]["total_loss"].peek()))


def test_advantages_can_be_standardised_over_each_minibatch() -> None:
    learner = small(standardize_advantages="minibatch")
    rows = learner.rows_of(DEFAULT_MODULE_ID, [fragment_of(np.random.default_rng(0))])
    assert abs(float(rows["advantages"].std()) - 1) > 0.01
    # scaled advantages are the same advantages
    other = small(standardize_advantages="minibatch", use_critic=False, grad_clip=None)
    again = small(standardize_advantages="minibatch", use_critic=False, grad_clip=None)
    batch = batch_of(other, Spaces(PLAIN, gym.spaces.Discrete(3)), np.random.default_rng(0))
    for learner, scale in ((other, 1.0), (again, 100.0)):
        scaled = {**batch, "advantages": batch["advantages"] * scale}
        learner.update_from_columns(
            [{DEFAULT_MODULE_ID: _in_front(scaled)}], num_updates=1, env_steps=1, timesteps={}
        )
    for name, value in weights(other).items():
        torch.testing.assert_close(value, weights(again)[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"clip_param": [[10, 0.2], [20, 0.1]]}, "clip_param"),
        ({"standardize_advantages": "epoch"}, "got 'epoch', expected one of batch, minibatch"),
        ({"stop_kl": 0.0}, r"stop_kl: got 0.0, expected a positive number"),
    ],
)
def test_settings_that_cannot_work_are_refused(training: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PPOConfig().environment("CartPole-v1").training(**training).validate()


# The algorithm


def algorithm(config: Any = None, env: Any = "CartPole-v1", **training: Any) -> Any:
    config = (config or PPOConfig()).environment(env)
    config.env_runners(num_env_runners=0, num_envs_per_env_runner=2)
    config.training(**{"train_batch_size_per_learner": 64, "minibatch_size": 32, "num_epochs": 2, **training})
    return config.rl_module(model_config=MODEL).debugging(seed=0).build_algo()


def kl_coeff(algo: Any) -> float:
    def read(learner: Any) -> float:
        return float(learner.curr_kl_coeffs_per_module[DEFAULT_MODULE_ID])

    return next(iter(algo.learner_group.foreach_learner(read))).get()


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize("name", ["PPO", "rllib/PPO"])
def test_the_kl_coefficient_of_a_recipe_comes_back_from_a_checkpoint(name: str, tmp_path: Path) -> None:
    training = {"train_batch_size_per_learner": 64, "minibatch_size": 32, "num_epochs": 1}
    recipe = {
        "name": "r",
        "algorithm": name,
        "env": "CartPole-v1",
        "config": {"training": training, "env_runners": {"num_env_runners": 0}},
        "stop": {"iterations": 1},
    }
    kind = trainable(registry.resolve("algorithms", name)().algo_class)
    first = kind(recipe)

    def seven(learner: Any) -> None:
        learner.curr_kl_coeffs_per_module[DEFAULT_MODULE_ID].data.fill_(7.0)

    first.learner_group.foreach_learner(seven)
    path = first.save_to_path(tmp_path / "checkpoint")
    first.stop()
    again = kind(recipe)
    assert kl_coeff(again) == pytest.approx(0.2)
    again.restore_from_path(path)
    assert kl_coeff(again) == 7.0
    again.stop()


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize("way", ["columns", "RLlib's pipeline"])
def test_a_resumed_run_goes_on_with_its_schedules_and_its_step_count(way: str, tmp_path: Path) -> None:
    training = {"clip_param": [[0, 0.4], [256, 0.0]], "entropy_coeff": [[0, 0.1], [256, 0.0]], "lr": 1e-4}
    if way != "columns":
        training["learner_connector"] = lambda *_: Passing()
    first = algorithm(**training)
    for _ in range(2):
        first.train()
    path = first.save_to_path(tmp_path / "checkpoint")
    first.stop()
    again = algorithm(**training)
    again.restore_from_path(path)
    used = []

    def watch(learner: Any) -> None:
        compute = type(learner).compute_loss_for_module

        def watched(**given: Any) -> Any:
            entropy = learner.entropy_coeff_schedulers_per_module[DEFAULT_MODULE_ID].get_current_value()
            used.append((learner.clip_param(DEFAULT_MODULE_ID), float(entropy)))
            return compute(learner, **given)

        learner.compute_loss_for_module = watched

    again.learner_group.foreach_learner(watch)
    again.train()
    again.stop()
    clip, entropy = used[0]
    assert clip == pytest.approx(0.4 * (1 - 128 / 256), abs=0.02)
    assert entropy == pytest.approx(0.1 * (1 - 128 / 256), abs=0.005)


class Still(gym.Env):
    """Two rows of rewards: 1 for action 1, 0 for action 0; episodes of 5 steps, truncated."""

    observation_space = PLAIN
    action_space = gym.spaces.Discrete(2)

    def __init__(self, config: Any = None):
        self.config = dict(config or {})

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self.t = 0
        return np.ones(4, np.float32), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        bad = self.config.get("nan_at") == self.t
        return np.ones(4, np.float32), float("nan") if bad else float(action), False, self.t == 5, {}


@pytest.mark.usefixtures("ray_local")
def test_it_learns_what_pays() -> None:
    algo = algorithm(env=Still, lr=1e-2, train_batch_size_per_learner=128)
    for _ in range(8):
        result = algo.train()
    algo.stop()
    assert result["env_runners"]["episode_return_mean"] > 4.0


@pytest.mark.usefixtures("ray_local")
def test_a_nan_reward_ends_the_run() -> None:
    config = PPOConfig().environment(Still, env_config={"nan_at": 3})
    config.env_runners(num_env_runners=0, num_envs_per_env_runner=2)
    config.training(train_batch_size_per_learner=64, minibatch_size=32, num_epochs=2)
    algo = config.rl_module(model_config=MODEL).build_algo()
    with pytest.raises(RunFailed, match="rewards are NaN or inf, expected finite numbers"):
        algo.train()
    algo.stop()


@pytest.mark.usefixtures("ray_local")
def test_metrics_are_those_of_rllibs_ppo() -> None:
    seen = []
    for config in (PPOConfig(), RLlibPPOConfig()):
        algo = algorithm(config)
        result = algo.train()
        algo.stop()
        seen.append(result)
    ours, theirs = seen
    missing = set(theirs["learners"][DEFAULT_MODULE_ID]) - set(ours["learners"][DEFAULT_MODULE_ID])
    assert {name for name in missing if not name.startswith(("gradients_", "diff_"))} == set()
    runners = {n for n in theirs["env_runners"] if not n.startswith(("env_to_module_", "module_to_env_"))}
    assert runners - set(ours["env_runners"]) == set()
    assert ours["num_env_steps_sampled_lifetime"] == pytest.approx(64, abs=2)


@pytest.mark.usefixtures("ray_local")
def test_a_trajectory_postprocessor_edits_what_is_learned_from() -> None:
    config = PPOConfig().callbacks([RewardScale.bind(scale=0.0)])
    algo = algorithm(config, env=Still, lr=1e-2, train_batch_size_per_learner=64)
    seen = []

    def watch(learner: Any) -> None:
        rows_of = learner.rows_of

        def watched(module_id: str, fragments: Any) -> Any:
            seen.append(sum(np.abs(fragment.rewards).sum() for fragment in fragments))
            return rows_of(module_id, fragments)

        learner.rows_of = watched

    algo.learner_group.foreach_learner(watch)
    result = algo.train()
    algo.stop()
    assert seen == [0.0]
    assert result["env_runners"]["episode_return_mean"] > 0


@pytest.mark.usefixtures("ray_local")
def test_what_needs_rllibs_learner_pipeline_gets_it_and_says_why(caplog: Any) -> None:
    config = PPOConfig().environment(Still)
    config.env_runners(num_env_runners=0, num_envs_per_env_runner=2)
    config.training(train_batch_size_per_learner=64, minibatch_size=32, num_epochs=2)
    config.training(learner_connector=lambda *_: Passing())
    algo = config.rl_module(model_config=MODEL).debugging(seed=0).build_algo()
    before = algo.get_module().get_state()
    with caplog.at_level(logging.WARNING, "rlkit.algos.onpolicy.step"):
        for _ in range(2):
            result = algo.train()
    after = algo.get_module().get_state()
    algo.stop()
    reasons = [r.getMessage() for r in caplog.records if "RLlib's own learner pipeline" in r.getMessage()]
    assert len(reasons) == 1
    assert "the learner connector Passing" in reasons[0]
    assert result["num_env_steps_sampled_lifetime"] >= 128
    assert any((before[name] != after[name]).any() for name in before)
    # 64 steps and a row for each fragment in minibatches of 32, twice over, in each of two calls
    assert result["learners"]["__all_modules__"]["num_updates_lifetime"] >= 8


class Passing(ConnectorV2):
    """A learner connector that changes nothing."""

    def __call__(self, *, batch: Any, **given: Any) -> Any:
        return batch


class Pair(MultiAgentEnv):
    """Two agents of one step each; the second is truncated with everybody else after 4."""

    def __init__(self, config: Any = None):
        super().__init__()
        self.agents = self.possible_agents = ["a", "b"]
        self.observation_spaces = dict.fromkeys(self.agents, PLAIN)
        self.action_spaces = dict.fromkeys(self.agents, gym.spaces.Discrete(2))

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self.t = 0
        return {agent: np.ones(4, np.float32) for agent in self.agents}, {}

    def step(self, actions: Any) -> Any:
        self.t += 1
        obs = {agent: np.ones(4, np.float32) for agent in self.agents}
        ends = {"__all__": self.t == 4}
        rewards = {agent: float(action) for agent, action in actions.items()}
        return obs, rewards, {"__all__": False}, ends, {}


@pytest.mark.usefixtures("ray_local")
def test_several_agents_learn_each_with_its_module() -> None:
    config = (
        PPOConfig()
        .environment(Pair)
        .multi_agent(
            policies=["a", "b"], policy_mapping_fn=lambda agent, *_, **__: agent, policies_to_train=["a"]
        )
    )
    config.env_runners(num_env_runners=0)
    config.training(train_batch_size_per_learner=64, minibatch_size=32, num_epochs=4, lr=1e-2)
    algo = config.rl_module(model_config=MODEL).debugging(seed=0).build_algo()
    before = algo.get_module("b").get_state()
    for _ in range(8):
        result = algo.train()
    after = algo.get_module("b").get_state()
    algo.stop()
    returns = result["env_runners"]["agent_episode_returns_mean"]
    assert returns["a"] > 3.2
    assert "b" not in result["learners"] or "policy_loss" not in result["learners"]["b"]
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize("arrays", [False, True])
def test_a_policy_learns_beside_a_module_without_a_distribution(arrays: bool) -> None:
    config = PPOConfig().environment(Pair).env_runners(num_env_runners=0)
    config.multi_agent(
        policies=["a", "b"], policy_mapping_fn=lambda agent, *_, **__: agent, policies_to_train=["a"]
    )
    random = RLModuleSpec(RandomRLModule)  # it gives actions alone
    config.rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs={"a": RLModuleSpec(), "b": random}))
    config.training(train_batch_size_per_learner=64, minibatch_size=32, num_epochs=1)
    config.array_fragments = arrays
    algo = config.debugging(seed=0).build_algo()
    result = algo.train()
    (sample, *_) = algo.env_runner.sample()
    assert isinstance(sample, TeamFragment) == arrays
    if arrays:
        assert sample.of_module("a") is not None
        assert sample.of_module("b") is None
    algo.stop()
    assert np.isfinite(result["learners"]["a"]["policy_loss"])


@pytest.mark.usefixtures("ray_local")
def test_several_runners_and_a_remote_learner_sample_and_learn() -> None:
    config = PPOConfig().environment("CartPole-v1").learners(num_learners=1)
    config.env_runners(num_env_runners=2, num_envs_per_env_runner=1)
    config.training(train_batch_size_per_learner=64, minibatch_size=32, num_epochs=2)
    algo = config.rl_module(model_config=MODEL).debugging(seed=0).build_algo()
    result = algo.train()
    steps = result["num_env_steps_sampled_lifetime"]
    assert 64 <= steps <= 68
    trained = result["learners"][DEFAULT_MODULE_ID]["num_module_steps_trained"]
    assert trained == math.ceil(2 * steps / 32) * 32
    runners = algo.env_runner_group.foreach_env_runner(_weights_of_runner, local_env_runner=False)
    learner = algo.learner_group.get_state(components="learner/rl_module")["learner"]["rl_module"]
    algo.stop()
    assert len(runners) == 2
    for weights_of_one in runners:
        for name, value in weights_of_one.items():
            np.testing.assert_array_equal(value, learner[DEFAULT_MODULE_ID][name])


def _weights_of_runner(env_runner: Any) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in env_runner.module.state_dict().items()}

"""Recurrent PPO on columns: sequences, states and values are RLlib's, and memory is learned."""

from __future__ import annotations

import logging
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo import PPOConfig as RLlibPPOConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from rlkit.algos import PPOConfig
from rlkit.algos.onpolicy.episodes import fragments_of
from rlkit.algos.onpolicy.sequences import sequences
from rlkit.envs.memory import RepeatPrevious
from rlkit.models import module_spec

SPACE = gym.spaces.Box(-1, 1, (4,), np.float32)
MASKED = gym.spaces.Dict(action_mask=gym.spaces.Box(0, 1, (3,), np.float32), observations=SPACE)
MODELS: dict[str, dict[str, Any]] = {
    "lstm": {"name": "lstm", "cell": 8, "hiddens": [8], "max_seq_len": 5},
    "gru shared": {"name": "gru", "cell": 8, "hiddens": [8], "share": True, "max_seq_len": 5},
    "attention": {"name": "attention", "window": 4, "size": 8, "heads": 2, "hiddens": [8], "max_seq_len": 5},
    "RLlib's": {"fcnet_hiddens": [8], "use_lstm": True, "lstm_cell_size": 8, "max_seq_len": 5},
}


def test_sequences_by_hand() -> None:
    # environment 0: an episode of 3 steps ends in row 2, row 3 is the reset; environment 1: one of 6 goes on
    fresh = np.zeros((6, 2), bool)
    fresh[3, 0] = True
    goes_on = np.array([[1, 1], [1, 1], [0, 1], [0, 1], [1, 1], [0, 0]], bool)
    assert sequences(fresh, goes_on, 4).tolist() == [
        [0, 2, 4, -1], [8, 10, -1, -1], [1, 3, 5, 7], [9, 11, -1, -1],
    ]  # fmt: skip
    assert sequences(fresh, goes_on, 2).tolist() == [[0, 2], [4, -1], [8, 10], [1, 3], [5, 7], [9, 11]]
    assert sequences(np.ones((2, 1), bool), np.zeros((2, 1), bool), 2).shape == (0, 1)


class Ends(gym.Env):
    """Episodes of 7 steps: terminated, truncated, or both, by turns."""

    def __init__(self, config: Any = None):
        self.observation_space, self.action_space = SPACE, gym.spaces.Discrete(3)
        self.episodes = 0

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t, self.episodes = 0, self.episodes + 1
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        over = self.t == 7
        ends = [(True, False), (False, True)][self.episodes % 2]
        return self.observation_space.sample(), float(action == 1), *(over and end for end in ends), {}


def configured(config: Any, model: dict[str, Any], env: Any = Ends, **training: Any) -> Any:
    config.environment(env).env_runners(num_env_runners=0, num_envs_per_env_runner=2).debugging(seed=0)
    config.training(train_batch_size_per_learner=40, minibatch_size=16, num_epochs=2, **training)
    if "name" in model:
        return config.rl_module(rl_module_spec=module_spec(config, model))
    return config.rl_module(model_config=model)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_an_update_of_sequences_is_rllibs(model: dict[str, Any]) -> None:
    env = Ends()
    learners = []
    for config in (PPOConfig(), RLlibPPOConfig()):
        config.environment(observation_space=env.observation_space, action_space=env.action_space)
        config.training(lr=1e-3, minibatch_size=20, entropy_coeff=0.01)
        configured_module = module_spec(config, model) if "name" in model else None
        if configured_module:
            config.rl_module(rl_module_spec=configured_module)
        else:
            config.rl_module(model_config=model)
        config.validate()
        learners.append(config.build_learner(env=env))
    mine, rllibs = learners
    rllibs.module.set_state(mine.module.get_state())
    module = mine.module[DEFAULT_MODULE_ID].unwrapped()
    torch.manual_seed(1)
    rows, length = 4, 5
    for step in (1, 2, 3):
        mask = torch.ones(rows, length, dtype=torch.bool)
        mask[1, 3:] = mask[3, 1:] = False
        first = _map(module.get_initial_state(), lambda s: torch.as_tensor(s).expand(rows, *s.shape).clone())
        batch: dict[str, Any] = {Columns.OBS: torch.rand(rows, length, 4), Columns.STATE_IN: first}
        with torch.no_grad():
            inputs = module.forward_train(batch)[Columns.ACTION_DIST_INPUTS]
        inputs = inputs + 0.3 * torch.randn_like(inputs)
        policy = module.get_exploration_action_dist_cls().from_logits(inputs)
        actions = policy.sample()
        batch |= {
            Columns.ACTIONS: actions,
            Columns.ACTION_LOGP: policy.logp(actions),
            Columns.ACTION_DIST_INPUTS: inputs,
            Postprocessing.ADVANTAGES: torch.randn(rows, length),
            Postprocessing.VALUE_TARGETS: torch.randn(rows, length),
            Columns.LOSS_MASK: mask,
        }
        timesteps = {NUM_ENV_STEPS_SAMPLED_LIFETIME: 100 * step}
        found = mine.update_from_columns(
            [{DEFAULT_MODULE_ID: _map(batch, lambda x: x[None])}],
            num_updates=1,
            env_steps=100,
            timesteps=timesteps,
        )
        rllibs.update(batch=MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(batch)}, 14), timesteps=timesteps)
        assert found[DEFAULT_MODULE_ID]["module_train_batch_size_mean"].peek() == mask.sum()
        a, b = (learner.module[DEFAULT_MODULE_ID].state_dict() for learner in learners)
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=0, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_sequences_states_and_advantages_are_rllibs(model: dict[str, Any]) -> None:
    config = configured(PPOConfig(), model, standardize_advantages="minibatch")
    algo = config.build_algo()
    runner, learner = algo.env_runner, algo.learner_group._learner
    for _ in range(2):  # the second one goes on with episodes of the first
        fragment = runner.sample(num_timesteps=20)[0]
    runner.config = runner.config.copy(copy_frozen=False)
    mine = learner.rows_of(DEFAULT_MODULE_ID, [fragment])
    again = configured(PPOConfig(), model, standardize_advantages="minibatch")
    again.array_fragments = False
    other = again.build_algo()
    other.env_runner.set_state({"rl_module": algo.learner_group.get_weights()})
    other.learner_group._learner.module.set_state(learner.module.get_state())
    algo.stop()
    episodes = [other.env_runner.sample(num_timesteps=20) for _ in range(2)][1]
    theirs = other.learner_group._learner
    state = {DEFAULT_MODULE_ID: _map(theirs.module[DEFAULT_MODULE_ID].get_initial_state(), np.asarray)}
    slow = fragments_of(episodes, default_module=DEFAULT_MODULE_ID, initial_state=state.get)
    rows = theirs.rows_of(DEFAULT_MODULE_ID, [slow[DEFAULT_MODULE_ID]])
    batch = theirs._learner_connector(
        rl_module=theirs.module, batch={}, episodes=episodes, shared_data={}, metrics=theirs.metrics
    )[DEFAULT_MODULE_ID]
    other.stop()
    mask = rows[Columns.LOSS_MASK]
    size = mask.shape[1]
    chosen = batch[Columns.LOSS_MASK][:, :size]
    assert int(mask.sum()) == int(batch[Columns.LOSS_MASK].sum()) == 40 // 2
    raw, best = rows[Postprocessing.ADVANTAGES][mask], batch[Postprocessing.ADVANTAGES][:, :size][chosen]
    torch.testing.assert_close(
        rows[Postprocessing.VALUE_TARGETS][mask],
        batch[Postprocessing.VALUE_TARGETS][:, :size][chosen],
        atol=1e-5,
        rtol=1e-5,
    )
    assert np.corrcoef(raw, best)[0, 1] == pytest.approx(1.0, abs=1e-6)  # RLlib's are standardised
    for name in (Columns.OBS, Columns.ACTIONS, Columns.ACTION_LOGP):
        torch.testing.assert_close(rows[name][mask], batch[name][:, :size][chosen])
    keep = batch[Columns.LOSS_MASK].any(dim=1)
    _compare(rows[Columns.STATE_IN], _map(batch[Columns.STATE_IN], lambda x: x[keep]))
    # the array fragment holds the same sequences, environment by environment
    assert int(mine[Columns.LOSS_MASK].sum()) == 20


@pytest.mark.usefixtures("ray_local")
def test_runners_compute_the_critics_states_with_the_critics_weights(caplog: Any) -> None:
    algo = configured(PPOConfig(), MODELS["lstm"], lr=0.01).build_algo()
    with caplog.at_level(logging.WARNING, "rlkit.algos.onpolicy.step"):
        for _ in range(2):
            algo.train()
    learner = algo.learner_group._learner.module[DEFAULT_MODULE_ID].state_dict()
    runner = algo.env_runner.module.state_dict()
    algo.stop()
    assert not [r for r in caplog.records if "RLlib's own learner pipeline" in r.getMessage()]
    assert any(name.startswith("encoder.critic_encoder") for name in runner)
    for name in learner:
        torch.testing.assert_close(runner[name], learner[name])


@pytest.mark.usefixtures("ray_local")
def test_runners_have_the_learners_critic_from_the_first_sample_on_and_after_a_restore(tmp_path: Any) -> None:
    def weights(module: Any) -> dict[str, torch.Tensor]:
        return {name: value.clone() for name, value in module.unwrapped().state_dict().items()}

    def equal_when_it_samples(algorithm: Any) -> None:
        found, sample = [], algorithm.sample

        def watched() -> Any:
            of_runner = weights(algorithm.env_runner_group.local_env_runner.module)
            of_learner = weights(algorithm.learner_group._learner.module[DEFAULT_MODULE_ID])
            found.append([n for n in of_runner if not torch.equal(of_runner[n], of_learner[n])])
            return sample()

        algorithm.sample = watched
        algorithm.train()
        algorithm.sample = sample
        assert found == [[]]

    first, other = (configured(PPOConfig(), MODELS["lstm"]).build_algo() for _ in range(2))
    equal_when_it_samples(first)
    first.save_to_path(str(tmp_path / "saved"))
    other.train()
    other.restore_from_path(str(tmp_path / "saved"))
    equal_when_it_samples(other)
    first.stop()
    other.stop()


def test_memory_is_learned() -> None:
    from ray.tune.registry import register_env

    register_env("repeat_last", lambda c: RepeatPrevious(delay=1, symbols=2, length=16))
    config = PPOConfig().environment("repeat_last").debugging(seed=0)
    config.env_runners(num_env_runners=0, num_envs_per_env_runner=16)
    config.training(
        train_batch_size_per_learner=512, minibatch_size=128, num_epochs=8, lr=5e-3, gamma=0.5, entropy_coeff=0.01,
        grad_clip=0.5,
    )  # fmt: skip
    model = {"name": "gru", "cell": 16, "hiddens": [16], "max_seq_len": 16, "share": True}
    algo = config.rl_module(rl_module_spec=module_spec(config, model)).build_algo()
    best = 0.0
    for _ in range(16):
        best = algo.train()["env_runners"]["episode_return_mean"]
        if best > 0.9:
            break
    algo.stop()
    assert best > 0.9  # without memory 0.5


def _map(value: Any, function: Any) -> Any:
    return {k: _map(v, function) for k, v in value.items()} if isinstance(value, dict) else function(value)


def _compare(a: Any, b: Any) -> None:
    if isinstance(a, dict):
        for key in a:
            _compare(a[key], b[key])
    else:
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)

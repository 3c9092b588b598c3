"""Memory by name in SAC, DRON and MADDPG: what is learned from sequences is what acting step by step does."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from maddpg_envs import Sum
from maddpg_samples import columns_of, config_of, learner_of, update
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec

import rlkit
from rlkit import recipe as recipes
from rlkit import registry
from rlkit.algos import DRONConfig, SACConfig
from rlkit.algos.centralised.networks import make_net
from rlkit.algos.centralised.spaces import ObservationVector
from rlkit.algos.offpolicy.sequences import check_sequences, from_start, learned_steps, steps_at
from rlkit.algos.offpolicy.step import NotYet, OffPolicy
from rlkit.errors import RunFailed, UsageError
from rlkit.launch.build import build
from rlkit.launch.spaces import check_spaces, refuse
from rlkit.models import module_spec
from rlkit.models.features import ModelRef
from rlkit.play.export import export
from rlkit.recipe import Recipe, check, load
from rlkit.replay import Fragment, Replay
from rlkit.runs import manifest

VECTOR = gym.spaces.Box(-1.0, 1.0, (3,))
CHOICE, FORCE = gym.spaces.Discrete(4), gym.spaces.Box(-1.0, 1.0, (2,))
MASKED = gym.spaces.Dict({"observation": VECTOR, "action_mask": gym.spaces.Box(0, 1, (4,), np.int8)})
MODELS: dict[str, dict[str, Any]] = {
    "lstm": {"name": "lstm", "cell": 6, "hiddens": [5]},
    "gru": {"name": "gru", "cell": 6, "hiddens": [5]},
    "attention": {"name": "attention", "window": 3, "size": 6, "heads": 2, "hiddens": [5]},
}
B, T = 2, 5


def module_of(config: Any, model: dict[str, Any], observes: gym.Space, acts: gym.Space) -> Any:
    config.rl_module(rl_module_spec=module_spec(config, model))
    torch.manual_seed(0)
    module = config.get_multi_rl_module_spec(spaces={"default_policy": (observes, acts)}).build()[
        "default_policy"
    ]
    module.make_target_networks()
    return module


def start(module: Any) -> dict[str, torch.Tensor]:
    return {name: value.expand(B, *value.shape) for name, value in module.get_initial_state().items()}


def batch_of(module: Any, acts: gym.Space, masked: bool = False) -> tuple[Any, dict[str, Any]]:
    """The T + 1 observations of B sequences, and the batch that is learned from."""
    seen: Any = torch.randn(B, T + 1, 3)
    if masked:
        seen = {"observation": seen, "action_mask": torch.tensor([1, 0, 1, 1]).expand(B, T + 1, 4)}
    discrete = isinstance(acts, gym.spaces.Discrete)
    actions = torch.zeros(B, T, dtype=torch.long) if discrete else torch.rand(B, T, 2)
    now, after = part(seen, slice(0, T)), part(seen, slice(1, T + 1))
    return seen, {
        Columns.OBS: now, Columns.NEXT_OBS: after, Columns.STATE_IN: start(module), Columns.ACTIONS: actions,
    }  # fmt: skip


def part(value: Any, steps: slice) -> Any:
    return {k: part(v, steps) for k, v in value.items()} if isinstance(value, dict) else value[:, steps]


def step_by_step(module: Any, seen: Any) -> torch.Tensor:
    """What the module puts out when it acts: distribution inputs, (B, T + 1, ...)."""
    state, found = start(module), []
    for t in range(T + 1):
        out = module.forward_inference({Columns.OBS: part(seen, slice(t, t + 1)), Columns.STATE_IN: state})
        state = out[Columns.STATE_OUT]
        found.append(out[Columns.ACTION_DIST_INPUTS])
    return torch.cat(found, dim=1)


# Sequences ----------------------------------------------------------------------------------------------


def test_what_follows_a_step_is_read_behind_the_first_observation() -> None:
    now, after = torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 3.0]])
    whole = from_start({"a": now, "b": (now,)}, {"a": after, "b": (after,)})
    assert whole["a"].tolist() == whole["b"][0].tolist() == [[1.0, 2.0, 3.0]]


def test_steps_of_the_burn_in_and_behind_the_end_are_not_learned_from() -> None:
    mask = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])
    learned = learned_steps(mask, 1)
    assert learned.tolist() == [[False, True, True], [False, True, False], [False, False, False]]
    assert mask[0, 0]  # the mask itself is left alone
    rewards = torch.arange(9.0).reshape(3, 3)
    rows = steps_at({"rewards": rewards, "state_in": torch.zeros(3, 2), "obs": (rewards,)}, learned)
    assert rows["rewards"].tolist() == rows["obs"][0].tolist() == [1.0, 2.0, 4.0]
    assert "state_in" not in rows


def test_sequences_of_which_nothing_is_left() -> None:
    check_sequences("p", 5, 4, 5)
    with pytest.raises(ValueError, match=r"burn_in_len 5 leaves nothing .*'p', got max_seq_len 5.*at most 4"):
        check_sequences("p", 5, 5, 10)
    with pytest.raises(ValueError, match=r"batch of 4 steps .* is shorter than one sequence .*max_seq_len 5"):
        check_sequences("p", 5, 0, 4)


# SAC ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_discrete_sac_learns_what_acting_step_by_step_puts_out(model: str) -> None:
    module = module_of(SACConfig(), MODELS[model], MASKED, CHOICE)
    seen, batch = batch_of(module, CHOICE, masked=True)
    out = module._forward_train(batch)
    probs = torch.softmax(step_by_step(module, seen), dim=-1)
    torch.testing.assert_close(out["action_probs"], probs[:, :-1])
    torch.testing.assert_close(out["action_probs_next"], probs[:, 1:])
    assert float(out["action_probs"][..., 1].max()) == 0.0
    assert torch.isfinite(out["action_log_probs"]).all()
    # targets are equal to the critics before the first update
    torch.testing.assert_close(
        out["q_target_next"][:, :-1], torch.minimum(out["qf_preds"], out["qf_twin_preds"])[:, 1:]
    )


def test_the_actors_objective_moves_no_critic_and_values_depend_on_the_past() -> None:
    module = module_of(SACConfig(), MODELS["lstm"], VECTOR, FORCE)
    seen, batch = batch_of(module, FORCE)
    out = module._forward_train(batch)
    out["q_curr"].sum().backward()
    moved = {name.split(".")[0] for name, p in module.named_parameters() if p.grad is not None}
    assert moved == {"pi_encoder", "pi"}
    now = seen[:, :-1].clone().requires_grad_()
    last = module._forward_train(
        {**batch, Columns.OBS: now, Columns.NEXT_OBS: torch.cat([now[:, 1:], seen[:, -1:]], 1)}
    )
    (gradient,) = torch.autograd.grad(last["qf_preds"][:, -1].sum(), now)
    assert bool(gradient[:, 0].abs().sum() > 0)


def test_values_of_a_recurrent_sac_cannot_be_asked_for_single_observations() -> None:
    from rlkit.play.answers import has_q_values

    assert not has_q_values(module_of(SACConfig(), MODELS["gru"], VECTOR, CHOICE))
    assert has_q_values(module_of(SACConfig(), {"name": "mlp", "hiddens": [4]}, VECTOR, CHOICE))


def test_sac_takes_no_lstm_of_rllibs() -> None:
    with pytest.raises(UsageError, match=r"SAC does not put RLlib's LSTM .*name: lstm"):
        module_of(SACConfig(), {"name": "mlp", "hiddens": [4], "use_lstm": True}, VECTOR, FORCE)


# DRON ---------------------------------------------------------------------------------------------------


def dron(**training: Any) -> DRONConfig:
    return DRONConfig().training(network="flat", features=[], double_q=True, **training)


@pytest.mark.parametrize("model", MODELS)
def test_dron_reads_the_state_through_a_memory(model: str) -> None:
    module = module_of(dron(dueling=True), MODELS[model], MASKED, CHOICE)
    seen, batch = batch_of(module, CHOICE, masked=True)
    batch[Columns.NEXT_STATE_IN] = module.compute_q_values(
        {Columns.OBS: part(seen, slice(0, 1)), Columns.STATE_IN: start(module)}
    )[Columns.STATE_OUT]
    out = module._forward_train(batch)
    state, found = start(module), []
    for t in range(T + 1):
        one = module.compute_q_values({Columns.OBS: part(seen, slice(t, t + 1)), Columns.STATE_IN: state})
        state = one[Columns.STATE_OUT]
        found.append(one["qf_preds"])
    q = torch.cat(found, dim=1)
    torch.testing.assert_close(out["qf_preds"], q[:, :-1])
    torch.testing.assert_close(out["qf_next_preds"], q[:, 1:])
    torch.testing.assert_close(out["qf_target_next_preds"], q[:, 1:])
    assert bool((q[..., 1] == float("-inf")).all())


def test_any_registered_model_reads_drons_state() -> None:
    module = module_of(dron(), {"name": "mlp", "hiddens": [7]}, VECTOR, CHOICE)
    assert not module.is_stateful()
    assert module.encoder.encoder.state_size == 7
    assert module.compute_q_values({Columns.OBS: torch.zeros(B, 3)})["qf_preds"].shape == (B, 4)


# MADDPG -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_maddpgs_networks_with_a_memory_go_step_by_step(model: str) -> None:
    options = dict(MODELS[model])
    name = options.pop("name")
    given = ModelRef.of(name, registry.resolve("models", name), options).to_dict()
    space = gym.spaces.Box(-1.0, 1.0, (3,))
    actor = make_net([ObservationVector(space, None)], 0, 2, {"rlkit_model": given}, "pi_gain")
    critic = make_net([ObservationVector(space, None)] * 2, 4, 1, {"rlkit_model": given}, "vf_gain")
    for net, width, outputs in ((actor, 3, 2), (critic, 10, 1)):
        x, state, found = torch.randn(B, T, width), None, []
        for t in range(T):
            out, state = net.run(x[:, t : t + 1], state)
            found.append(out)
        assert net(x).shape == (B, T, outputs)
        torch.testing.assert_close(net(x), torch.cat(found, dim=1))


def test_an_encoder_of_its_own_sees_observations_in_their_shape() -> None:
    image = gym.spaces.Box(0, 255, (8, 8, 3), np.uint8)
    options = {"cell": 4, "encoder": {"name": "cnn", "hidden": 8}}
    given = ModelRef.of("gru", registry.resolve("models", "gru"), options).to_dict()
    vectors = [ObservationVector(image, None), ObservationVector(VECTOR, None)]
    critic = make_net(vectors, 2, 1, {"rlkit_model": given}, "vf_gain")
    assert critic(torch.zeros(B, T, 8 * 8 * 3 + 3 + 2)).shape == (B, T, 1)


def test_an_update_of_maddpg_with_a_memory_leaves_the_burn_in_out() -> None:
    losses = []
    for burn_in in (0, 2):
        config = config_of(Sum, burn_in_len=burn_in)
        config.rl_module(rl_module_spec=module_spec(config, {**MODELS["gru"], "max_seq_len": 4}))
        columns = {name: folded(value) for name, value in columns_of(config, updates=1, rows=32).items()} | {
            "loss_mask": np.ones((1, 8, 4), bool)
        }
        columns["rewards"][:, :, :2] = 1e3
        losses.append(float(update(learner_of(config), columns)["a_0"]["critic_loss"]))
    assert losses[0] > 1e5 > 100 > losses[1]


def test_policies_with_and_without_a_memory_learn_together() -> None:
    config = config_of(Sum)
    models = {"a_0": {**MODELS["gru"], "max_seq_len": 4}, "a_1": {"name": "mlp", "hiddens": [8]}}
    specs = {name: module_spec(config, model) for name, model in models.items()}
    config.rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs=specs))
    columns = {name: folded(value) for name, value in columns_of(config, updates=1, rows=32).items()}
    found = update(learner_of(config), columns | {"loss_mask": np.ones((1, 8, 4), bool)})
    assert all(np.isfinite(float(found[name]["critic_loss"])) for name in models)


def folded(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: folded(v) for k, v in value.items()}
    return value.reshape(1, 8, 4, *value.shape[2:])


def test_an_attention_that_sees_more_than_an_episode_is_refused() -> None:
    recipe = recipe_of("SAC", "repeat_previous", model={**MODELS["attention"], "window": 40})
    with pytest.raises(
        UsageError, match=r"window: the attention sees 40 steps, .*repeat_previous have at most 32"
    ):
        refuse(recipe)
    recipe = recipe_of("PPO", "CartPole-v1", model={"name": "attention", "window": 501}, training=None)
    with pytest.raises(UsageError, match=r"sees 501 steps, episodes of CartPole-v1 have at most 500"):
        refuse(recipe)


@pytest.mark.parametrize(
    ("recipe", "override", "message"),
    [
        (
            "dqn_memory",
            "config.training.burn_in_len=16",
            "burn_in_len 16 leaves nothing of sequences of 16 steps",
        ),
        ("sac_memory", "model.max_seq_len=4", "burn_in_len 4 leaves nothing of sequences of 4 steps"),
        ("sac_memory", "model.max_seq_len=600", "512 is shorter than one sequence of 600 steps"),
    ],
)
def test_sequences_that_leave_nothing_are_said_by_the_check(recipe: str, override: str, message: str) -> None:
    (problem,) = check(recipe, overrides=[override])
    assert message in str(problem)


# A whole training ---------------------------------------------------------------------------------------


REPLAY = {
    "train_batch_size_per_learner": 32, "num_steps_sampled_before_learning_starts": 64, "training_intensity": 4,
    "replay_buffer_config": {"type": "EpisodeReplayBuffer", "capacity": 2000},
}  # fmt: skip


def recipe_of(algorithm: str, env: str, **more: Any) -> Recipe:
    given = more.pop("training", {})
    training = {} if given is None else REPLAY | given
    sections = {
        "training": training,
        "env_runners": {"num_env_runners": 0, "num_envs_per_env_runner": 4, "rollout_fragment_length": 16},
        "reporting": {"min_sample_timesteps_per_iteration": 64, "min_time_s_per_iteration": 0},
    }
    named = {"algorithm": algorithm, "env": env, "name": "m", "seed": 0, "stop": {"env_steps": 100}}
    model = {**MODELS["gru"], "max_seq_len": 8}
    return Recipe.from_dict({**named, "model": model, "config": sections, **more})


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize(
    ("algorithm", "env", "training"),
    [
        ("SAC", "Pendulum-v1", {"burn_in_len": 2}),
        ("SAC", "repeat_previous", {}),
        ("MADDPG", "pettingzoo/mpe2.simple_spread_v3", {"burn_in_len": 2}),
        ("DRON", "soccer", {"supervise": "action", "network": "moe", "double_q": True}),
    ],
)
def test_a_checkpoint_with_a_memory_acts_and_is_exported(
    algorithm: str, env: str, training: dict[str, Any], tmp_path: Path
) -> None:
    recipe = recipe_of(algorithm, env, training=training)
    config = build(recipe)
    check_spaces(config, recipe)
    trained = config.build_algo()
    try:
        for _ in range(2):
            learners = trained.train()["learners"]
        losses = [v for found in learners.values() for name, v in found.items() if name.endswith("loss")]
        assert losses
        assert np.isfinite(losses).all()
        path = tmp_path / "checkpoint"
        trained.save_to_path(str(path))
    finally:
        trained.stop()
    manifest.write(path, recipe={"env": env, "env_config": {}}, iteration=2, env_steps=128)
    assert not rlkit.load(path).policy.memoryless
    # a bundle is compared with the agent over episodes, its state from step to step with it
    made = export(path, tmp_path / "policy")
    assert (made.different, made.error < 1e-5) == (0, True)


def pieces(*lengths: int, start: int = 0, done: bool = True) -> list[Fragment]:
    """A fragment of each length, of an episode of its own."""
    made = []
    for k, n in enumerate(lengths):
        end = np.zeros(n, bool)
        end[-1] = done
        steps = {"actions": np.zeros(n, np.int64), "rewards": np.zeros(n, np.float32)}
        flags = {"terminateds": end, "truncateds": np.zeros(n, bool)}
        key = f"{'over' if done else 'goes on'} {k}"
        made.append(Fragment(key, start, n, {"obs": np.zeros((n + 1, 3), np.float32)}, steps | flags, done))
    return made


def sequences_of(replay: Replay, burn_in: int = 4) -> np.ndarray:
    """The first rows of 50 minibatches of one sequence of 8 steps."""
    algorithm: Any = SimpleNamespace(
        config=SimpleNamespace(total_train_batch_size=8, num_learners=1), burn_in=burn_in
    )
    rows, _ = OffPolicy.draw_sequences(algorithm, replay, 8, 50)
    return rows


@pytest.mark.parametrize(
    ("over", "capacity", "going_on", "fix"),
    [
        ([2], 64, [], "or raise num_steps_sampled_before_learning_starts if later ones are longer"),
        ([4], 64, [3], "or raise num_steps_sampled_before_learning_starts if later ones are longer"),
        ([2], 5, [3], "lower burn_in_len below the length of the episodes$"),
    ],
    ids=["all over", "the longest is over", "full"],
)
def test_episodes_shorter_than_the_burn_in_end_the_run_with_a_reason(
    over: list[int], capacity: int, going_on: list[int], fix: str
) -> None:
    replay = Replay(capacity, {"obs": VECTOR}, {"actions": CHOICE})
    replay.add(pieces(*over) + pieces(*going_on, done=False))
    with pytest.raises(RunFailed, match=rf"burn_in_len is 4, and no episode .* more steps than that.*{fix}"):
        sequences_of(replay)


def test_a_burn_in_waits_for_episodes_that_go_on() -> None:
    """Of 103 rows one has more than four steps; most draws miss it, and it is found all the same."""
    replay = Replay(128, {"obs": VECTOR}, {"actions": CHOICE})
    replay.add(pieces(2) + pieces(*[4] * 24, done=False))
    with pytest.raises(NotYet):
        sequences_of(replay)
    replay.add(pieces(1, start=4, done=False))
    assert set(sequences_of(replay).reshape(-1)) == {2}


@pytest.mark.usefixtures("ray_local")
def test_learning_waits_while_first_episodes_are_shorter_than_the_burn_in() -> None:
    """Four environments have 16 steps each after the first iteration, 32 after the second."""
    model = {**MODELS["gru"], "max_seq_len": 24}
    algorithm = build(recipe_of("SAC", "Pendulum-v1", training={"burn_in_len": 20}, model=model)).build_algo()
    try:
        assert "total_loss" not in algorithm.train()["learners"]["default_policy"]
        assert "total_loss" in algorithm.train()["learners"]["default_policy"]
    finally:
        algorithm.stop()


@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize(("model", "least", "most"), [("lstm", 0.9, 1.01), ("mlp", 0.0, 0.4)])
def test_sac_with_a_memory_learns_what_one_without_cannot(model: str, least: float, most: float) -> None:
    recipe = load("sac_memory", overrides=["seed=1"])
    if model == "mlp":
        recipe = load("sac_memory", overrides=["seed=1", "model={name: mlp, hiddens: [32]}"])
    algorithm = build(recipe).build_algo()
    try:
        for _ in range(30):
            result = algorithm.train()
        assert least < result["env_runners"]["episode_return_mean"] < most
    finally:
        algorithm.stop()


@pytest.mark.parametrize(
    ("training", "path"),
    [
        ({}, "model: sequences of a recurrent model are drawn uniformly"),
        (
            {"replay_buffer_config": {"type": "EpisodeReplayBuffer", "capacity": 1000}, "n_step": 3},
            "n_step 1 alone",
        ),
        (
            {"replay_buffer_config": {"type": "EpisodeReplayBuffer", "capacity": 1000}, "num_atoms": 5},
            "num_atoms 1",
        ),
    ],
    ids=["priorities", "steps", "atoms"],
)
def test_what_sequences_cannot_do_is_said_by_the_check(training: dict[str, Any], path: str) -> None:
    values = {"algorithm": "DQN", "env": "CartPole-v1", "stop": {"iterations": 1}, "model": {"name": "lstm"}}
    with pytest.raises(recipes.RecipeError, match=path):
        recipes.from_mapping(
            {**values, "config": {"training": {"train_batch_size_per_learner": 64, **training}}}
        )

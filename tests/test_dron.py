"""DRON: parameter counts, networks and losses against hand-worked numbers, sampling, short training."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.dqn.dqn_learner import QF_NEXT_PREDS, QF_PREDS, QF_TARGET_NEXT_PREDS
from ray.rllib.algorithms.dqn.torch.default_dqn_torch_rl_module import DefaultDQNTorchRLModule
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.tune.registry import register_env

from rlkit.algos.dron import DRON, DRONConfig
from rlkit.algos.dron_rules import PAPER_FEATURES
from rlkit.algos.opponents.catalog import DRONCatalog
from rlkit.algos.opponents.losses import gate_use, supervised_loss
from rlkit.algos.opponents.networks import (
    HISTORY,
    OPPONENT,
    STATE,
    ConcatEncoder,
    FlatEncoder,
    MixtureEncoder,
    MixtureHead,
    Normalize,
)
from rlkit.envs.pettingzoo import PettingZooEnv
from rlkit.envs.soccer import SoccerEnv, SoccerParallelEnv, soccer

register_env("soccer", lambda context: soccer(**context))
register_env("soccer_two", lambda context: PettingZooEnv(SoccerParallelEnv(**context)))
register_env("cartpole", lambda context: gym.make("CartPole-v1"))


def config(env: str = "soccer", env_config: dict | None = None, envs: int = 4, **training) -> DRONConfig:
    made = DRONConfig().environment(env, env_config=env_config or {}).debugging(seed=0)
    made.env_runners(num_env_runners=0, num_envs_per_env_runner=envs, rollout_fragment_length=8)
    if env == "soccer":
        made.env_runners(gym_env_vectorize_mode="vector_entry_point")
    made.training(**training)
    made.validate()
    return made


def runner(**training) -> SingleAgentEnvRunner:
    return SingleAgentEnvRunner(config=config(**training))


def parameters(**training) -> int:
    return sum(p.numel() for p in runner(**training).module.parameters())


# Networks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("training", "count"),
    [
        ({"network": "flat", "features": []}, 3605),
        ({"network": "concat", "features": PAPER_FEATURES}, 7405),
        ({"network": "moe", "experts": 2, "features": PAPER_FEATURES}, 6012),
        ({"network": "moe", "experts": 3, "features": PAPER_FEATURES}, 6318),
        ({"network": "moe", "experts": 4, "features": PAPER_FEATURES}, 6624),
        ({"network": "flat", "features": [], "hidden": 68}, 6125),
        ({"network": "flat", "features": PAPER_FEATURES}, 4855),
        ({"network": "moe", "features": PAPER_FEATURES, "gate_inputs": "opponent"}, 6318 - 15 * 50),
        ({"network": "concat", "features": PAPER_FEATURES, "supervise": "action"}, 7405 + 51 * 5),
        ({"network": "moe", "features": PAPER_FEATURES, "supervise": "type"}, 6318 + 51 * 2),
    ],
)
def test_parameter_counts_are_those_of_the_reference(training, count):
    assert parameters(**training) == count


SHAPES = {STATE: (2,), OPPONENT: (1, 3)}


def test_the_mixture_is_the_weighted_sum_of_its_experts():
    torch.manual_seed(0)
    encoder = MixtureEncoder(SHAPES, hidden=4, encoder_size=1, experts=3)
    head = MixtureHead(hidden=4, experts=3, outputs=5)
    observation = {STATE: torch.randn(6, 2), OPPONENT: torch.randn(6, 1, 3)}
    out = encoder({Columns.OBS: observation})
    both = torch.cat([observation[OPPONENT][:, 0], observation[STATE]], dim=1)
    weights = torch.softmax(encoder.gate(torch.relu(encoder.gate_hidden(both))), dim=1)
    torch.testing.assert_close(out["gate"], weights)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(6))
    trunk = encoder.trunk(observation[STATE])
    expert = head.experts.weight.view(3, 5, 4), head.experts.bias.view(3, 5)
    q_k = torch.stack([trunk @ w.T + b for w, b in zip(*expert, strict=True)], dim=1)
    torch.testing.assert_close(head(out["encoder_out"]), (weights[:, :, None] * q_k).sum(dim=1))


def test_a_gate_on_the_opponent_alone_does_not_see_the_state():
    torch.manual_seed(0)
    opponent = torch.randn(1, 1, 3)
    for inputs, same in (("opponent", True), ("state_and_opponent", False)):
        encoder = MixtureEncoder(SHAPES, hidden=4, encoder_size=1, experts=2, gate_inputs=inputs)
        gates = [
            encoder({Columns.OBS: {STATE: torch.randn(1, 2), OPPONENT: opponent}})["gate"] for _ in range(2)
        ]
        assert torch.equal(*gates) is same


@pytest.mark.parametrize("network", [ConcatEncoder, MixtureEncoder])
def test_opponents_are_pooled_whatever_their_order(network):
    torch.manual_seed(0)
    encoder = network({STATE: (2,), OPPONENT: (3, 4)}, hidden=8, encoder_size=1)
    opponent = torch.randn(5, 3, 4)
    state = torch.randn(5, 2)
    one = encoder({Columns.OBS: {STATE: state, OPPONENT: opponent}})["encoder_out"]
    other = encoder({Columns.OBS: {STATE: state, OPPONENT: opponent[:, [2, 0, 1]]}})["encoder_out"]
    torch.testing.assert_close(one, other)
    alone = encoder({Columns.OBS: {STATE: state, OPPONENT: opponent[:, :1].expand(-1, 3, -1)}})["encoder_out"]
    assert not torch.allclose(one, alone)


def test_the_recurrent_encoder_reads_the_order_of_the_window():
    torch.manual_seed(0)
    encoder = ConcatEncoder({STATE: (2,), HISTORY: (1, 4, 6)}, hidden=8, encoder_size=5)
    window = torch.randn(1, 1, 4, 6)
    state = torch.zeros(1, 2)
    forward = encoder({Columns.OBS: {STATE: state, HISTORY: window}})["encoder_out"]
    backward = encoder({Columns.OBS: {STATE: state, HISTORY: window.flip(2)}})["encoder_out"]
    assert not torch.allclose(forward, backward)


def test_sizes_that_differ_between_runner_and_learner_are_an_error():
    module = runner(features=PAPER_FEATURES).module
    other = {STATE: torch.zeros(1, 15), OPPONENT: torch.zeros(1, 1, 30)}
    with pytest.raises(
        ValueError, match=r"got observations of sizes .*30.*expected .*25.*the env runner and the learner"
    ):
        module.compute_q_values({Columns.OBS: other})


@pytest.mark.parametrize(
    "options", [{"dueling": True}, {"num_atoms": 11, "v_min": -1.0, "v_max": 1.0}, {"double_q": True}]
)
@pytest.mark.parametrize("network", ["moe", "concat", "flat"])
def test_rainbow_options_work_with_every_network(network, options):
    module = config(network=network, **options)
    sampler = SingleAgentEnvRunner(config=module)
    observation = {STATE: torch.rand(3, 15), OPPONENT: torch.rand(3, 1, 30)}
    out = sampler.module.compute_q_values({Columns.OBS: observation})
    assert out[QF_PREDS].shape == (3, 5)
    assert ("gate" in out) is (network == "moe")


def test_double_q_learning_computes_what_rllib_computes():
    made = config(network="moe", double_q=True)
    sampler = SingleAgentEnvRunner(config=made)
    spec = made.get_rl_module_spec(spaces=sampler.get_spaces(), inference_only=False)
    spec.observation_space, spec.action_space = sampler.get_spaces()["default_policy"]
    module = spec.build()
    module.make_target_networks()
    torch.manual_seed(0)
    batch = {
        name: {STATE: torch.rand(7, 15), OPPONENT: torch.rand(7, 1, 30)}
        for name in (Columns.OBS, Columns.NEXT_OBS)
    }
    ours = module.forward_train(batch)
    theirs = DefaultDQNTorchRLModule._forward_train(module, batch)
    for key in (QF_PREDS, QF_NEXT_PREDS, QF_TARGET_NEXT_PREDS):
        torch.testing.assert_close(ours[key], theirs[key])
    assert ours[QF_PREDS].requires_grad
    assert not ours[QF_NEXT_PREDS].requires_grad


def test_gate_says_what_each_expert_weighs():
    module = runner().module
    observation = {STATE: torch.rand(3, 15), OPPONENT: torch.rand(3, 1, 30)}
    weights = module.gate(observation)
    assert weights.shape == (3, 3)
    torch.testing.assert_close(weights, module.compute_q_values({Columns.OBS: observation})["gate"])
    with pytest.raises(ValueError, match="no experts"):
        runner(network="concat").module.gate(observation)


def test_supervised_loss_leaves_out_opponents_that_did_not_act():
    logits = torch.log(
        torch.tensor([[[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]], [[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]]])
    )
    loss, accuracy = supervised_loss(logits, torch.tensor([[0, 1], [2, -1]]))
    assert loss.item() == pytest.approx(-np.log([0.7, 0.8, 0.25]).mean(), abs=1e-6)
    assert accuracy.item() == pytest.approx(2 / 3)
    nobody, _ = supervised_loss(logits, torch.full((2, 2), -1))
    assert nobody.item() == 0.0


# Sampling ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "per_row", "used"),
    [
        ([[1.0, 0.0], [1.0, 0.0]], 1.0, 1.0),  # collapsed
        ([[0.5, 0.5], [0.5, 0.5]], 2.0, 2.0),  # mixes without looking
        ([[1.0, 0.0], [0.0, 1.0]], 1.0, 2.0),  # chooses, and uses both
        ([[0.5, 0.5], [1.0, 0.0]], 2**0.5, 4 / 3**0.75),  # exp(ln 2 / 2); mean .75 and .25
    ],
)
def test_use_of_the_gate_worked_out_by_hand(weights, per_row, used):
    got = gate_use(torch.tensor(weights))
    assert [float(x) for x in got] == pytest.approx([per_row, used], abs=1e-5)


def test_bounded_state_is_normalized_and_the_rest_left_alone():
    space = gym.spaces.Box(np.float32([0, -2, -np.inf, 0.4]), np.float32([1, 2, np.inf, 0.4]))
    got = Normalize(space)(torch.tensor([[1.0, 1.0, 5.0, 0.4]]))
    torch.testing.assert_close(got, torch.tensor([[3**0.5, 3**0.5 / 2, 5.0, 0.0]]))
    most = np.finfo(np.float32).max  # how some environments write "no bound"
    assert Normalize(gym.spaces.Box(-most, most, (1,)))(torch.tensor([[1.5]])).item() == 1.5
    plain, scaled = (runner(network="flat", features=[], normalize_state=on).module for on in (False, True))
    scaled.encoder.load_state_dict(plain.encoder.state_dict())
    soccer_space = SoccerEnv().observation_space
    state = torch.as_tensor(np.stack([soccer_space.sample() for _ in range(2)]))
    torch.testing.assert_close(
        scaled.encoder({Columns.OBS: state})["encoder_out"],
        plain.encoder({Columns.OBS: Normalize(soccer_space)(state)})["encoder_out"],
    )


def test_what_the_runner_acts_on_is_what_reaches_the_learner():
    sampler = runner(features=["last_action", "clock"])
    sampler.sample()
    for episode in sampler.sample():
        states, opponent = (episode.observations.data[name] for name in (STATE, OPPONENT))
        assert len(states) == len(opponent)
        told = [info["opponent_action"] for info in episode.infos.data if "opponent_action" in info]
        actions = np.array(told[-len(episode) :])
        steps = slice(-len(actions), None)
        np.testing.assert_array_equal(opponent[steps, 0, :5].argmax(axis=1), actions)
        clock = opponent[:, 0, 5] * 100
        np.testing.assert_allclose(np.diff(clock), 1.0, atol=1e-4)


def test_without_features_the_observation_is_the_environments_own():
    episodes = runner(network="flat", features=[]).sample()
    assert episodes[0].observations.data.shape[1:] == (15,)


# Learning ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("ray_local")
def test_training_moves_every_part_and_logs_the_opponent_head():
    made = config(
        env_config={"opponents": "styles"}, envs=16, supervise="action", supervise_weight=1.0, double_q=True,
        num_steps_sampled_before_learning_starts=256, train_batch_size_per_learner=64, training_intensity=32, lr=3e-3,
    )  # fmt: skip
    algorithm = made.build_algo()
    try:
        module = algorithm.learner_group.get_state()["learner"]["rl_module"]["default_policy"]
        before = {name: value.copy() for name, value in module.items() if "_target" not in name}
        results = [algorithm.train() for _ in range(4)]
        after = algorithm.learner_group.get_state()["learner"]["rl_module"]["default_policy"]
        assert [n for n, value in before.items() if np.array_equal(value, after[n])] == []
        learned = [
            r["learners"]["default_policy"]
            for r in results
            if "opponent_accuracy" in r["learners"]["default_policy"]
        ]
        assert learned[-1]["opponent_loss"] < learned[0]["opponent_loss"]
        assert learned[-1]["opponent_accuracy"] > 0.6  # chance is below .5
        assert 1 <= learned[-1]["experts_per_row"] <= learned[-1]["experts_used"] + 1e-5 <= 3 + 1e-4
    finally:
        algorithm.stop()


@pytest.mark.usefixtures("ray_local")
def test_self_play_and_type_labels_and_prioritized_replay_and_n_step_train():
    duel = DRONConfig().environment("soccer_two").debugging(seed=0)
    duel.env_runners(num_env_runners=0, num_envs_per_env_runner=2, rollout_fragment_length=8)
    duel.multi_agent(policies={"player"}, policy_mapping_fn=lambda agent, *args, **kwargs: "player")
    duel.training(num_steps_sampled_before_learning_starts=32, supervise="action", opponents=["player_*"])
    typed = config(
        supervise="type", network="concat", n_step=3, history=4, num_steps_sampled_before_learning_starts=32,
        replay_buffer_config={"type": "PrioritizedEpisodeReplayBuffer", "capacity": 10_000},
    )  # fmt: skip
    for made, module in ((duel, "player"), (typed, "default_policy")):
        algorithm = made.build_algo()
        try:
            result = algorithm.train()["learners"][module]
            assert np.isfinite(result["total_loss"])
            assert 0 <= result["opponent_accuracy"] <= 1
        finally:
            algorithm.stop()


@pytest.mark.usefixtures("ray_local")
def test_a_checkpoint_keeps_the_labels_in_the_replay(tmp_path):
    made = config(supervise="action", num_steps_sampled_before_learning_starts=32)
    algorithm = made.build_algo()
    try:
        algorithm.train()
        algorithm.save_to_path(str(tmp_path / "saved"))
        kept = algorithm.replays["default_policy"].get_state()["arrays"]
    finally:
        algorithm.stop()
    restored = DRON.from_checkpoint(str(tmp_path / "saved"))
    try:
        arrays = restored.replays["default_policy"].get_state()["arrays"]
        assert arrays.keys() == kept.keys()
        assert "column.infos/dron_action" in arrays
        for name, array in kept.items():
            np.testing.assert_array_equal(arrays[name], array)
        restored.train()
    finally:
        restored.stop()


# Bad input -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"experts": 0}, "experts: got 0, expected a whole number of at least 1"),
        ({"network": "mo"}, "network: got 'mo'; did you mean 'moe'"),
        ({"gate_inputs": "state"}, "gate_inputs: got 'state'"),
        ({"supervise": "actions"}, "did you mean 'action'"),
        (
            {"features": [], "network": "concat"},
            r"network: concat reads opponents, got features \[\] and history 0",
        ),
        ({"network": "flat", "supervise": "type"}, "network: flat has none"),
        ({"supervise_weight": -1.0}, "expected at least 0"),
        ({"features": ["clock", "moevs"]}, "did you mean 'moves'"),
        ({"opponents": []}, "expected at least one glob"),
        ({"history": -3}, "got -3"),
        ({"opponent_types": 0}, "opponent_types: got 0"),
    ],
)
def test_bad_options_say_what_was_got_and_what_is_expected(training, message):
    with pytest.raises(ValueError, match=message):
        config(**training)


def test_an_environment_with_no_opponent_is_refused_in_its_first_step():
    sampler = SingleAgentEnvRunner(config=config("cartpole", features=["last_action"]))
    with pytest.raises(Exception, match="shows no opponent to model"):
        sampler.sample()


def test_an_agent_that_models_nobody_has_a_plain_network() -> None:
    options = (
        DRONConfig().training(network="moe", opponents={"a": ["b"]}, supervise="action").model_settings()
    )
    catalog = DRONCatalog(
        gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(3), {**options, "num_atoms": 1, "rlkit_model": None}
    )
    encoder = catalog.build_encoder()
    assert isinstance(encoder, FlatEncoder)
    assert encoder.head is None
    alone = DRONConfig().training(network="moe").model_settings()
    with pytest.raises(ValueError, match="network 'moe' reads opponents"):
        DRONCatalog(
            gym.spaces.Box(-1, 1, (2,)),
            gym.spaces.Discrete(3),
            {**alone, "num_atoms": 1, "rlkit_model": None},
        ).build_encoder()

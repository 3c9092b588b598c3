"""Custom models: what they get, what they must return, and what RLlib's modules make of them."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import model_samples
import numpy as np
import pytest
import torch
import tree
from ray import cloudpickle
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.bc import BCConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.dreamerv3 import DreamerV3Config
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.algorithms.tqc import TQCConfig
from ray.rllib.core.rl_module.rl_module import RLModule
from torch import nn

from rlkit import registry
from rlkit.algos import SACConfig as ColumnSACConfig
from rlkit.errors import UsageError
from rlkit.models import check_model, cnn, mlp, module_spec, register_model
from rlkit.models.dense import flatten
from rlkit.models.features import ModelRef, as_float, measure
from rlkit.roster import split_mask

VECTOR = gym.spaces.Box(-1.0, 1.0, (4,), np.float32)
IMAGE = gym.spaces.Box(0, 255, (40, 40, 3), np.uint8)
NESTED = gym.spaces.Dict(place=VECTOR, room=gym.spaces.Discrete(3), keys=gym.spaces.MultiDiscrete([2, 4]))
CHOICE, FORCE = gym.spaces.Discrete(3), gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
FAMILIES = [
    (PPOConfig, CHOICE),
    (PPOConfig, FORCE),
    (APPOConfig, CHOICE),
    (IMPALAConfig, CHOICE),
    (DQNConfig, CHOICE),
    (SACConfig, FORCE),
    (SACConfig, CHOICE),
    (TQCConfig, FORCE),
    (BCConfig, CHOICE),
]


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    known = dict(registry.TABLES["models"])
    for name in ("tiny", "memory", "faulty"):
        register_model(name, getattr(model_samples, name))
    yield
    registry.TABLES["models"].clear()
    registry.TABLES["models"].update(known)


def module_of(
    config_class: type, model: dict, observations: gym.Space, actions: gym.Space, **spec: Any
) -> Any:
    """Build the module that RLlib would build for a recipe's model."""
    config = config_class()
    config.rl_module(rl_module_spec=module_spec(config, model))
    found = config.get_rl_module_spec(spaces={"default_policy": (observations, actions)}, **spec)
    return found.build()


def batch_of(space: gym.Space, size: int) -> Any:
    space.seed(0)
    return tree.map_structure(torch.as_tensor, gym.vector.utils.batch_space(space, size).sample())


@pytest.mark.parametrize("key", ["observation", "observations", "obs"])
def test_the_observation_beside_a_mask_has_one_of_three_names(key: str) -> None:
    mask = gym.spaces.Box(0, 1, (3,), np.int8)
    assert split_mask(gym.spaces.Dict({"action_mask": mask, key: VECTOR}), CHOICE) == (VECTOR, key, (3,))
    for wrong in ({"state": VECTOR}, {key: VECTOR, "goal": VECTOR}):
        with pytest.raises(UsageError, match="'observation' or 'observations' or 'obs'"):
            split_mask(gym.spaces.Dict({"action_mask": mask, **wrong}), CHOICE)


@pytest.mark.parametrize(
    ("config_class", "actions"), FAMILIES, ids=lambda x: getattr(x, "__name__", type(x).__name__)
)
@pytest.mark.parametrize(
    ("observations", "model"),
    [
        (VECTOR, {"name": "mlp", "hiddens": [16, 8]}),
        (IMAGE, {"name": "cnn", "hidden": 16}),
        (NESTED, {"name": "mlp", "hiddens": [16]}),
        (gym.spaces.Discrete(5), {"name": "tiny"}),
    ],
    ids=["vector", "image", "nested", "discrete"],
)
def test_every_family_acts_with_every_kind_of_observation(
    config_class: type, actions: gym.Space, observations: gym.Space, model: dict
) -> None:
    module = module_of(config_class, model, observations, actions)
    out = module.forward_inference({"obs": batch_of(observations, 5)})
    if "actions" in out:
        assert out["actions"].shape == (5,)
    else:
        size = 3 if actions is CHOICE else 4  # logits, or means and log deviations
        assert out["action_dist_inputs"].shape == (5, size)


def test_parameters_are_those_of_the_model_and_its_heads() -> None:
    def count(config_class: type, model: dict, actions: gym.Space) -> int:
        return sum(p.numel() for p in module_of(config_class, model, VECTOR, actions).parameters())

    own = 4 * 8 + 8
    heads = (8 * 3 + 3) + (8 * 1 + 1)
    assert count(PPOConfig, {"name": "tiny"}, CHOICE) == 2 * own + heads  # PPO's default: two encoders
    assert count(PPOConfig, {"name": "tiny", "share": True}, CHOICE) == own + heads
    assert (
        count(PPOConfig, {"name": "tiny", "share": True, "features": 16}, CHOICE) == 2 * own + 2 * heads - 4
    )
    assert count(DQNConfig, {"name": "tiny"}, CHOICE) == own + heads  # dueling
    fusion = (8 + 2) * 32 + 32
    sac = {"name": "tiny", "fusionnet_hiddens": [32]}
    assert count(SACConfig, sac, FORCE) == (own + 8 * 4 + 4) + 2 * (own + fusion + 33)
    joint = (2 + 4) * 8 + 8 + (8 * 1 + 1)  # action and observation side by side
    sac = {"name": "mlp", "hiddens": [8], "fusionnet_hiddens": []}
    assert count(SACConfig, sac, FORCE) == (own + 8 * 4 + 4) + 2 * joint


@pytest.mark.parametrize("config_class", [SACConfig, TQCConfig])
@pytest.mark.parametrize("observations", [VECTOR, NESTED, gym.spaces.Discrete(5)])
def test_a_critic_without_fusion_layers_sees_action_and_observation(
    config_class: type, observations: gym.Space
) -> None:
    model = {"name": "mlp", "hiddens": [16], "fusionnet_hiddens": []}
    module = module_of(config_class, model, observations, FORCE)
    obs, actions = batch_of(observations, 5), torch.zeros(5, 2)

    def critic(actions: torch.Tensor, obs: Any) -> torch.Tensor:
        encoder = module.qf_encoder if config_class is SACConfig else module.qf_encoders[0]
        return encoder({"obs": obs, "actions": actions})["encoder_out"]

    one, other = critic(actions, obs), critic(actions + 1.0, obs)
    assert one.shape == (5, 16)
    assert not torch.equal(one, other)
    assert not torch.equal(one, critic(actions, tree.map_structure(lambda x: x * 0, obs)))


def test_a_critic_that_scales_sees_actions_as_modules_choose_them() -> None:
    model = {"name": "mlp", "hiddens": [16], "fusionnet_hiddens": [], "scale": True}
    critics = []
    # RLlib's modules act in -1 to 1 whatever the environment's bounds
    for bounds in ((-1.0, 1.0), (0.0, 100.0)):
        torch.manual_seed(0)
        space = gym.spaces.Box(*bounds, (2,), np.float32)
        critics.append(module_of(SACConfig, model, VECTOR, space).qf_encoder)
    batch = {"obs": batch_of(VECTOR, 3), "actions": torch.linspace(-1, 1, 6).reshape(3, 2)}
    assert torch.equal(*(critic(batch)["encoder_out"] for critic in critics))


def test_inference_modules_leave_out_what_acting_does_not_need() -> None:
    whole = module_of(PPOConfig, {"name": "tiny"}, VECTOR, CHOICE)
    acting = module_of(PPOConfig, {"name": "tiny"}, VECTOR, CHOICE, inference_only=True)
    acting.set_state(whole.get_state(inference_only=True))
    batch = {"obs": batch_of(VECTOR, 3)}
    a, b = (m.forward_inference(batch)["action_dist_inputs"] for m in (whole, acting))
    assert torch.equal(a, b)
    assert sum(p.numel() for p in acting.parameters()) < sum(p.numel() for p in whole.parameters())


def test_an_image_is_scaled_and_channels_come_last() -> None:
    net = cnn(IMAGE, hidden=16)
    assert net(torch.full((2, 40, 40, 3), 255.0)).shape == (2, 16)
    space = gym.spaces.Box(0, 255, (8, 9, 2), np.uint8)
    seen = []
    net = cnn(space, filters=[[4, 3, 2]], hidden=5)
    net.layers[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    image = torch.zeros(1, 8, 9, 2)
    image[0, 3, 7, 1] = 255.0
    net(image)
    assert seen[0].shape == (1, 2, 8, 9)
    assert seen[0][0, 1, 3, 7] == 1.0
    assert seen[0].sum() == 1.0


def test_orthogonal_layers_and_gains() -> None:
    net = mlp(VECTOR, hiddens=[32, 32], gain=2.0)
    first, second = (layer for layer in net.modules() if isinstance(layer, nn.Linear))
    assert torch.allclose(first.weight.T @ first.weight, 4.0 * torch.eye(4), atol=1e-5)
    assert torch.allclose(second.weight @ second.weight.T, 4.0 * torch.eye(32), atol=1e-4)
    assert not first.bias.any()
    plain = mlp(VECTOR, hiddens=[32, 32], orthogonal=False)
    weight = next(plain.parameters())
    assert not torch.allclose(weight.T @ weight, weight[:, 0].dot(weight[:, 0]) * torch.eye(4), atol=1e-3)
    default = next(layer for layer in mlp(VECTOR).modules() if isinstance(layer, nn.Linear)).weight
    assert torch.allclose(default.T @ default, 2.0 * torch.eye(4), atol=1e-5)


def test_gains_of_the_heads() -> None:
    module = module_of(
        PPOConfig, {"name": "mlp", "hiddens": [16], "pi_gain": 0.01, "vf_gain": 1.0}, VECTOR, CHOICE
    )
    pi, vf = (
        [x for x in head.modules() if isinstance(x, nn.Linear)][-1].weight for head in (module.pi, module.vf)
    )
    assert torch.allclose(pi @ pi.T, 1e-4 * torch.eye(3), atol=1e-7)
    assert float(vf.detach().norm()) == pytest.approx(1.0, abs=1e-5)
    probabilities = torch.softmax(
        module.forward_inference({"obs": batch_of(VECTOR, 9)})["action_dist_inputs"], -1
    )
    assert torch.allclose(probabilities, torch.full_like(probabilities, 1 / 3), atol=0.05)


def test_the_first_deviation_of_actions() -> None:
    settings = {"name": "mlp", "hiddens": [16], "free_log_std": True, "log_std_init": -2.0}
    module = module_of(PPOConfig, settings, VECTOR, FORCE)
    out = module.forward_exploration({"obs": batch_of(VECTOR, 9)})["action_dist_inputs"]
    assert torch.equal(out[:, 2:], torch.full((9, 2), -2.0))
    with pytest.raises(
        UsageError, match=r"model.log_std_init: this policy has no deviations .* free_log_std False"
    ):
        module_of(PPOConfig, {**settings, "free_log_std": False}, VECTOR, FORCE)


def test_layer_norm_and_activation() -> None:
    net = mlp(VECTOR, hiddens=[16], layer_norm=True, activation="linear")
    out = net(batch_of(VECTOR, 7))
    assert torch.allclose(out.mean(-1), torch.zeros(7), atol=1e-5)
    assert torch.allclose(out.std(-1, unbiased=False), torch.ones(7), atol=1e-2)
    assert mlp(VECTOR, hiddens=[16], activation="tanh")(100 * batch_of(VECTOR, 7)).abs().max() <= 1.0


def test_scale_maps_bounded_dimensions_and_leaves_the_others() -> None:
    low = np.array([-4.8, -np.inf, 0.0], np.float32)
    high = np.array([4.8, np.inf, 10.0], np.float32)
    seen = []
    net = mlp(gym.spaces.Box(low, high), hiddens=[4], scale=True)
    net.layers[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    net(torch.tensor([[2.4, 7.0, 10.0]]))
    assert seen[0].flatten().tolist() == pytest.approx([0.5, 7.0, 1.0])


def test_head_settings_of_rllib_still_count() -> None:
    model = {
        "name": "tiny",
        "head_fcnet_hiddens": [11],
        "head_fcnet_kernel_initializer": "constant_",
        "head_fcnet_kernel_initializer_kwargs": {"val": 0.25},
    }
    module = module_of(PPOConfig, model, VECTOR, CHOICE)
    weights = [x.weight for x in module.pi.modules() if isinstance(x, nn.Linear)]
    assert [tuple(w.shape) for w in weights] == [(11, 8), (3, 11)]
    assert all((w == 0.25).all() for w in weights)


def test_action_masks_reach_the_heads() -> None:
    space = gym.spaces.Dict(action_mask=gym.spaces.Box(0, 1, (3,), np.int8), observation=VECTOR)
    mask = torch.tensor([[1, 0, 1], [0, 0, 1], [0, 0, 0]], dtype=torch.int8)
    batch = {"obs": {"observation": batch_of(VECTOR, 3), "action_mask": mask}}
    policy = module_of(PPOConfig, {"name": "tiny"}, space, CHOICE)
    logits = policy.forward_exploration(batch)["action_dist_inputs"]
    chances = torch.softmax(logits, -1)
    assert (chances[0, 1], chances[1, 0], chances[1, 1]) == (0, 0, 0)
    assert chances[1, 2] == 1
    assert (chances[2] > 0.05).all()  # nothing is legal after the end: left as it is
    assert torch.isfinite(logits).all()
    assert policy.compute_values(batch).shape == (3,)
    q_net = module_of(DQNConfig, {"name": "tiny"}, space, CHOICE)
    values = q_net.compute_q_values(batch)["qf_preds"]
    assert torch.isneginf(values[:2][mask[:2] == 0]).all()
    assert torch.isfinite(values[:2][mask[:2] == 1]).all()
    assert torch.isfinite(values[2]).all()
    assert q_net.forward_inference(batch)["actions"][1] == 2
    with pytest.raises(UsageError, match=r"RLlib's SAC does not take action masks"):
        module_of(SACConfig, {"name": "tiny"}, space, CHOICE)


@pytest.mark.parametrize(
    "model", [{"name": "memory"}, {"name": "tiny", "use_lstm": True, "lstm_cell_size": 6}]
)
@pytest.mark.parametrize("config_class", [PPOConfig, DQNConfig])
def test_recurrent_modules_keep_a_state(config_class: type, model: dict) -> None:
    module = module_of(config_class, model, VECTOR, CHOICE)
    assert module.is_stateful()
    state = tree.map_structure(lambda x: torch.as_tensor(x).expand(2, *x.shape), module.get_initial_state())
    batch = {"obs": batch_of(VECTOR, 10).reshape(2, 5, 4), "state_in": state}
    out = module.forward_inference(batch)
    one_by_one, carried = [], state
    for step in range(5):
        piece = module.forward_inference({"obs": batch["obs"][:, step : step + 1], "state_in": carried})
        carried = piece["state_out"]
        one_by_one.append(piece["actions"] if "actions" in piece else piece["action_dist_inputs"])
    whole = out["actions"] if "actions" in out else out["action_dist_inputs"]
    assert whole.shape[:2] == (2, 5)
    assert torch.allclose(torch.cat(one_by_one, dim=1).float(), whole.float(), atol=1e-5)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("raises", "could not be built for Box.*AttributeError.*no_such_attribute"),
        ("no_module", "returned int, expected a torch.nn.Module"),
        ("no_parameters", "no trainable parameters.*nn.ModuleList"),
        ("three_dimensions", r"returned torch.float32 \(2, 1, 8\).*expected float \(B, F\)"),
        ("integers", r"returned torch.int64 \(2, 8\)"),
        ("batch_of_one", r"\(8,\) for a batch of 1"),
        ("a_dict", r"returned dict, expected a float tensor \(B, F\)"),
    ],
)
def test_a_faulty_model_is_refused_with_what_was_expected(fault: str, words: str) -> None:
    model = {"name": "faulty", "fault": fault}
    with pytest.raises(UsageError, match=words):
        check_model(model, VECTOR, CHOICE)
    with pytest.raises(UsageError, match=words):
        module_of(PPOConfig, model, VECTOR, CHOICE)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"name": "mpl"}, "unknown model 'mpl'; did you mean 'mlp'"),
        (
            {"name": "mlp", "hidens": [4]},
            "model.hidens: .*did you mean 'hiddens'.*it takes hiddens, activation",
        ),
        ({"name": "mlp", "fcnet_hiddens": [4]}, "model.fcnet_hiddens configures RLlib's own encoder"),
        ({"name": "faulty"}, "model.fault: the model 'faulty' needs this option"),
        (
            {"name": "mlp", "share": True, "vf_share_layers": False},
            "share is True and model.vf_share_layers is False",
        ),
        ({"fcnet_hidens": [4]}, "model.fcnet_hidens: .*did you mean 'fcnet_hiddens'"),
        ({"hiddens": [4]}, "model.hiddens: .*add `name:`"),
    ],
)
def test_unknown_names_and_options(model: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        module_spec(PPOConfig(), model)


def test_options_that_an_algorithm_or_a_space_cannot_use() -> None:
    with pytest.raises(UsageError, match=r"model.vf_gain: DQN has no such part"):
        module_spec(DQNConfig(), {"name": "mlp", "vf_gain": 1.0})
    with pytest.raises(UsageError, match=r"model.share: SAC"):
        module_spec(SACConfig(), {"name": "mlp", "share": True})
    with pytest.raises(UsageError, match="DreamerV3 builds its own networks"):
        module_spec(DreamerV3Config(), {"name": "mlp"})
    with pytest.raises(UsageError, match="TQC takes no recurrent model"):
        module_of(TQCConfig, {"name": "memory"}, VECTOR, FORCE)
    none = {"fusionnet_hiddens": []}
    with pytest.raises(UsageError, match=r"model.fusionnet_activation: fusionnet_hiddens is empty"):
        module_spec(SACConfig(), {"name": "mlp", **none, "fusionnet_activation": "relu"})
    with pytest.raises(UsageError, match=r"fusionnet_hiddens is empty: .*'memory'.*e.g. \[64\]"):
        module_of(ColumnSACConfig, {"name": "memory", **none}, VECTOR, FORCE)
    with pytest.raises(UsageError, match=r"fusionnet_hiddens is empty, so .*'tiny'.* Dict"):
        module_of(SACConfig, {"name": "tiny", **none}, VECTOR, FORCE)
    with pytest.raises(UsageError, match=r"'cnn' takes an image .*got Box.*use 'mlp'"):
        check_model({"name": "cnn"}, VECTOR, CHOICE)
    with pytest.raises(
        UsageError, match=r"model.filters\[1\]: the kernel of 9 does not fit its input of 3x3"
    ):
        check_model({"name": "cnn", "filters": [[4, 8, 12], [4, 9, 1]]}, IMAGE, CHOICE)
    with pytest.raises(UsageError, match=r"model.activation: got 'rleu'; did you mean 'relu'"):
        check_model({"name": "mlp", "activation": "rleu"}, VECTOR, CHOICE)
    with pytest.raises(UsageError, match=r"model.hiddens: got \[\]"):
        check_model({"name": "mlp", "hiddens": []}, VECTOR, CHOICE)


def test_without_a_name_the_keys_are_rllibs_and_ppo_keeps_two_encoders() -> None:
    module = module_of(PPOConfig, {"fcnet_hiddens": [7]}, VECTOR, CHOICE)
    shapes = [tuple(p.shape) for p in module.encoder.actor_encoder.parameters()]
    assert shapes == [(7, 4), (7,)]
    assert module.encoder.critic_encoder is not None
    recurrent = module_of(PPOConfig, {"use_lstm": True, "lstm_cell_size": 5}, VECTOR, CHOICE)
    assert recurrent.is_stateful()
    assert recurrent.model_config["max_seq_len"] == 20
    assert check_model({"fcnet_hiddens": [7]}, VECTOR, CHOICE) is None
    assert check_model({"name": "tiny", "features": 9}, VECTOR, CHOICE) == 9


def test_several_modules_of_different_spaces() -> None:
    from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec

    config = PPOConfig().multi_agent(policies={"small", "large"})
    specs = {
        name: module_spec(config, {"name": "tiny", "features": f}) for name, f in (("small", 4), ("large", 9))
    }
    config.rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs=specs))
    other = gym.spaces.Box(-1.0, 1.0, (11,), np.float32)
    modules = config.get_multi_rl_module_spec(
        spaces={"small": (VECTOR, CHOICE), "large": (other, FORCE)}
    ).build()
    assert modules["small"].encoder.actor_encoder.net.own.weight.shape == (4, 4)
    assert modules["large"].encoder.actor_encoder.net.own.weight.shape == (9, 11)


def test_a_spec_holds_a_reference_and_survives_pickling() -> None:
    config = PPOConfig()
    spec = module_spec(config, {"name": "tiny", "features": 5})
    assert spec.model_config["rlkit_model"] == {
        "name": "tiny",
        "target": "model_samples:tiny",
        "options": {"features": 5},
    }
    config.rl_module(rl_module_spec=cloudpickle.loads(cloudpickle.dumps(spec)))
    module = config.get_rl_module_spec(spaces={"default_policy": (VECTOR, CHOICE)}).build()
    assert module.encoder.actor_encoder.net.own.weight.shape == (5, 4)
    # a function that cannot be imported travels itself
    register_model("nameless", lambda space: nn.Linear(4, 6))
    held = cloudpickle.loads(cloudpickle.dumps(module_spec(config, {"name": "nameless"})))
    assert callable(held.model_config["rlkit_model"]["target"])


@pytest.mark.parametrize(
    ("config_class", "actions"), [(PPOConfig, CHOICE), (DQNConfig, CHOICE), (SACConfig, FORCE)]
)
def test_a_checkpoint_acts_the_same_and_needs_no_registration(
    config_class: type, actions: gym.Space, tmp_path: Path
) -> None:
    module = module_of(config_class, {"name": "tiny"}, VECTOR, actions)
    module.save_to_path(tmp_path)
    del registry.TABLES["models"]["tiny"]
    loaded = RLModule.from_checkpoint(tmp_path)
    batch = {"obs": batch_of(VECTOR, 6)}
    for key, value in module.forward_inference(batch).items():
        assert torch.equal(loaded.forward_inference(batch)[key], value)


def test_a_checkpoint_whose_module_is_missing_says_which_to_import(tmp_path: Path) -> None:
    module_of(PPOConfig, {"name": "tiny"}, VECTOR, CHOICE).save_to_path(tmp_path)
    program = (
        "import sys, logging; logging.disable(50)\n"
        "from ray.rllib.core.rl_module.rl_module import RLModule\n"
        "try: RLModule.from_checkpoint(sys.argv[1])\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )
    assert "UsageError the model 'tiny' is 'tiny' of the module 'model_samples'" in found.stdout
    assert "--import" in found.stdout


def test_gain_of_the_shipped_default_is_the_root_of_two() -> None:
    layer = next(x for x in cnn(IMAGE, filters=[[4, 8, 4]], hidden=8).modules() if isinstance(x, nn.Conv2d))
    rows = layer.weight.flatten(1)
    assert torch.allclose(rows @ rows.T, 2.0 * torch.eye(4), atol=1e-4)
    assert math.isclose(float(rows[0].detach().norm()), math.sqrt(2), rel_tol=1e-4)


def test_a_multidiscrete_observation_counts_from_its_start_and_may_be_a_matrix() -> None:
    space = gym.spaces.MultiDiscrete([[3, 2], [2, 2]], start=[[-2, 7], [0, 1]])
    seen = torch.tensor([[[-2, 8], [1, 1]], [[0, 7], [0, 2]]])
    expected = [[1, 0, 0, 0, 1, 0, 1, 1, 0], [0, 0, 1, 1, 0, 1, 0, 0, 1]]
    assert as_float(seen, space).tolist() == expected
    assert as_float(seen[:, None], space).tolist() == [[row] for row in expected]


def test_rows_of_zeros_that_stand_for_no_step_are_read_whatever_the_start() -> None:
    zeros, late = torch.zeros(2, dtype=torch.int64), gym.spaces.Discrete(3, start=2)
    assert as_float(torch.cat([torch.tensor([4]), zeros]), late).tolist() == [[0, 0, 1], [1, 0, 0], [1, 0, 0]]
    pair = gym.spaces.MultiDiscrete([2, 2], start=[5, 0])
    assert as_float(zeros[None], pair).tolist() == [[1, 0, 1, 0]]


def test_a_number_without_axes_beside_others_is_flattened_by_mlp() -> None:
    space = gym.spaces.Dict(a=gym.spaces.Box(-1, 1, ()), b=gym.spaces.Box(-1, 1, (2,)))
    assert flatten({"a": torch.tensor([1.0, 2.0]), "b": torch.ones(2, 2)}).tolist() == [[1, 1, 1], [2, 1, 1]]
    assert measure(ModelRef.of("mlp", mlp, {"hiddens": [4]}), space) == (4, False)

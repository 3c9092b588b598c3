"""Stacked agents, one batched computation, against the same agents one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from maddpg_envs import Leaving, Sum
from maddpg_samples import columns_of, config_of, learner_of, update, weights

from rlkit.algos import MATD3Config
from rlkit.algos.centralised.networks import LoopBank, Net, StackedBank, stack_key
from rlkit.algos.learning.adam import clip_each
from rlkit.models.dense import MLP


def nets(count: int, inputs: int = 7) -> list[Net]:
    return [Net(MLP(inputs, (16, 8), "relu", False, None), 8, 2) for _ in range(count)]


def test_stacked_networks_compute_what_each_computes() -> None:
    torch.manual_seed(0)
    several = nets(3)
    x, common = torch.randn(3, 5, 7), torch.randn(5, 7)
    one_by_one = torch.stack([net(part) for net, part in zip(several, x, strict=True)])
    alone = torch.stack([net(common) for net in several])
    bank = StackedBank(several)
    assert torch.allclose(bank(x), one_by_one, atol=1e-6)
    assert torch.allclose(bank(common, common=True), alone, atol=1e-6)


def test_replacing_a_part_of_a_common_input() -> None:
    torch.manual_seed(0)
    several = nets(3)
    x = torch.randn(5, 7)
    where = [slice(1, 3), slice(3, 4), slice(4, 7)]
    new = [torch.randn(5, at.stop - at.start) for at in where]
    expected = LoopBank(several).replacing(x, new, where)
    assert torch.allclose(StackedBank(several).replacing(x, new, where), expected, atol=1e-6)


def test_the_modules_parameters_are_views_into_the_stack() -> None:
    several = nets(2)
    bank = StackedBank(several)
    with torch.no_grad():
        bank.params[0][1].fill_(3.0)
        several[0].head.bias.fill_(5.0)
    assert float(several[1].body.layers[0].weight.min()) == 3.0
    assert float(bank.params[-1][0].min()) == 5.0
    several[0].load_state_dict(several[1].state_dict())
    assert float(bank.params[0][0].detach().min()) == 3.0


def test_networks_that_cannot_be_stacked_say_so() -> None:
    assert stack_key(Net(MLP(3, (8,), "relu", True, None), 8, 1)) is None
    assert stack_key(nets(1)[0]) == stack_key(nets(1)[0]) != stack_key(nets(1, 6)[0])


@pytest.mark.parametrize("kind", [StackedBank, LoopBank])
def test_clipping_is_per_variable_per_network_or_per_value(kind: Any) -> None:
    """Two networks of one layer each: gradients (3, 4) of length 5 and (0, 1) of length 1."""
    pair = [Net(MLP(1, (1,), "relu", False, None), 1, 1) for _ in range(2)]
    bank = kind(pair)

    def gradients() -> list[torch.Tensor]:
        made = [torch.zeros_like(p) for p in bank.params]
        first, second = bank.members(made)
        first[0].fill_(3.0), first[1].fill_(4.0), second[1].fill_(1.0)
        return made

    def clipped(by: str) -> tuple[list[float], list[float]]:
        made = gradients()
        norms = clip_each(bank.members(made), 2.0, by)
        return [round(float(g.sum()), 3) for g in bank.members(made)[0]][:2], norms.tolist()

    assert clipped("norm") == ([2.0, 2.0], [5.0, 1.0])
    assert clipped("global_norm") == ([1.2, 1.6], [5.0, 1.0])
    assert clipped("value") == ([2.0, 2.0], [5.0, 1.0])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"critic": "local"},
        {"twin_q": True, "policy_delay": 2},
        {"grad_clip_by": "global_norm", "grad_clip": 0.01},
        {"grad_clip_by": "value", "grad_clip": 0.001},
    ],
    ids=str,
)
@pytest.mark.parametrize("shared", [False, True])
def test_an_update_is_the_same_stacked_or_not(options: dict[str, Any], shared: bool) -> None:
    found = []
    for stack in (True, False):
        config = config_of(Sum, shared=shared, stack_agents=stack, **options)
        learner = learner_of(config)
        for group in (*learner.parts[0].actors, *learner.parts[0].critics):
            # Adam's step has the size of the learning rate even for a gradient that is rounding alone
            group.optimizer = torch.optim.SGD(group.bank.params, lr=0.1)
        columns = columns_of(config, updates=4, rows=32)
        columns["acted"][:, :5, 0] = False
        before = weights(learner)
        update(learner, columns)
        found.append(weights(learner))
    assert found[0].keys() == found[1].keys()
    assert any(not torch.allclose(before[k], v) for k, v in found[0].items())
    for name, value in found[0].items():
        assert torch.allclose(value, found[1][name], atol=1e-6), name


def test_the_optimizer_steps_as_plain_adam_does() -> None:
    found = []
    for fused in (True, False):
        config = config_of(Sum)
        learner = learner_of(config)
        for group in (*learner.parts[0].actors, *learner.parts[0].critics):
            rate = group.optimizer.param_groups[0]["lr"]
            group.optimizer = torch.optim.Adam(group.bank.params, lr=rate, fused=fused, foreach=False)
        update(learner, columns_of(config, updates=3, rows=32))
        found.append(weights(learner))
    for name, value in found[0].items():
        assert torch.allclose(value, found[1][name], atol=1e-6), name


def test_an_update_without_stacking_registers_an_optimizer_per_network() -> None:
    assert len(learner_of(config_of(Sum)).parts[0].actors) == 1
    assert len(learner_of(config_of(Sum, stack_agents=False)).parts[0].actors) == 2
    assert len(learner_of(config_of(Leaving, cls=MATD3Config)).parts[0].critics) == 1


@pytest.mark.parametrize("word", ["gamma", "n_step", "policy_delay", "temperature", "burn_in_len"])
def test_what_holds_for_all_policies_is_refused_for_one(word: str) -> None:
    config = config_of(Sum)
    config.multi_agent(algorithm_config_overrides_per_module={"a_0": config.overrides(**{word: 1})})
    with pytest.raises(ValueError, match=f"got {word}: 1 for module 'a_0', and {word} holds for all modules"):
        config.validate()


def test_agents_trained_differently_are_not_stacked() -> None:
    config = config_of(Sum)
    config.multi_agent(algorithm_config_overrides_per_module={"a_0": config.overrides(actor_lr=1e-5)})
    learner = learner_of(config)
    assert len(learner.parts[0].actors) == 2
    assert len(learner.parts[0].critics) == 2
    rates = [g.optimizer.param_groups[0]["lr"] for g in learner.parts[0].actors]
    assert sorted(rates) == pytest.approx([1e-5, 1e-3])
    assert np.isfinite(float(update(learner, columns_of(config, 1, 8))["a_0"]["critic_loss"]))

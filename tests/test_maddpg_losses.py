"""The equations of MADDPG against numbers computed by hand."""

from __future__ import annotations

import math

import gymnasium as gym
import numpy as np
import pytest
import torch

from rlkit.algos.centralised import inferred, losses
from rlkit.algos.centralised.losses import FORBIDDEN
from rlkit.algos.centralised.spaces import action_kind
from rlkit.models.masks import masked


def test_targets_bootstrap_unless_terminated() -> None:
    y = losses.td_targets(
        torch.tensor([1.0, 1.0]),
        torch.tensor([0.9, 0.81]),
        torch.tensor([True, False]),
        torch.tensor([10.0, 10.0]),
    )
    assert y.tolist() == pytest.approx([1.0, 1.0 + 8.1])


def test_critic_loss_is_weighted_and_leaves_absent_rows_out() -> None:
    q, y = torch.tensor([[1.0, 2.0, 5.0]]), torch.tensor([[0.0, 0.0, 0.0]])
    weights, mask = torch.tensor([1.0, 0.5, 1.0]), torch.tensor([[True, True, False]])
    assert losses.critic_losses(q, y, None, None).tolist() == pytest.approx([10.0])
    assert losses.critic_losses(q, y, weights, mask).tolist() == pytest.approx([1.5])
    assert losses.critic_losses(q, y, weights, torch.zeros(1, 3, dtype=torch.bool)).tolist() == [0.0]


def test_actor_loss_is_minus_q_plus_the_mean_squared_logit() -> None:
    q, logits = torch.tensor([[1.0, 3.0]]), torch.tensor([[[2.0, 0.0], [0.0, FORBIDDEN]]])
    assert losses.actor_losses(q, logits, 0.0, None).tolist() == pytest.approx([-2.0])
    assert losses.actor_losses(q, logits, 0.1, None).tolist() == pytest.approx([-2.0 + 0.1 * 1.0])
    assert losses.actor_losses(q, logits, 0.1, torch.tensor([[True, False]])).tolist() == pytest.approx(
        [-0.8]
    )


def test_gumbel_softmax_by_hand_hard_and_soft() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)]], requires_grad=True)
    zero = torch.zeros(1, 2)
    assert losses.gumbel_softmax(logits, zero, 1.0, hard=False).tolist()[0] == pytest.approx([0.25, 0.75])
    assert losses.gumbel_softmax(logits, zero, 0.5, hard=False).tolist()[0] == pytest.approx([0.1, 0.9])
    hard = losses.gumbel_softmax(logits, zero, 1.0, hard=True)
    assert hard.tolist()[0] == pytest.approx([0.0, 1.0])
    hard[0, 1].backward()
    assert logits.grad is not None
    assert logits.grad.tolist()[0] == pytest.approx([-0.1875, 0.1875])  # p (1 - p): that of the soft value


def test_gumbel_noise_samples_the_softmax() -> None:
    torch.manual_seed(0)
    logits = torch.tensor([0.0, math.log(3.0)]).expand(20_000, 2)
    kind = action_kind(gym.spaces.Discrete(2), True)
    assert float(kind.target(logits, 0.0, 0.0)[:, 1].mean()) == pytest.approx(0.75, abs=0.02)


def test_target_smoothing_clips_noise_and_action() -> None:
    action, noise = torch.tensor([0.0, 0.0, 0.9]), torch.tensor([1.0, 10.0, 10.0])
    assert losses.smoothed(action, noise, 0.2, 0.5).tolist() == pytest.approx([0.2, 0.5, 1.0])


def test_gaussians_by_hand() -> None:
    zero, one = torch.zeros(1, 2), torch.ones(1, 2)
    half_log = math.log(2 * math.pi) / 2
    assert inferred.gaussian_log_likelihood(one, zero, zero).item() == pytest.approx(-1.0 - 2 * half_log)
    assert inferred.gaussian_entropy(zero).item() == pytest.approx(2 * (0.5 + half_log))
    assert inferred.gaussian_kl(zero, zero, zero, zero).item() == 0.0
    assert inferred.gaussian_kl(one, zero, zero, zero).item() == pytest.approx(1.0)
    # log(2) + 1/8 - 1/2 for N(0, 1) against N(0, 2), twice
    assert inferred.gaussian_kl(zero, zero, zero, math.log(2) * one).item() == pytest.approx(
        2 * (math.log(2) - 0.375)
    )


def test_categorical_kl_by_hand_with_a_forbidden_action() -> None:
    p, q = torch.tensor([[0.0, math.log(3.0)]]), torch.tensor([[0.0, 0.0]])
    assert inferred.categorical_kl(p, q).item() == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))
    shut = torch.tensor([[0.0, FORBIDDEN]])
    assert inferred.categorical_kl(shut, shut).item() == 0.0


# Action kinds -------------------------------------------------------------------------------------------


def test_box_actions_are_tanh_within_their_bounds() -> None:
    space = gym.spaces.Box(0.0, np.array([[2.0, 4.0]], np.float32))
    logits = torch.tensor([[math.inf, 0.0]])
    assert action_kind(space, normalized=True).greedy(logits).tolist() == [[[1.0, 0.0]]]
    own = action_kind(space, normalized=False)
    assert own.greedy(logits).tolist() == [[[2.0, 2.0]]]
    assert own.encode(torch.tensor([[[2.0, 1.0]]]), leading=1).tolist() == [[1.0, -0.5]]


def test_discrete_actions_become_one_hots() -> None:
    kind = action_kind(gym.spaces.MultiDiscrete([2, 3]), True)
    assert kind.encode(torch.tensor([[1, 2]]), leading=1).tolist() == [[0.0, 1.0, 0.0, 0.0, 1.0]]
    assert kind.greedy(torch.tensor([[1.0, 0.0, 0.0, 5.0, 0.0]])).tolist() == [[0, 1]]
    single = action_kind(gym.spaces.Discrete(3), True)
    assert single.encode(torch.tensor([[2, 0]]), leading=2).tolist() == [[[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]]


def test_forbidden_actions_are_never_chosen() -> None:
    torch.manual_seed(0)
    kind = action_kind(gym.spaces.Discrete(3), True)
    logits = masked(torch.zeros(500, 3), torch.tensor([False, True, False]).expand(500, 3), [3])
    for codes in (
        kind.target(logits, 0, 0),
        kind.relaxed(logits, 1.0, True),
        kind.relaxed(logits, 1.0, False),
    ):
        assert codes[:, 1].tolist() == pytest.approx([1.0] * 500)
    nothing = masked(torch.tensor([[1.0, 2.0, 3.0]]), torch.zeros(1, 3, dtype=torch.bool), [3])
    assert nothing.tolist() == [[1.0, 2.0, 3.0]]


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (gym.spaces.Box(-np.inf, np.inf, (2,)), "unbounded"),
        (gym.spaces.Box(0, 3, (2,), np.int64), "whole numbers"),
        (gym.spaces.Discrete(3, start=1), "start at 1"),
        (gym.spaces.MultiDiscrete([[2, 2]]), r"shape \(1, 2\)"),
        (gym.spaces.Dict(a=gym.spaces.Discrete(2)), "no actor for Dict"),
    ],
)
def test_a_space_without_an_actor_is_refused(space: gym.Space, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        action_kind(space, True)

"""AdamStep computes what `optimizer.step()` computes, on the same state."""

from __future__ import annotations

import copy

import pytest
import torch

from rlkit.algos.learning.adam import AdamStep, total_norm


def pair(**options: object) -> tuple[torch.nn.Module, torch.nn.Module, torch.optim.Adam, torch.optim.Adam]:
    torch.manual_seed(0)
    one = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    other = copy.deepcopy(one)
    made = [torch.optim.Adam(net.parameters(), lr=0.1, fused=True, **options) for net in (one, other)]
    return one, other, *made


def backward(*nets: torch.nn.Module) -> None:
    x = torch.randn(5, 3)
    for net in nets:
        net.zero_grad()
        net(x).square().sum().backward()


def train(
    steps: int,
) -> tuple[torch.nn.Module, torch.nn.Module, torch.optim.Adam, torch.optim.Adam, AdamStep]:
    one, other, plain, ours = pair()
    step = AdamStep(ours)
    for _ in range(steps):
        backward(one, other)
        plain.step()
        step()
    return one, other, plain, ours, step


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1}, {"amsgrad": True}, {"maximize": True}])
def test_same_parameters_as_the_optimizer(options: dict[str, object]) -> None:
    one, other, plain, ours = pair(**options)
    step = AdamStep(ours)
    for number in range(6):
        for optimizer in (plain, ours):  # as a schedule does
            optimizer.param_groups[0]["lr"] = 0.1 / (number + 1)
        backward(one, other)
        plain.step()
        step()
        assert same(one, other)


def test_the_state_is_the_optimizers() -> None:
    _, _, plain, ours, _ = train(3)
    assert all(
        torch.equal(a["exp_avg_sq"], b["exp_avg_sq"]) and a["step"] == b["step"] == 3
        for a, b in zip(plain.state.values(), ours.state.values(), strict=True)
    )


def test_a_restored_state_is_taken_up() -> None:
    one, other, plain, ours, step = train(3)
    before, weights = copy.deepcopy(plain.state_dict()), copy.deepcopy(one.state_dict())
    backward(one, other)
    plain.step()
    step()
    for net, optimizer in ((one, plain), (other, ours)):
        net.load_state_dict(weights)
        optimizer.load_state_dict(copy.deepcopy(before))
    backward(one, other)
    plain.step()
    step()
    assert same(one, other)


def test_parameters_without_a_gradient_stay() -> None:
    one, other, plain, ours = pair()
    step = AdamStep(ours)
    for number in range(4):
        backward(one, other)
        if number >= 2:
            for net in (one, other):
                net[0].bias.grad = None
        plain.step()
        step()
        assert same(one, other)


def test_hooks_of_the_optimizer_run() -> None:
    _, other, _, ours = pair()
    calls = []
    ours.register_step_pre_hook(lambda *_: calls.append(1))
    step = AdamStep(ours)
    for _ in range(3):
        backward(other)
        step()
    assert len(calls) == 3


def test_a_hook_added_later_runs() -> None:
    _, other, _, ours, step = train(3)
    calls = []
    ours.register_step_post_hook(lambda *_: calls.append(1))
    for _ in range(2):
        backward(other)
        step()
    assert len(calls) == 2


def test_total_norm() -> None:
    assert total_norm([torch.tensor([3.0]), torch.tensor([[0.0, 4.0]])]).item() == pytest.approx(5.0)
    assert not torch.isfinite(total_norm([torch.tensor([1.0]), torch.tensor([float("nan")])]))

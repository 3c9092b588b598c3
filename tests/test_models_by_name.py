"""The shipped models: memory that equals whole sequences, sets without an order, encoders per key, faults named."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

from rlkit.errors import UsageError
from rlkit.models import attention, cnn, entities, gru, lstm, multi_input
from rlkit.models.features import is_recurrent

S = gym.spaces
VECTOR = S.Box(-1, 1, (3,), np.float32)
IMAGE = S.Box(0, 255, (12, 10, 3), np.uint8)
RECURRENT = {
    "lstm": lambda space, **o: lstm(space, cell=8, hiddens=[8], **o),
    "gru": lambda space, **o: gru(space, cell=8, hiddens=[8], **o),
    "attention": lambda space, **o: attention(space, window=4, size=8, heads=2, blocks=2, hiddens=[8], **o),
}


def start(module: nn.Module, rows: int) -> dict[str, torch.Tensor]:
    return {key: value.expand(rows, *value.shape) for key, value in module.initial_state().items()}


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("space", [VECTOR, IMAGE], ids=["vector", "image"])
def test_step_by_step_equals_the_whole_sequence(name: str, space: gym.Space) -> None:
    torch.manual_seed(0)
    module = RECURRENT[name](space)
    obs = torch.rand(2, 9, *space.shape)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    state = start(module, 2)
    whole, after = module(obs, state)
    steps = []
    for t in range(9):
        features, state = module(obs[:, t : t + 1], state)
        steps.append(features)
    torch.testing.assert_close(torch.cat(steps, 1), whole, atol=1e-5, rtol=1e-4)
    for key in after:
        torch.testing.assert_close(state[key], after[key], atol=1e-5, rtol=1e-4)


def test_attention_sees_its_window_and_no_later_step() -> None:
    torch.manual_seed(0)
    module = attention(VECTOR, window=3, size=8, heads=2, blocks=1, hiddens=[8])
    obs = torch.rand(1, 8, 3)
    before, _ = module(obs, start(module, 1))
    changed = obs.clone()
    changed[:, 4] += 1.0
    after, _ = module(changed, start(module, 1))
    moved = (before - after).abs().amax(-1)[0] > 1e-6
    assert moved.tolist() == [False] * 4 + [True] * 3 + [False]  # steps 4, 5, 6 see step 4


def test_attention_tells_a_missing_step_from_a_step_of_zeros() -> None:
    torch.manual_seed(0)
    module = attention(VECTOR, window=3, size=8, heads=2, hiddens=[8])
    nn.init.normal_(module.blocks[0].distance)
    fresh = start(module, 1)
    filled = fresh | {"filled": torch.ones(1, 2)}
    obs = torch.rand(1, 1, 3)
    assert not torch.allclose(module(obs, fresh)[0], module(obs, filled)[0])


def test_a_cell_starts_orthogonal_with_biases_of_zero() -> None:
    module = lstm(VECTOR, cell=8)
    weight = module.cell.weight_hh_l0[:8]
    assert module.cell.bias_ih_l0.abs().max() == 0
    whole = module.cell.weight_hh_l0
    torch.testing.assert_close(whole.T @ whole, torch.eye(8), atol=1e-5, rtol=0)
    assert weight.abs().max() <= 1
    assert lstm(VECTOR, cell=8, orthogonal=False).cell.bias_ih_l0.abs().max() > 0


@pytest.mark.parametrize("pool", ["attention", "deep_sets"])
def test_sets_have_no_order_and_absent_entities_do_not_count(pool: Any) -> None:
    torch.manual_seed(0)
    space = S.Dict(entities=S.Box(-1, 1, (4, 2)), present=S.MultiBinary(4), me=VECTOR)
    module = entities(space, pool=pool, size=8, heads=2, hiddens=[16])
    rows, me = torch.rand(1, 4, 2), torch.rand(1, 3)

    def run(rows: torch.Tensor, present: list[float]) -> torch.Tensor:
        return module({"entities": rows, "present": torch.tensor([present]), "me": me})

    kept = run(rows, [1, 0, 1, 1])
    order = [3, 1, 0, 2]
    torch.testing.assert_close(run(rows[:, order], [1, 0, 1, 1]), kept)
    ghost = rows.clone()
    ghost[:, 1] = 7.0
    torch.testing.assert_close(run(ghost, [1, 0, 1, 1]), kept)
    assert not torch.allclose(run(rows, [1, 1, 1, 1]), kept)
    nobody = run(rows, [0, 0, 0, 0])
    assert torch.isfinite(nobody).all()
    torch.testing.assert_close(run(ghost, [0, 0, 0, 0]), nobody)
    nobody.sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in module.parameters())


def test_multi_input_has_an_encoder_per_key() -> None:
    space = S.Dict(camera=IMAGE, body=S.Tuple((VECTOR, S.Discrete(3))), others=S.Box(-1, 1, (4, 2)))
    module = multi_input(space, encoders={"others": {"name": "entities", "size": 8}}, hiddens=[16], fuse=[32])
    kinds = {
        "/".join(map(str, path)): type(e).__name__
        for path, e in zip(module.paths, module.encoders, strict=True)
    }
    assert kinds == {"camera": "CNN", "body/0": "MLP", "body/1": "MLP", "others": "Entities"}
    from rlkit.models.features import as_float, zeros

    assert module(zeros(space, 5)).shape == (5, 32)
    sample = {k: v for k, v in space.sample().items()}
    batch = {
        "camera": torch.from_numpy(sample["camera"])[None],
        "body": (torch.from_numpy(sample["body"][0])[None], torch.tensor([2])),
        "others": torch.from_numpy(sample["others"])[None],
    }
    assert module(as_float(batch, space)).shape == (1, 32)


def test_a_recurrent_model_takes_any_encoder() -> None:
    space = S.Dict(camera=IMAGE, body=VECTOR)
    module = gru(space, cell=8, encoder={"name": "multi_input", "fuse": [16]})
    obs = {"camera": torch.rand(2, 5, 12, 10, 3), "body": torch.rand(2, 5, 3)}
    features, _ = module(obs, start(module, 2))
    assert features.shape == (2, 5, 8)


def test_impala_blocks_add_to_their_input() -> None:
    module = cnn(IMAGE, impala=[4, 8], hidden=16)
    halves = [m for m in module.modules() if type(m).__name__ == "Residual"]
    assert len(halves) == 4
    for layer in (layer for half in halves for layer in half.layers if isinstance(layer, nn.Conv2d)):
        nn.init.zeros_(layer.weight)
    x = torch.rand(2, 4, 6, 5)
    torch.testing.assert_close(halves[0](x), x)
    assert module(torch.rand(2, 12, 10, 3)).shape == (2, 16)
    assert math.isfinite(float(module(torch.rand(1, 12, 10, 3)).sum()))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: attention(VECTOR, window=1), "model.window: got 1"),
        (lambda: attention(VECTOR, size=10, heads=4), "got 10, expected a multiple of heads"),
        (lambda: lstm(VECTOR, cell=0), "model.cell: got 0"),
        (lambda: lstm(VECTOR, hiddens=[]), "model.hiddens: got"),
        (lambda: lstm(VECTOR, encoder={"name": "gru"}), "'gru' is recurrent"),
        (lambda: lstm(VECTOR, encoder={"hiddens": [3]}), "expected a model by name"),
        (lambda: lstm(VECTOR, encoder={"name": "mlp", "hiddenz": [3]}), "no such option"),
        (lambda: multi_input(VECTOR), "takes a Dict or Tuple"),
        (lambda: multi_input(S.Dict(a=VECTOR), encoders={"b": {"name": "mlp"}}), "there is no such part"),
        (lambda: entities(VECTOR), r"takes a Box \(K, D\)"),
        (
            lambda: entities(S.Dict(entities=S.Box(-1, 1, (4, 2)), present=S.MultiBinary(3))),
            r"has shape \(3,\), expected \(4,\)",
        ),
        (lambda: entities(S.Box(-1, 1, (4, 2)), pool="mean"), "expected attention or deep_sets"),  # type: ignore[arg-type]
        (lambda: cnn(IMAGE, impala=[0]), "expected channels"),
        (lambda: cnn(IMAGE, impala=[4], filters=[[4, 3, 1]]), "give one of them"),
    ],
)
def test_faults_are_named(build: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        build()


def test_memory_is_found_by_the_initial_state() -> None:
    assert all(is_recurrent(build(VECTOR)) for build in RECURRENT.values())

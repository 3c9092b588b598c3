"""Action masks: what is not allowed is never taken and never counted on (benchmarks/illegal_actions.py)."""

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from rlkit import registry
from rlkit.algos.dqn import dueling_logits, epsilon_greedy, masked_q, without_stuck
from rlkit.algos.sac import log_probs, reachable_entropy
from rlkit.envs.checked_env import checked
from rlkit.errors import EnvError, UsageError
from rlkit.exploration.runner import uniform_actions, uniform_logp
from rlkit.launch.build import build
from rlkit.launch.spaces import check_spaces, forget_rosters
from rlkit.models.masks import legal_of, masked, stuck
from rlkit.recipe import Recipe
from rlkit.roster import random_action, split_mask

BENCHMARKS = str(Path(__file__).parents[1] / "benchmarks")
INF = float("inf")
S = gym.spaces


@pytest.fixture(scope="module")
def illegal() -> Iterator[Any]:
    """The benchmark, by the name under which its classes are pickled; its environments are forgotten afterwards."""
    known = set(registry.TABLES["envs"])
    sys.path.insert(0, BENCHMARKS)
    try:
        import illegal_actions

        illegal_actions.register()
    finally:
        sys.path.remove(BENCHMARKS)
    yield illegal_actions
    for name in set(registry.TABLES["envs"]) - known:
        del registry.TABLES["envs"][name]


# Equations --------------------------------------------------------------------------------------------------


def test_each_choice_is_masked_by_itself_and_one_without_anything_allowed_stays() -> None:
    outputs = torch.arange(5.0)[None]
    allowed = torch.tensor([[True, False, False, False, False]])
    assert masked(outputs, allowed, (2, 3), -9.0).tolist() == [[0.0, -9.0, 2.0, 3.0, 4.0]]
    assert stuck(allowed, (2, 3)).tolist() == [True]
    assert stuck(allowed, (5,)).tolist() == [False]


def test_masks_in_parts_come_side_by_side() -> None:
    parts = (torch.tensor([[1, 0]]), torch.tensor([[0, 1, 1]]))
    found = legal_of({"obs": torch.zeros(1, 4), "action_mask": parts})
    assert found is not None
    assert found.tolist() == [[True, False, False, True, True]]
    assert legal_of(torch.zeros(1, 4)) is None


def test_the_best_next_value_is_that_of_an_allowed_action() -> None:
    q, allowed = torch.tensor([[1.0, 7.0, 2.0]]), torch.tensor([[True, False, True]])
    assert masked_q(q, allowed, dueling=False).tolist() == [[1.0, -INF, 2.0]]
    # V = 10/3 and A = q - V: with the mean over actions 0 and 2 it is V + A - (1 + 2) / 2 + V
    dueling = masked_q(q, allowed, dueling=True)
    assert dueling[0, [0, 2]].tolist() == pytest.approx([10 / 3 - 0.5, 10 / 3 + 0.5])
    assert dueling[0, 1] == -INF
    nothing = torch.zeros(1, 3, dtype=torch.bool)
    assert masked_q(q, nothing, dueling=True).tolist() == q.tolist()


def test_nothing_is_bootstrapped_from_an_observation_that_allows_nothing() -> None:
    mask = torch.tensor([[1, 0], [0, 0], [0, 1]])
    batch = {
        "new_obs": {"obs": torch.zeros(3, 1), "action_mask": mask},
        "terminateds": torch.tensor([0, 0, 1]),
    }
    assert without_stuck(batch, (2,))["terminateds"].tolist() == [False, True, True]
    plain = {"new_obs": torch.zeros(3, 1), "terminateds": torch.tensor([0, 0, 1])}
    assert without_stuck(plain, (2,)) is plain


@pytest.mark.parametrize("lead", [(400,), (200, 2)])
def test_epsilon_greedy_draws_evenly_among_allowed_actions(lead: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    q = torch.tensor([0.0, -INF, 5.0]).expand(*lead, 3)  # RLlib's never draws the first one
    taken = epsilon_greedy(q, 1.0)
    assert taken.shape == lead
    assert set(taken.flatten().tolist()) == {0, 2}
    assert 0.4 < (taken == 0).float().mean() < 0.6
    assert (epsilon_greedy(q, 0.0) == 2).all()


def test_impossible_actions_add_nothing_to_values_and_entropy_of_sac() -> None:
    logits = torch.tensor([[1.0, -1e9, 1.0]], requires_grad=True)
    probs = torch.softmax(logits, dim=-1)
    logs = log_probs(probs)
    assert logs.tolist()[0] == pytest.approx([math.log(0.5), 0.0, math.log(0.5)])
    (probs * (0.2 * logs - torch.tensor([[1.0, 9.0, 2.0]]))).sum().backward()
    # d/dz_i of sum p (0.2 log p - q) with p = (1/2, 1/2): ±(q_1 - q_0) / 4
    assert logits.grad is not None
    assert logits.grad[0].tolist() == pytest.approx([0.25, 0.0, -0.25])
    target = reachable_entropy(torch.tensor(1.0), torch.tensor([[True, True, False], [True, False, False]]))
    assert float(target) == pytest.approx(math.log(2) / 2)


def test_random_actions_are_even_among_the_allowed_ones_of_each_choice() -> None:
    allowed = np.tile([True, False, True, True, False], (600, 1))
    space, rng = S.MultiDiscrete([2, 3]), np.random.default_rng(0)
    drawn = uniform_actions(space, 600, rng, allowed)
    assert set(map(tuple, drawn.tolist())) == {(0, 0), (0, 1)}
    assert 0.4 < drawn[:, 1].mean() < 0.6
    assert uniform_logp(space, 600, allowed)[:2].tolist() == pytest.approx([-math.log(2)] * 2)


# Spaces and bad input -----------------------------------------------------------------------------------------


def space_of(mask: gym.Space) -> gym.Space:
    return S.Dict(observation=S.Box(-1.0, 1.0, (2,)), action_mask=mask)


def test_masks_of_several_choices_have_two_shapes() -> None:
    several = S.MultiDiscrete([2, 3])
    in_parts = S.Tuple([S.MultiBinary(2), S.MultiBinary(3)])
    for mask in (S.MultiBinary(5), S.Box(0, 1, (5,), np.int8), in_parts):
        assert split_mask(space_of(mask), several)[1:] == ("observation", (2, 3))
    with pytest.raises(
        UsageError, match=r"shape \(4,\), expected \(5,\).*MultiDiscrete.*Tuple of \(2,\), \(3,\)"
    ):
        split_mask(space_of(S.MultiBinary(4)), several)
    with pytest.raises(UsageError, match=r"parts of shapes \[\(3,\), \(2,\)\], expected \(5,\)"):
        split_mask(space_of(S.Tuple([S.MultiBinary(3), S.MultiBinary(2)])), several)


@pytest.mark.parametrize(
    ("algorithm", "actions", "size", "said"),
    [
        ("PPO", S.Box(-1.0, 1.0, (2,)), 2, r"PPO: bad_mask: an 'action_mask' stands beside actions of Box"),
        ("SAC", S.Box(-1.0, 1.0, (2,)), 2, r"SAC: bad_mask: an 'action_mask' stands beside actions of Box"),
        ("DQN", S.Discrete(3), 4, r"DQN: bad_mask: the action mask has shape \(4,\), expected \(3,\)"),
        ("rllib/SAC", S.Discrete(3), 3, r"RLlib's SAC does not take action masks"),
        ("DQN", S.MultiDiscrete([2, 2]), 4, r"DQN needs discrete actions, bad_mask acts in MultiDiscrete"),
    ],
)
def test_what_cannot_take_a_mask_refuses_before_training(
    algorithm: str, actions: gym.Space, size: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlkit import registry

    class Bad(gym.Env):
        observation_space = space_of(S.Box(0, 1, (size,), np.int8))
        action_space = actions

    monkeypatch.setitem(registry.TABLES["envs"], "bad_mask", registry.Entry("bad_mask", Bad))
    told = {
        "name": "bad",
        "algorithm": algorithm,
        "env": "bad_mask",
        "model": {"name": "mlp"},
        "stop": {"iterations": 1},
    }
    recipe = Recipe.from_dict(told)
    forget_rosters()
    with pytest.raises(UsageError, match=said):
        check_spaces(build(recipe), recipe)
    forget_rosters()


def test_a_mask_that_allows_nothing_is_named_with_agent_and_step(illegal: Any) -> None:
    class Alone(illegal.Alone):  # type: ignore[name-defined,misc]
        def step(self, action: Any) -> Any:
            seen, *rest = super().step(action)
            return seen | {"action_mask": np.zeros(5, np.int8)}, *rest

    class Team(illegal.Team):  # type: ignore[name-defined,misc]
        def step(self, action_dict: Any) -> Any:
            seen, *rest = super().step(action_dict)
            mask = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0], np.int8)
            return {**seen, "a_1": seen["a_1"] | {"action_mask": mask}}, *rest

    env = checked(Alone(), name="alone")
    seen, _ = env.reset(seed=0)
    with pytest.raises(
        EnvError, match=r"alone: step 1 of episode 1: .*allows nothing; expected at least one of 5"
    ):
        env.step(int(seen["action_mask"].argmax()))
    team = checked(Team("several"), name="team")
    seen, _ = team.reset(seed=0)
    acted = {a: random_action(seen[a], *pair) for a, pair in _pairs(team).items()}
    with pytest.raises(
        EnvError, match=r"agent 'a_1', step 1 of episode 1: .*nothing in choice 1; .*one of 2 actions"
    ):
        team.step(acted)


def _pairs(team: Any) -> dict[str, Any]:
    return {a: (team.get_observation_space(a), team.get_action_space(a)) for a in team.possible_agents}


def test_an_agent_that_is_done_may_have_nothing_to_do(illegal: Any) -> None:
    for ends in ("terminated", "truncated"):
        env = checked(illegal.Alone(ends=ends), name="alone")
        seen, _ = env.reset(seed=0)
        for _ in range(illegal.LENGTH):
            seen, *_ = env.step(random_action(seen, env.observation_space, env.action_space))
        assert not seen["action_mask"].any()


# Training -----------------------------------------------------------------------------------------------------

QUICK = ("ppo lstm", "ppo several, in parts", "ppo epsilon", "impala", "appo lstm", "dqn", "dqn distributional",
         "dqn noisy", "dqn random", "sac", "sac truncated", "maddpg several", "dron")  # fmt: skip


@pytest.mark.parametrize("name", QUICK)
def test_illegal_actions_are_never_taken(name: str, illegal: Any, ray_local: None) -> None:
    counts, result = illegal.play(name, 300)
    assert counts["actions"] >= 300
    assert counts["illegal"] == 0
    losses = [v for m in result["learners"].values() for k, v in m.items() if "loss" in k and np.isscalar(v)]
    assert np.isfinite(losses).all(), losses


EXPORTED = ("dqn distributional", "ppo several, in parts", "dron alone", "maddpg several", "sac")


@pytest.mark.parametrize("name", EXPORTED)
def test_masks_stand_in_exported_graphs(name: str, illegal: Any, ray_local: None, tmp_path: Path) -> None:
    import rlkit
    from rlkit.play.export import export
    from rlkit.runs import manifest

    pytest.importorskip("onnxscript")
    case = illegal.CASES[name]
    recipe = Recipe.from_dict({**case, "name": "masked", "seed": 0, "stop": {"iterations": 1}})
    config = build(recipe)
    config.env_runners(num_env_runners=0)
    algorithm = config.build_algo()
    try:
        algorithm.save_to_path(str(tmp_path / "checkpoint"))
    finally:
        algorithm.stop()
    told = {"env": recipe.env, "env_config": dict(recipe.env_config)}
    manifest.write(tmp_path / "checkpoint", recipe=told, iteration=1, env_steps=1)
    for out in ("policy.onnx", "bundle", "policy.pt2"):
        made = export(tmp_path / "checkpoint", tmp_path / out)
        assert (made.different, made.error < 1e-5) == (0, True)
    for path in ("checkpoint", "bundle", "policy.onnx"):
        agent = rlkit.load(tmp_path / path)
        team = recipe.env == "masked_team"
        env = (illegal.Team if team else illegal.Alone)(**recipe.env_config)
        illegal.COUNTS.clear()
        seen, info = env.reset(seed=0)
        for _ in range(illegal.LENGTH):
            seen, _, _, _, info = env.step(agent.act(seen, info=info))
        assert (illegal.COUNTS["steps"], illegal.COUNTS["illegal"]) == (illegal.LENGTH, 0)
        with pytest.raises(UsageError, match=r"allows nothing.*expected at least one"):
            agent.act(seen, info=info)


def test_logits_of_a_dueling_distribution_by_hand() -> None:
    advantages, values = torch.tensor([[[1.0, 0.0], [3.0, 2.0], [8.0, 4.0]]]), torch.tensor([[10.0, 20.0]])
    whole = dueling_logits(advantages, values, None)  # means over actions: 4 and 2
    assert whole.tolist() == [[[7.0, 18.0], [9.0, 20.0], [14.0, 22.0]]]
    some = dueling_logits(advantages, values, torch.tensor([[True, True, False]]))  # 2 and 1
    assert some[0, :2].tolist() == [[9.0, 19.0], [11.0, 21.0]]

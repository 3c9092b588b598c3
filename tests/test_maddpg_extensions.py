"""Inferred policies, ensembles, recurrent policies, and normalised rewards and observations."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from maddpg_envs import NUMBER, Echo, Match, Sum
from maddpg_samples import columns_of, config_of, learner_of, update, weights
from ray.rllib.core.columns import Columns
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from test_maddpg import greedy_return, trained

from rlkit import rllib
from rlkit.algos.centralised.ensembles import ENSEMBLE_INDEX, INDEX, index_of, with_index
from rlkit.algos.centralised.inferred import divergence, likelihood_and_entropy
from rlkit.algos.centralised.replay import RewardStatistics
from rlkit.algos.centralised.spaces import Normalizer, action_kind
from rlkit.algos.sampling.joint_runner import JointEnvRunner
from rlkit.replay import Column, Fragment, Replay
from rlkit.replay.episodes import joint_columns, joint_fragments

RLlibRunner = rllib.seeded(MultiAgentEnvRunner)


def learners_of(algorithm: Any) -> Any:
    found: list[Any] = []
    algorithm.learner_group.foreach_learner(found.append)
    return found[0]


# Inferred policies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("game", [Sum, pytest.param(Match, marks=pytest.mark.slow)])
def test_a_game_is_solved_with_inferred_policies(ray_local: None, game: type[Any]) -> None:
    config = config_of(game, gamma=0.5, infer_policies=True)
    algorithm = config.build_algo()
    try:
        distances = []
        for _ in range(8):
            learners = algorithm.train()["learners"]
            distances.append(
                float(learners["a_0"]["inferred_kl_a_1"]) + float(learners["a_1"]["inferred_kl_a_0"])
            )
        # models follow policies that become certain
        assert min(distances[-2:]) < 0.3
        assert greedy_return(algorithm, game) > {Sum: -0.08, Match: 0.9}[game]
    finally:
        algorithm.stop()


def test_models_come_closer_to_policies_that_stay_as_they_are() -> None:
    config = config_of(Sum, infer_policies=True, actor_lr=3e-3, policy_delay=1000, exploration_noise=0.3)
    learner, distances = learner_of(config), []
    actor = learner.module["a_1"].unwrapped().target_actors[0]
    with torch.no_grad():
        actor.head.bias.add_(0.7)
    for seed in range(30):
        columns = columns_of(config, updates=3, rows=8, seed=seed)
        recent = columns_of(config, updates=3, rows=100, seed=100 + seed)
        with torch.no_grad():
            played = torch.tanh(actor(torch.from_numpy(recent["obs"]["a_1"])))
        noise = 0.3 * np.random.default_rng(seed).normal(size=played.shape)
        recent["actions"]["a_1"] = np.clip(played.numpy() + noise, -1, 1).astype(np.float32)
        distances.append(
            float(update(learner, {"joint": columns, "latest": recent})["a_0"]["inferred_kl_a_1"])
        )
    assert distances[-1] < 0.1 < 0.5 < distances[0]


def latest(config: Any, updates: int, rows: int) -> dict[str, Any]:
    return {
        "joint": columns_of(config, updates, rows),
        "latest": columns_of(config, updates, 10, seed=5),
    }


def test_targets_come_from_the_models_of_the_others() -> None:
    config = config_of(Sum, infer_policies=True)
    found = []
    for shift in (0.0, 5.0):
        learner = learner_of(config)
        with torch.no_grad():
            learner.module["a_0"].unwrapped().target_inferred["a_1"].head.bias.add_(shift)
        found.append(update(learner, columns_of(config, updates=1, rows=32)))
    assert float(found[0]["a_0"]["critic_loss"]) != float(found[1]["a_0"]["critic_loss"])
    assert float(found[0]["a_1"]["critic_loss"]) == float(found[1]["a_1"]["critic_loss"])


def test_models_are_the_same_stacked_or_not_and_only_where_critics_look_at_others() -> None:
    after = []
    for stack in (True, False):
        config = config_of(Sum, infer_policies=True, stack_agents=stack, critic={"a_1": "local"})
        learner = learner_of(config)
        assert list(learner.module["a_0"].unwrapped().inferred) == ["a_1"]
        assert learner.module["a_1"].unwrapped().modelled == ()
        for group in (*learner.parts[0].actors, *learner.parts[0].critics, *learner.extension.models):
            group.optimizer = torch.optim.SGD(group.bank.params, lr=0.1)
        update(learner, latest(config, updates=3, rows=16))
        after.append(weights(learner))
    assert any("inferred" in name for name in after[0])
    for name, value in after[0].items():
        assert torch.allclose(value, after[1][name], atol=1e-5), name


def test_a_policy_that_is_not_trained_has_models_that_stay_as_they_are() -> None:
    config = config_of(Sum, infer_policies=True).multi_agent(policies_to_train=["a_0"])
    learner = learner_of(config)
    before = weights(learner)
    found = update(learner, latest(config, updates=2, rows=8))
    changed = {name.split(".")[0] for name, v in weights(learner).items() if not torch.equal(v, before[name])}
    assert changed == {"a_0"}
    assert "inferred_loss_a_1" in found["a_0"]


def test_losses_and_learning_rates_are_logged_for_every_policy() -> None:
    config = config_of(Sum, infer_policies=True)
    found = update(learner_of(config), latest(config, updates=1, rows=8))
    for agent, other in (("a_0", "a_1"), ("a_1", "a_0")):
        mine = {name: float(value.peek()) for name, value in found[agent].items()}
        parts = [mine[name] for name in ("critic_loss", "actor_loss", f"inferred_loss_{other}")]
        assert mine["total_loss"] == pytest.approx(sum(parts))
        assert mine["actor_learning_rate"] == pytest.approx(config.actor_lr)
        assert mine["critic_learning_rate"] == pytest.approx(config.critic_lr)
        assert mine["inferred_0_learning_rate"] == pytest.approx(config.actor_lr)


def test_likelihood_and_divergence_of_discrete_models_by_hand() -> None:
    kind = action_kind(gym.spaces.MultiDiscrete([2, 2]), True)
    out, other = torch.tensor([[0.0, np.log(3.0), 0.0, 0.0]]), torch.zeros(1, 4)
    likelihood, entropy = likelihood_and_entropy(kind, out, torch.tensor([[0.0, 1.0, 1.0, 0.0]]))
    assert float(likelihood) == pytest.approx(np.log(0.75) + np.log(0.5))
    one = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    assert float(entropy) == pytest.approx(one + np.log(2))
    assert float(divergence(kind, out, other, 0.0)) == pytest.approx(np.log(2) - one)


# Ensembles ----------------------------------------------------------------------------------------------


def test_a_sub_policy_is_drawn_per_team_and_episode_and_all_learn(ray_local: None) -> None:
    algorithm = trained(config_of(Sum, gamma=0.5, ensemble_size=2), 7)
    try:
        replay = algorithm.replays["joint"]
        index = replay.ring.data[INDEX][0][: len(replay), 0].reshape(-1, 5)
        assert (index == index[:, :1]).all()  # whole episodes of five steps
        assert 0.35 < index.mean() < 0.65
        module = algorithm.env_runner.module["a_0"]
        batch = {Columns.OBS: torch.linspace(-0.8, 0.8, 9)[:, None]}
        answers = [
            module.forward_inference({**batch, ENSEMBLE_INDEX: torch.full((9,), k)})[Columns.ACTIONS]
            for k in (0, 1)
        ]
        assert not torch.equal(*answers)
        team = [float((a - batch[Columns.OBS]).abs().mean()) for a in answers]
        assert max(team) < 0.4
    finally:
        algorithm.stop()


def test_the_joint_runner_plays_the_sub_policies_that_rllibs_runner_plays(caplog: Any) -> None:
    config = config_of(Sum, ensemble_size={"a_0": 2, "a_1": 3}, teams={"x": ["a_0"], "y": ["a_1"]})
    config.env_runners(num_envs_per_env_runner=3, rollout_fragment_length=7)  # episodes have five steps
    config.validate()
    columns = joint_columns(("a_0", "a_1"), Sum({}).observation_spaces, Sum({}).action_spaces)
    played: list[dict[Any, Fragment]] = []
    for cls in (RLlibRunner, JointEnvRunner):
        torch.manual_seed(0)
        runner, found = cls(config=config), {}
        for call in range(4):
            samples = runner.sample(explore=False)
            if cls is RLlibRunner:
                samples = [
                    with_index(part, e.id_, e.custom_data, {"x": 2, "y": 3})
                    for e in samples
                    for part in joint_fragments([e], ("a_0", "a_1"), *columns)
                ]
            for fragment in samples:
                first = tuple(fragment.states["obs"]["a_0"][0].tolist())
                found[call, fragment.start, fragment.length, first] = fragment
        played.append(found)
    theirs, ours = played
    assert "samples episodes" not in caplog.text
    assert sorted(theirs) == sorted(ours)
    for key, fragment in ours.items():
        np.testing.assert_array_equal(fragment.steps[INDEX], theirs[key].steps[INDEX])
        for agent, actions in fragment.steps["actions"].items():
            np.testing.assert_allclose(actions, theirs[key].steps["actions"][agent], atol=1e-6)
    drawn = np.concatenate([fragment.steps[INDEX] for fragment in ours.values()])
    assert {tuple(row) for row in drawn.tolist()} == {(x, y) for x in range(2) for y in range(3)}


def test_a_sub_policy_learns_from_its_own_episodes_alone() -> None:
    config = config_of(Sum, ensemble_size=2)
    learner = learner_of(config)
    assert [part.name for part in learner.parts] == ["a/0", "a/1"]
    before = weights(learner)
    columns = columns_of(config, updates=2, rows=16)
    columns[INDEX] = np.ones((2, 16, 1), np.int8)
    found = learner.update_from_columns(
        iter([{"joint": {"a/1": columns}}]),
        num_updates=2,
        env_steps=0,
        timesteps={"num_env_steps_sampled_lifetime": 0},
    )
    changed = {name.split(".")[2] for name, v in weights(learner).items() if not torch.equal(v, before[name])}
    assert changed == {"1"}
    assert "critic_loss_1" in found["a_0"]


def test_targets_use_the_sub_policy_each_team_played() -> None:
    config = config_of(Sum, ensemble_size={"a_1": 2}, teams={"x": ["a_0"], "y": ["a_1"]})
    losses = []
    for index in (0, 1):
        columns = columns_of(config, updates=1, rows=16)
        columns[INDEX] = np.full((1, 16, 2), index, np.int8)
        columns[INDEX][..., 0] = 0
        found = learner_of(config).update_from_columns(
            iter([{"joint": {"x/0": columns}}]),
            num_updates=1,
            env_steps=0,
            timesteps={"num_env_steps_sampled_lifetime": 0},
        )
        losses.append(float(found["a_0"]["critic_loss"]))
    assert losses[0] != losses[1]


def test_outside_training_the_episodes_id_decides() -> None:
    found = [index_of(f"evaluation-{seed}", {}, "a", 3) for seed in range(300)]
    assert found == [index_of(f"evaluation-{seed}", {}, "a", 3) for seed in range(300)]
    assert np.bincount(found).min() > 70


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"ensemble_size": {"a_0": 3}},
            r"in team 'a' agent 'a_0' has 3 sub-policies, agent 'a_1' 1",
        ),
        ({"ensemble_size": 2, "infer_policies": True}, "got 2 together with infer_policies"),
        ({"infer_policies": True, "critic": "local"}, "got true with critics 'local'"),
        ({"ensemble_size": 2, "teams": {"x": ["a_0"]}}, r"agent 'a_1' is in none of"),
        (
            {"ensemble_size": 2, "replay_buffer_config": {"type": "PrioritizedEpisodeReplayBuffer"}},
            "together with prioritized replay",
        ),
    ],
)
def test_extensions_that_cannot_work(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config_of(Sum, **options).validate()


@pytest.mark.parametrize("option", [{"infer_policies": True}, {"ensemble_size": 2}])
def test_extensions_refuse_recurrent_policies(option: dict[str, Any]) -> None:
    config = config_of(Sum, **option).rl_module(model_config={"use_lstm": True})
    with pytest.raises(ValueError, match="together with a recurrent model"):
        config.validate()


def test_a_policy_of_two_teams_has_no_ensemble() -> None:
    config = config_of(Sum, shared=True, ensemble_size=2, teams={"x": ["a_0"], "y": ["a_1"]})
    with pytest.raises(ValueError, match=r"policy 'all' plays 'a_0' of team 'x' and 'a_1' of team 'y'"):
        config.validate()


# Recurrent policies -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_recurrent_policies_remember(ray_local: None) -> None:
    config = config_of(Echo, gamma=0.5, critic_lr=3e-3, actor_lr=3e-3, tau=0.05)
    config.rl_module(
        model_config={"fcnet_hiddens": [32], "use_lstm": True, "lstm_cell_size": 32, "max_seq_len": 5}
    )
    algorithm = trained(config, 17)
    try:
        module = algorithm.env_runner.module["a_0"]
        numbers = torch.tensor([[0.6], [-0.6], [0.3], [0.0]]).reshape(1, 4, 1)
        state = {name: v[None] for name, v in module.get_initial_state().items()}
        out = module.forward_inference({Columns.OBS: numbers, Columns.STATE_IN: state})
        played = out[Columns.ACTIONS][0, 1:, 0]
        # a policy without memory plays the same whatever came before
        assert torch.allclose(played, numbers[0, :-1, 0], atol=0.2), played
    finally:
        algorithm.stop()


def test_steps_of_the_burn_in_have_no_loss() -> None:
    losses = []
    for burn_in in (0, 2):
        config = config_of(Sum, burn_in_len=burn_in)
        config.rl_module(
            model_config={"fcnet_hiddens": [8], "use_lstm": True, "lstm_cell_size": 8, "max_seq_len": 4}
        )
        flat = columns_of(config, updates=1, rows=32)
        flat["loss_mask"] = np.ones((1, 32), bool)

        def fold(value: Any) -> Any:
            return (
                {k: fold(v) for k, v in value.items()}
                if isinstance(value, dict)
                else value.reshape(1, 8, 4, *value.shape[2:])
            )

        columns = fold(flat)
        columns["rewards"][:, :, :2] = 1e3
        losses.append(float(update(learner_of(config), columns)["a_0"]["critic_loss"]))
    assert losses[0] > 1e5 > 100 > losses[1]


# Normalisation ------------------------------------------------------------------------------------------


def test_reward_statistics_are_those_of_all_steps_acted() -> None:
    statistics, g = RewardStatistics(2), np.random.default_rng(0)
    rewards, acted = g.normal(3.0, 2.0, (60, 2)).astype(np.float32), g.random((60, 2)) < 0.8
    for part in (slice(0, 25), slice(25, 60)):
        steps = {"rewards": rewards[part], "acted": acted[part]}
        statistics.see([Fragment("e", 0, len(rewards[part]), {}, steps, False)])
    for i in (0, 1):
        mine = rewards[acted[:, i], i]
        assert statistics.mean[i] == pytest.approx(mine.mean(), rel=1e-5)
        assert statistics.deviation[i] == pytest.approx(mine.std(), rel=1e-5)
    again = RewardStatistics(2)
    again.set_state(statistics.get_state())
    assert again.deviation.tolist() == statistics.deviation.tolist()


def test_standardised_n_step_rewards_are_sums_of_standardised_rewards_up_to_each_agents_own_end() -> None:
    statistics = RewardStatistics(2)
    statistics.mean, statistics.squares, statistics.count = np.full(2, 2.0), np.full(2, 16.0), np.full(2, 4.0)
    acted = np.array([[1, 1], [1, 1], [1, 0]], bool)  # the second agent terminates in step 1
    rewards = np.array([[2, 4], [6, 6], [4, 0]], np.float32)
    replay = Replay(
        8, {"obs": NUMBER}, {"actions": NUMBER, "acted": Column.of("acted", shape=(2,), dtype=bool)}, agents=2
    )
    flags = np.zeros((3, 2), bool)
    steps = {
        "actions": np.zeros((3, 1), np.float32), "acted": acted, "rewards": rewards,
        "terminateds": np.array([[0, 0], [0, 1], [1, 0]], bool), "truncateds": flags,
    }  # fmt: skip
    replay.add([Fragment("e", 0, 3, {"obs": np.zeros((4, 1), np.float32)}, steps, True)])

    def standardized(rows: np.ndarray) -> np.ndarray:
        data = replay.ring.data
        return statistics.standardized(data["rewards"][0][rows], data["acted"][0][rows])

    found = replay.transitions(np.arange(3), n_step=3, gamma=0.5, rewards=standardized)["rewards"]
    # deviation 2; first agent 0, 2, 1; second agent 1, 2, then nothing
    np.testing.assert_allclose(found, [[0 + 0.5 * 2 + 0.25 * 1, 1 + 0.5 * 2], [2 + 0.5 * 1, 2], [1, 0]])


def test_a_normalizer_gives_mean_zero_and_variance_one() -> None:
    normalizer, x = (
        Normalizer(2),
        torch.randn(400, 2) * torch.tensor([5.0, 0.1]) + torch.tensor([100.0, -3.0]),
    )
    normalizer.see(x[:150])
    normalizer.see(x[150:])
    y = normalizer(x)
    assert torch.allclose(y.mean(dim=0), torch.zeros(2), atol=1e-3)
    assert torch.allclose(y.std(dim=0, unbiased=False), torch.ones(2), atol=1e-2)


def test_a_normalizer_keeps_a_spread_that_is_small_beside_the_mean() -> None:
    normalizer = Normalizer(1)
    rows = torch.randn(20, 1024, 1) * 0.1 + 1000.0
    for batch in rows:
        normalizer.see(batch)
    assert normalizer.mean.dtype == torch.float32
    assert normalizer.variance.sqrt().item() == pytest.approx(0.1, rel=0.05)


class Skewed(Sum):
    """Sum with numbers between 992 and 1008, and rewards a hundred times larger."""

    agents_: ClassVar = {a: (gym.spaces.Box(0.0, 2000.0, (1,), np.float32), NUMBER) for a in Sum.agents_}

    def draw(self) -> dict[str, Any]:
        self.small = super().draw()
        return {a: 1000 + 10 * number for a, number in self.small.items()}

    def pay(self, actions: Any) -> dict[str, float]:
        miss = sum(float(actions[a][0] - (self.seen[a][0] - 1000) / 10) for a in self.agents_)
        return dict.fromkeys(self.agents_, -100 * miss**2)


def test_a_badly_scaled_game_is_solved_with_normalisation(ray_local: None) -> None:
    options: dict[str, Any] = {"normalize_observations": True, "standardize_rewards": True}
    algorithm = trained(config_of(Skewed, gamma=0.5, **options), 9)
    try:
        assert greedy_return(algorithm, Skewed) > -5.0
        learner = learners_of(algorithm)
        normalizer = learner.module["a_0"].unwrapped().normalizer
        assert float(normalizer.mean) == pytest.approx(1000, abs=1)
        assert torch.equal(algorithm.env_runner.module["a_0"].normalizer.mean, normalizer.mean)
    finally:
        algorithm.stop()

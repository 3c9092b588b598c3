"""MADDPG as a user sees it: games with a known optimum, absent agents, truncation, and what it refuses."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from maddpg_envs import CARD, NUMBER, Alone, Game, Leaving, Match, Mixed, Sum
from maddpg_samples import columns_of, config_of, learner_of, update, weights
from ray.rllib.core.columns import Columns

from rlkit import state
from rlkit.algos import MADDPGConfig, MATD3Config
from rlkit.algos.centralised import replay
from rlkit.curriculum.transfer import forget
from rlkit.errors import RunFailed
from rlkit.exploration import configure
from rlkit.replay import Fragment


def greedy_return(algorithm: Any, game: type[Any], episodes: int = 40) -> float:
    """Mean reward per step and agent of greedy play."""
    env, rewards = game(), []
    config: Any = algorithm.config
    module = algorithm.env_runner.module
    for seed in range(episodes):
        observations, _ = env.reset(seed=seed)
        alone = not isinstance(observations, dict)
        over = False
        while not over:
            actions = {}
            for agent, seen in ({"default_policy": observations} if alone else observations).items():
                policy = agent if alone else config.policy_mapping_fn(agent, None)
                out = (module if alone else module[policy]).forward_inference({Columns.OBS: tensors(seen)})
                actions[agent] = stretched(out[Columns.ACTIONS][0].numpy(), env, agent)
            observations, reward, _, truncated, _ = env.step(actions["default_policy"] if alone else actions)
            rewards.append(reward if alone else np.mean(list(reward.values())))
            over = truncated if alone else truncated["__all__"]
    return float(np.mean(rewards))


def tensors(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: tensors(v) for k, v in value.items()}
    return torch.as_tensor(np.asarray(value))[None]


def stretched(action: np.ndarray, env: Any, agent: str) -> Any:
    space = env.action_space if isinstance(env, Alone) else env.action_spaces[agent]
    if isinstance(space, gym.spaces.Box):
        return space.low + (action + 1) * (space.high - space.low) / 2
    return int(action) if isinstance(space, gym.spaces.Discrete) else action


def trained(config: MADDPGConfig, iterations: int) -> Any:
    algorithm = config.build_algo()
    for _ in range(iterations):
        algorithm.train()
    return algorithm


@pytest.mark.parametrize(
    ("game", "cls", "shared", "at_least"),
    [
        (Sum, MADDPGConfig, False, -0.04),
        (Sum, MATD3Config, True, -0.04),
        (Match, MADDPGConfig, False, 0.95),
        (Alone, MATD3Config, False, -0.01),
    ],
)
def test_a_game_with_a_known_optimum_is_solved(
    ray_local: None, game: type[Any], cls: Any, shared: bool, at_least: float
) -> None:
    config = config_of(game, cls=cls, shared=shared, gamma=0.5)
    algorithm = trained(config, 8)
    try:
        assert greedy_return(algorithm, game) > at_least
    finally:
        algorithm.stop()


def test_pictures_dicts_masks_and_all_kinds_of_actions_in_one_team(ray_local: None) -> None:
    algorithm = trained(config_of(Mixed, gamma=0.5), 16)
    try:
        assert greedy_return(algorithm, Mixed) > 0.65
    finally:
        algorithm.stop()


@pytest.mark.parametrize("buffer", ["EpisodeReplayBuffer", "PrioritizedEpisodeReplayBuffer"])
def test_n_step_and_both_kinds_of_replay_learn(ray_local: None, buffer: str) -> None:
    config = config_of(
        Sum, gamma=0.5, n_step=2, replay_buffer_config={"type": buffer, "capacity": 5000, "beta": 0.4}
    )
    algorithm = trained(config, 8)
    try:
        assert greedy_return(algorithm, Sum) > -0.08
    finally:
        algorithm.stop()


def test_a_restored_run_goes_on_bit_for_bit(ray_local: None, tmp_path: Any) -> None:
    def build() -> Any:
        return config_of(Sum, cls=MATD3Config).build_algo()

    columns = columns_of(config_of(Sum), updates=3, rows=16)

    def learner(algorithm: Any) -> Any:
        found: list[Any] = []
        algorithm.learner_group.foreach_learner(found.append)
        return found[0]

    first = build()
    first.train()
    update(learner(first), {k: v for k, v in columns.items()})
    first.save_to_path(str(tmp_path))
    rows = len(first.replays["joint"])
    update(learner(first), columns)
    expected = weights(learner(first))
    first.stop()
    second = build()
    second.restore_from_path(str(tmp_path))
    assert len(second.replays["joint"]) == rows
    update(learner(second), columns)
    found = weights(learner(second))
    second.stop()
    assert all(torch.equal(expected[name], value) for name, value in found.items())


# What reaches the critics -------------------------------------------------------------------------------


def test_a_centralised_critic_sees_everybody_and_a_local_one_its_own_agent() -> None:
    for kind, sees in (("centralized", True), ("local", False)):
        config = config_of(Sum, critic={"a_0": kind})
        learner = learner_of(config)
        columns = columns_of(config, updates=1, rows=8)
        other = {**columns, "actions": {**columns["actions"], "a_1": -columns["actions"]["a_1"]}}
        losses = [float(update(learner_of(config), c)["a_0"]["critic_loss"]) for c in (columns, other)]
        assert (losses[0] != losses[1]) is sees
        assert learner.module["a_0"].unwrapped().critic_input.size == (4 if sees else 2)
        assert learner.module["a_1"].unwrapped().critic_input.size == 4


def test_the_runner_gets_the_actor_alone() -> None:
    learner = learner_of(config_of(Sum, cls=MATD3Config))
    state = learner.module["a_0"].unwrapped().get_state(inference_only=True)
    assert all(name.startswith("actors.") for name in state)
    spec = config_of(Sum).get_multi_rl_module_spec(
        spaces={"a_0": (NUMBER, NUMBER), "a_1": (NUMBER, NUMBER)}, inference_only=True
    )
    assert not hasattr(spec.build()["a_0"], "critics")


def test_truncation_bootstraps_and_termination_does_not() -> None:
    config = config_of(Sum)
    columns = columns_of(config, updates=1, rows=8)
    columns["terminateds"][:] = False
    cut = {**columns, "truncateds": ~columns["truncateds"]}
    ended = {**columns, "terminateds": ~columns["terminateds"]}
    loss = [float(update(learner_of(config), c)["a_0"]["critic_loss"]) for c in (columns, cut, ended)]
    assert loss[0] == loss[1] != loss[2]


def test_absent_agents_are_masked_out_of_their_own_losses_only() -> None:
    config = config_of(Sum, stack_agents=False)
    columns = columns_of(config, updates=1, rows=8)
    columns["acted"][..., 1] = columns["present"][..., 1] = False
    learner = learner_of(config)
    before = weights(learner)
    found = update(learner, columns)
    assert float(found["a_1"]["critic_loss"]) == 0.0
    assert float(found["a_0"]["critic_loss"]) > 0.0
    changed = {name for name, v in weights(learner).items() if not torch.equal(v, before[name])}
    assert not any(name.startswith("a_1.") for name in changed)
    assert [float(found["a_1"][name]) for name in ("q_mean", "td_error_mean")] == [0.0, 0.0]
    absent = {**columns, "actions": {**columns["actions"], "a_1": 7 * columns["actions"]["a_1"]}}
    again = update(learner_of(config), absent)
    assert float(again["a_0"]["critic_loss"]) == float(found["a_0"]["critic_loss"])


def test_a_team_whose_agents_leave_early(ray_local: None) -> None:
    """a_1 terminates after two of five steps: its value is 1 + γ at the start, a_0's goes on beyond the cut."""
    config = config_of(Leaving, gamma=0.5, critic_lr=1e-2, tau=0.1)
    config.env_runners(sampling="episodes")
    algorithm = trained(config, 4)
    try:
        replay = algorithm.replays["joint"]
        acted = replay.ring.data["acted"][0][: len(replay)]
        assert acted[:, 0].all()
        assert acted[:, 1].mean() == pytest.approx(0.4, abs=0.02)
        found: list[Any] = []
        algorithm.learner_group.foreach_learner(found.append)
        start = {a: torch.zeros(1, 1) for a in Leaving.agents_}
        values = {}
        for agent in Leaving.agents_:
            module = found[0].module[agent].unwrapped()
            x = module.critic_input(start, start, agent)
            values[agent] = float(module.critics[0][0](x).detach())
        assert values["a_1"] == pytest.approx(1.5, abs=0.1)
        assert values["a_0"] == pytest.approx(2.0, abs=0.15)
    finally:
        algorithm.stop()


def test_an_infinite_gradient_ends_the_run_before_a_weight_changes() -> None:
    config = config_of(Sum)
    learner, columns = learner_of(config), columns_of(config, updates=1, rows=8)
    columns["rewards"][..., 1] = 3e38
    before = weights(learner)
    with pytest.raises(
        RunFailed, match=r"update 1 of this call: NaN or inf in the gradient of a_1\. .*grad_clip"
    ):
        update(learner, columns)
    assert all(torch.equal(value, before[name]) for name, value in weights(learner).items())


def test_one_word_for_all_and_another_for_one_policy() -> None:
    config = config_of(Sum, critic="local").training(critic={"a_1": "centralized"})
    config.validate()
    assert [config.critic_of(m) for m in ("a_0", "a_1")] == ["local", "centralized"]


def test_delayed_policies_move_every_second_update() -> None:
    config = config_of(Sum, policy_delay=2)
    learner, columns = learner_of(config), columns_of(config_of(Sum), updates=1, rows=8)
    actors = [{k: v for k, v in weights(learner).items() if "actors" in k}]
    for _ in range(3):
        update(learner, columns)
        actors.append({k: v for k, v in weights(learner).items() if "actors" in k})
    moved = [any(not torch.equal(a[k], b[k]) for k in a) for a, b in itertools.pairwise(actors)]
    assert moved == [False, True, False]


def test_targets_follow_by_tau() -> None:
    learner = learner_of(config_of(Sum, tau=0.25))
    before = weights(learner)
    update(learner, columns_of(config_of(Sum), updates=1, rows=8))
    after = weights(learner)
    for name in (n for n in before if ".target_" in n):
        expected = 0.75 * before[name] + 0.25 * after[name.replace("target_", "")]
        assert torch.allclose(after[name], expected, atol=1e-6), name


@pytest.mark.parametrize("normalize", [False, True])
def test_a_frozen_policy_stays_as_it_is_and_plays_on(normalize: bool) -> None:
    config = config_of(Sum, normalize_observations=normalize).multi_agent(policies_to_train=["a_0"])
    learner = learner_of(config)
    before = weights(learner)
    found = update(learner, columns_of(config, updates=2, rows=8))
    changed = {name.split(".")[0] for name, v in weights(learner).items() if not torch.equal(v, before[name])}
    assert changed == {"a_0"}
    assert "critic_loss" in found["a_0"]
    assert "critic_loss" not in found["a_1"]


def test_noise_follows_its_schedule_and_greedy_play_has_none() -> None:
    config = config_of(Sum).training(exploration_noise=[[0, 0.5], [100, 0.0]])
    module = learner_of(config).module["a_0"].unwrapped()
    batch = {Columns.OBS: torch.zeros(4000, 1)}
    spread = [float(module.forward_exploration(batch, t=t)[Columns.ACTIONS].std()) for t in (0, 50, 100)]
    assert spread == pytest.approx([0.5, 0.25, 0.0], abs=0.04)
    assert module.forward_inference(batch)[Columns.ACTIONS].unique().numel() == 1


def test_an_exploration_of_its_own_takes_the_place_of_the_noise(ray_local: None) -> None:
    config = config_of(Sum, exploration_noise=0.9)
    options = {"stddev": 0.05, "random_timesteps": 0, "initial_scale": 1.0, "final_scale": 1.0}
    configure(config, {"type": "GaussianNoise", **options})
    algorithm = trained(config, 1)
    try:
        rows = algorithm.replays["joint"].transitions(np.arange(100))  # before learning began
        played = rows["actions"]["a_0"][:, 0]
        order = np.argsort(rows["obs"]["a_0"][:, 0])
        # neighbouring numbers get neighbouring actions: noise of .05, not of .9
        assert np.abs(np.diff(played[order])).mean() < 0.15
    finally:
        algorithm.stop()


# What is refused ----------------------------------------------------------------------------------------


class Unbounded(Game):
    agents_: ClassVar = {"a_0": (NUMBER, NUMBER), "a_1": (NUMBER, gym.spaces.Box(-np.inf, np.inf, (1,)))}


class Worded(Game):
    agents_: ClassVar = {"a_0": (NUMBER, NUMBER), "a_1": (gym.spaces.Text(5), CARD)}


def test_a_space_without_an_actor_names_the_agent() -> None:
    with pytest.raises(ValueError, match=r"agent 'a_1', what it acts: .*unbounded Box\(-inf, inf"):
        learner_of(config_of(Unbounded))
    with pytest.raises(ValueError, match=r"agent 'a_1', what it observes: .*Text"):
        learner_of(config_of(Worded))


def test_an_agent_without_a_policy_is_named() -> None:
    config = config_of(Sum).multi_agent(policy_mapping_fn=lambda agent, episode: "b")
    with pytest.raises(ValueError, match=r"agent 'a_0' is mapped to the policy 'b', which does not exist"):
        learner_of(config)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"critic": "centralised"}, r"critic: got 'centralised'; did you mean 'centralized'"),
        ({"critic": {"b": "local"}}, r"critic: there is no policy 'b'.*policies: a_0, a_1"),
        ({"gumbel": "straight"}, r"gumbel: got 'straight'.*hard, soft"),
        ({"lr": 1e-3}, "two learning rates, write actor_lr and critic_lr"),
        ({"tau": 0.0}, "tau: got 0.0, expected above 0"),
        ({"tau": 1.0, "twin_q": True}, "got twin_q True with tau 1.0"),
        ({"ensemble_size": {"a_0": 0}}, r"ensemble_size\.a_0: got 0, expected at least 1"),
        ({"ensemble_size": {"b": 2}}, r"ensemble_size: there is no policy 'b'.*policies: a_0, a_1"),
        ({"policy_delay": 0}, "policy_delay: got 0, expected at least 1"),
        ({"exploration_noise": -1.0}, "exploration_noise: got -1.0"),
        ({"temperature": [[0, 1.0], [10, 0.0]]}, "temperature: got 0.0, expected above 0"),
    ],
)
def test_options_that_cannot_work(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config_of(Sum).training(**options).validate()


def test_a_model_setting_without_effect_is_refused() -> None:
    config = config_of(Sum).rl_module(model_config={"fcnet_hiddens": [8], "free_log_std": True})
    with pytest.raises(ValueError, match=r"model.free_log_std: MADDPG has no such setting"):
        config.validate()


class Turns(Sum):
    """The agents act in turns."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict, dict]:
        seen, infos = super().reset(seed=seed)
        return {"a_0": seen["a_0"]}, infos

    def step(self, action_dict: Any) -> tuple[dict, dict, dict, dict, dict]:
        self.time += 1
        self.seen = self.draw()
        over, turn = self.time >= 40, f"a_{self.time % 2}"
        seen = self.seen if over else {turn: self.seen[turn]}
        return seen, dict.fromkeys(seen, 0.0), {"__all__": False}, {"__all__": over}, {}


def test_agents_that_take_turns_are_refused(ray_local: None) -> None:
    config = config_of(Turns).env_runners(sampling="episodes", rollout_fragment_length=40)
    algorithm = config.build_algo()
    try:
        with pytest.raises(
            ValueError, match=r"agent 'a_0' acted in \d+ steps and saw the next one in [01] of them"
        ):
            algorithm.train()
    finally:
        algorithm.stop()


def test_turns_are_counted_over_samples() -> None:
    turns = replay.Turns(["a", "b", "c"])

    def sample(acting: np.ndarray) -> Fragment:
        present = np.concatenate([acting, acting[:1]])
        steps = {"acted": acting, "terminateds": np.zeros_like(acting)}
        return Fragment("e", 0, len(acting), {"present": present}, steps, False)

    in_turn = np.arange(64)[:, None] % 3 == np.arange(3)
    turns.see([sample(in_turn)])  # 21 or 22 steps of each tell too little
    with pytest.raises(
        ValueError, match=r"agent 'a' acted in 44 steps and saw the next one in [0-2] of them"
    ):
        turns.see([sample(in_turn)])
    replay.Turns(["a", "b", "c"]).see([sample(np.ones((64, 3), bool))])


@pytest.mark.slow
def test_remote_runners_and_two_learners_learn_the_same_game(ray_local: None) -> None:
    config = config_of(Sum, gamma=0.5, normalize_observations=True)
    config.env_runners(num_env_runners=1).learners(num_learners=2, num_cpus_per_learner=0.5)
    config.training(train_batch_size_per_learner=64)
    algorithm = config.build_algo()
    try:
        for _ in range(8):
            algorithm.train()
        states = [s.get() for s in algorithm.learner_group.foreach_learner(weights)]
        for name, value in states[0].items():
            assert torch.equal(value, states[1][name]), name
        state = algorithm.learner_group.get_state(components="learner/rl_module")["learner"]["rl_module"]
        learner = learner_of(config_of(Sum, normalize_observations=True))
        for agent in Sum.agents_:
            learner.module[agent].set_state(state[agent])
        actor = learner.module["a_0"].unwrapped()
        played = actor.forward_inference({Columns.OBS: torch.tensor([[0.5], [-0.5]])})[Columns.ACTIONS]
        assert played.flatten().tolist() == pytest.approx([0.5, -0.5], abs=0.25)
    finally:
        algorithm.stop()


def test_a_curriculum_that_drops_the_replay_makes_it_anew(ray_local: None) -> None:
    algorithm = trained(config_of(Sum, standardize_rewards=True), 1)
    seen, replay = algorithm.rewards.get_state(), algorithm.replays["joint"]
    forget(algorithm, optimizer=False, replay=True)
    assert len(replay) > 0
    assert len(algorithm.replays["joint"]) == 0
    assert state.components(algorithm)["rewards"].get_state() != seen  # what is saved is what is in use
    algorithm.train()
    algorithm.stop()

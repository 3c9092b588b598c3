"""The off-policy step as a user sees it: settings, counts, faults, seeds, and a run that goes on where it was saved."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import gymnasium as gym
import model_samples
import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from rlkit import registry
from rlkit.algos import DQN, SAC, DQNConfig, SACConfig
from rlkit.algos.learning.learner import STATE
from rlkit.algos.offpolicy.step import OffPolicy
from rlkit.errors import EnvError, RunFailed
from rlkit.models import module_spec, register_model
from rlkit.recipe import RecipeError, from_mapping
from rlkit.replay import Fragment, Replay

UNIFORM = {"type": "EpisodeReplayBuffer", "capacity": 2000}
PRIORITIZED = {"type": "PrioritizedEpisodeReplayBuffer", "capacity": 2000}


def dqn(buffer: dict[str, Any] = UNIFORM, **training: Any) -> DQNConfig:
    config = DQNConfig().environment("CartPole-v1").env_runners(num_envs_per_env_runner=4)
    config.training(
        train_batch_size_per_learner=16,
        num_steps_sampled_before_learning_starts=100,
        replay_buffer_config=buffer,
        **{"training_intensity": 4, **training},
    )
    config.rl_module(model_config={"fcnet_hiddens": [16]})
    return config.debugging(seed=3, log_level="ERROR").reporting(min_sample_timesteps_per_iteration=128)


def sac(**training: Any) -> SACConfig:
    config = SACConfig().environment("Pendulum-v1").env_runners(num_envs_per_env_runner=4)
    config.training(
        train_batch_size_per_learner=16,
        num_steps_sampled_before_learning_starts=100,
        replay_buffer_config=PRIORITIZED,
        **{"training_intensity": 4, **training},
    )
    config.rl_module(model_config={"fcnet_hiddens": [16]})
    config.reporting(min_sample_timesteps_per_iteration=128, min_time_s_per_iteration=0)
    return config.debugging(seed=3, log_level="ERROR")


def learner_of(algorithm: Any) -> Any:
    found: list[Any] = []
    algorithm.learner_group.foreach_learner(found.append)
    return found[0]


def weights(algorithm: Any) -> dict[str, torch.Tensor]:
    state = learner_of(algorithm).module[DEFAULT_MODULE_ID].state_dict()
    return {k: v.clone() for k, v in state.items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# Settings that cannot work ------------------------------------------------------------------------------


def test_an_unknown_buffer_names_those_accepted() -> None:
    with pytest.raises(
        ValueError, match=r"unknown type 'PrioritisedEpisodeReplayBuffer'; did you mean 'PrioritizedE"
    ):
        dqn({"type": "PrioritisedEpisodeReplayBuffer", "capacity": 100}).validate()
    with pytest.raises(
        ValueError, match=r"unknown key 'size'.*accepted: type, capacity, alpha, beta, columns"
    ):
        dqn({**UNIFORM, "size": 5}).validate()


def test_a_capacity_below_one_batch_gives_both_numbers() -> None:
    with pytest.raises(ValueError, match=r"capacity 10 is smaller than one batch .* = 16"):
        dqn({"type": "EpisodeReplayBuffer", "capacity": 10}).validate()
    with pytest.raises(
        ValueError, match=r"capacity 50 is smaller than what one step samples \(4 environments x 16"
    ):
        dqn({"type": "EpisodeReplayBuffer", "capacity": 50}).env_runners(
            rollout_fragment_length=16
        ).validate()


@pytest.mark.parametrize(
    ("algorithm", "capacity", "runners"),
    [("DQN", 80, {"num_envs_per_env_runner": 4, "rollout_fragment_length": 32}), ("SAC", 60, {})],
)
def test_a_recipe_is_told_of_a_capacity_below_one_sample(
    algorithm: str, capacity: int, runners: dict[str, Any]
) -> None:
    buffer = {"type": "EpisodeReplayBuffer", "capacity": capacity}
    training = {"replay_buffer_config": buffer, "train_batch_size_per_learner": 16}
    values = {
        "algorithm": algorithm, "env": "CartPole-v1", "stop": {"env_steps": 10_000},
        "config": {"training": training, "env_runners": runners},
    }  # fmt: skip
    message = rf"holds {capacity} steps, one step samples (128|64) .*fix: write a capacity"
    with pytest.raises(RecipeError, match=message):
        from_mapping(values)
    buffer["capacity"] = 128
    from_mapping(values)


@pytest.mark.parametrize(("batch", "length", "expected"), [(60, 20, 2), (80, 20, 4), (64, 32, 2)])
def test_two_learners_get_equally_many_sequences(batch: int, length: int, expected: int) -> None:
    replay = Replay(100, {"obs": gym.spaces.Box(-1, 1, (1,))}, {"actions": gym.spaces.Discrete(2)}, seed=0)
    flags = np.zeros(50, bool)
    steps = {
        "actions": np.zeros(50, np.int64),
        "rewards": np.ones(50),
        "terminateds": flags,
        "truncateds": flags,
    }
    replay.add([Fragment("e", 0, 50, {"obs": np.zeros((51, 1), np.float32)}, steps, False)])
    algorithm: Any = SimpleNamespace(
        config=SimpleNamespace(total_train_batch_size=batch, num_learners=2), burn_in=0
    )
    rows, drawn = OffPolicy.draw_sequences(algorithm, replay, length, 3)
    assert rows.shape == (3, expected)
    assert drawn["rewards"].shape == (3, expected, length)


def test_the_capacity_of_rllibs_default_stays_when_only_the_type_changes() -> None:
    config = dqn({"type": "EpisodeReplayBuffer"})
    config.validate()
    assert config.replay_buffer_config["capacity"] == 50_000


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: sac(), {"twin_q": False}),
        (lambda: dqn(), {"burn_in_len": 2}),
        (lambda: dqn(), {"dueling": True}),
    ],
    ids=["twin_q", "burn_in_len", "dueling"],
)
def test_an_override_of_one_module_that_nothing_reads_is_refused(make: Any, word: dict[str, Any]) -> None:
    config = make()
    config.rl_module(algorithm_config_overrides_per_module={DEFAULT_MODULE_ID: config.overrides(**word)})
    name, value = next(iter(word.items()))
    with pytest.raises(ValueError, match=rf"got {name}: {value} for module .* holds for all modules"):
        config.validate()


def test_one_module_s_gradients_are_clipped_its_own_way() -> None:
    config = dqn(grad_clip=1.0)
    config.rl_module(
        algorithm_config_overrides_per_module={
            DEFAULT_MODULE_ID: config.overrides(grad_clip=1e-3, grad_clip_by="value")
        }
    )
    config.validate()
    learner = config.build_learner(env=gym.make("CartPole-v1"))
    seen: list[float] = []
    apply = learner.apply_gradients
    learner.apply_gradients = lambda g: (seen.extend(float(x.abs().max()) for x in g.values()), apply(g))[1]
    update(learner, columns(1), 1, 100, 100)
    assert max(seen) == pytest.approx(1e-3)


def test_auto_fragments_keep_rllibs_updates_per_env_step() -> None:
    """RLlib: one update for each n_step steps of all environments."""
    config = dqn(training_intensity=None, n_step=3)
    assert config.get_rollout_fragment_length() * config.env_copies >= 64
    assert config.updates_per_env_step == pytest.approx(1 / (3 * 4))
    assert dqn(training_intensity=8).updates_per_env_step == pytest.approx(8 / 16)


def test_a_learner_connector_that_reads_episodes_is_refused() -> None:
    from ray.rllib.connectors.common.frame_stacking import FrameStacking

    config = dqn().learners(
        learner_connector=lambda *_: FrameStacking(num_frames=4, as_learner_connector=True),
    )
    learner = config.build_learner(env=gym.make("CartPole-v1"))
    with pytest.raises(
        ValueError, match=r"FrameStacking reads episodes, and replay holds columns.*rllib/DQN"
    ):
        learner.update_from_columns([], num_updates=0, env_steps=0, timesteps={})


# A learner alone ----------------------------------------------------------------------------------------


def columns(k: int, b: int = 16) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        DEFAULT_MODULE_ID: {
            "obs": rng.standard_normal((k, b, 4), np.float32),
            "new_obs": rng.standard_normal((k, b, 4), np.float32),
            "actions": rng.integers(0, 2, (k, b)),
            "rewards": np.ones((k, b), np.float32),
            "terminateds": np.zeros((k, b), bool),
            "weights": np.ones((k, b), np.float32),
            "n_step": np.ones((k, b), np.float32),
        }
    }


def update(learner: Any, chunk: dict[str, Any], k: int, t: int, env_steps: int) -> Any:
    return learner.update_from_columns(
        [chunk], num_updates=k, env_steps=env_steps, timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: t}
    )


def test_a_learner_on_a_gpu_goes_on_with_its_generator_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU is here: torch's calls are replaced."""
    generators = {"cpu": torch.tensor([1, 2, 3], dtype=torch.uint8)}
    config = dqn()
    config.validate()
    learner = config.build_learner(env=gym.make("CartPole-v1"))
    assert learner.get_state()[STATE]["cuda_rng"] is None
    monkeypatch.setattr(type(learner), "_on_cuda", property(lambda self: True))
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: generators[str(device)])
    monkeypatch.setattr(
        torch.cuda, "set_rng_state", lambda value, device: generators.update({str(device): value})
    )
    saved = learner.get_state()
    generators["cpu"] = torch.zeros(3, dtype=torch.uint8)
    learner.set_state(saved)
    assert generators["cpu"].tolist() == [1, 2, 3]


def test_targets_follow_within_a_call() -> None:
    """256 env steps and 8 updates in a call: a target every 64 env steps is one every 2 updates."""
    learner = dqn(target_network_update_freq=64).build_learner(env=gym.make("CartPole-v1"))
    results = update(learner, columns(8), 8, t=1000, env_steps=256)
    assert results[DEFAULT_MODULE_ID]["num_target_updates"].peek() == 4
    module = learner.module[DEFAULT_MODULE_ID]
    for main, target in module.get_target_network_pairs():
        assert not same(main.state_dict(), target.state_dict()) or not list(main.parameters())
    # the seventh update was the last to copy: one more call copies at its second update
    update(learner, columns(2), 2, t=1064, env_steps=64)
    update(learner, columns(1), 1, t=1128, env_steps=64)
    for main, target in module.get_target_network_pairs():
        assert same(main.state_dict(), target.state_dict())


@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_targets_copy_what_a_model_counts(tau: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.TABLES, "models", dict(registry.TABLES["models"]))
    register_model("counting", model_samples.counting)
    config = dqn(target_network_update_freq=0, tau=tau)
    config.rl_module(rl_module_spec=module_spec(config, {"name": "counting"}))
    learner = config.build_learner(env=gym.make("CartPole-v1"))
    update(learner, columns(3), 3, 100, 100)
    pairs = learner.module[DEFAULT_MODULE_ID].get_target_network_pairs()
    counts = [
        (int(value), int(target.state_dict()[name]))
        for main, target in pairs
        for name, value in main.state_dict().items()
        if name.endswith("num_batches_tracked")
    ]
    assert counts
    assert all(main == target > 0 for main, target in counts)


def test_td_errors_come_back_for_every_row() -> None:
    learner = dqn().build_learner(env=gym.make("CartPole-v1"))
    got: list[Any] = []
    learner.update_from_columns(
        [columns(3), columns(2)], num_updates=5, env_steps=10, timesteps={}, feedback=got.append
    )
    assert [errors[DEFAULT_MODULE_ID].shape for errors in got] == [(3, 16), (2, 16)]
    assert all((errors[DEFAULT_MODULE_ID] > 0).all() for errors in got)


@pytest.mark.parametrize("poison", ["rewards", "obs"])
def test_nan_stops_before_it_reaches_a_weight(poison: str) -> None:
    learner = dqn().build_learner(env=gym.make("CartPole-v1"))
    chunk = columns(5)
    chunk[DEFAULT_MODULE_ID][poison][3] = np.nan
    # RLlib's loss turns NaN Q-values into 0: a NaN observation shows in the gradients alone
    loss = {"rewards": "the loss of module 'default_policy' is nan", "obs": "all losses are finite"}[poison]
    message = rf"update 4 of this call: {loss}; first NaN or inf gradient: default_policy/\w+.*weights are those before"
    with pytest.raises(RunFailed, match=message):
        update(learner, chunk, 5, t=100, env_steps=10)
    state = learner.get_state()
    for value in learner.module[DEFAULT_MODULE_ID].state_dict().values():
        assert torch.isfinite(value).all()
    moments = state["optimizer"]["default_policy_default_optimizer"]["state"]["state"]
    assert all(np.isfinite(m["exp_avg"]).all() for m in moments.values())


def test_a_gradient_that_explodes_names_its_parameter() -> None:
    """The loss is finite; the gradient of one parameter alone is not."""
    learner = dqn().build_learner(env=gym.make("CartPole-v1"))
    name, parameter = next(iter(learner.module[DEFAULT_MODULE_ID].named_parameters()))
    handle = parameter.register_hook(lambda g: g * float("inf"))
    with pytest.raises(
        RunFailed, match=rf"all losses are finite; first NaN or inf gradient: default_policy/{name} "
    ):
        update(learner, columns(1), 1, t=100, env_steps=10)
    handle.remove()


class Doubled:
    """A learner connector piece of a user: works on the batch."""

    def __call__(self, *, batch: Any, **kwargs: Any) -> Any:
        return {mid: {**b, "rewards": b["rewards"] * 0 + 7.0} for mid, b in batch.items()}


def test_a_users_learner_connector_sees_the_batch() -> None:
    from ray.rllib.connectors.connector_v2 import ConnectorV2

    class Piece(Doubled, ConnectorV2):  # type: ignore[misc]
        pass

    plain = dqn().build_learner(env=gym.make("CartPole-v1"))
    custom = dqn().learners(learner_connector=lambda *_: Piece()).build_learner(env=gym.make("CartPole-v1"))
    custom.module.set_state(plain.module.get_state())
    chunk = columns(2)
    update(custom, chunk, 2, t=10, env_steps=4)
    chunk[DEFAULT_MODULE_ID]["rewards"][:] = 7.0
    update(plain, chunk, 2, t=10, env_steps=4)
    a, b = (x.module[DEFAULT_MODULE_ID].state_dict() for x in (plain, custom))
    assert same(a, b)


# Whole algorithms -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("ray_local")
class TestAlgorithm:
    def test_updates_match_the_intensity_and_learning_starts_on_time(self) -> None:
        algorithm = dqn(training_intensity=4).build_algo()
        try:
            results = [algorithm.train() for _ in range(3)]
        finally:
            algorithm.stop()
        sampled = [int(r["num_env_steps_sampled_lifetime"]) for r in results]
        before = 64  # the first sample; the second one passes 100
        updates = results[-1]["learners"]["__all_modules__"]["num_updates_lifetime"]
        assert updates == pytest.approx((sampled[-1] - before) * 4 / 16, abs=1.5)
        assert results[-1]["replay_buffer"][DEFAULT_MODULE_ID]["rows"] == sampled[-1]
        assert np.isfinite(results[-1]["learners"][DEFAULT_MODULE_ID]["qf_loss"])

    @pytest.mark.parametrize(
        "make", [dqn, lambda: dqn(PRIORITIZED, n_step=3), sac], ids=["dqn", "per", "sac"]
    )
    def test_same_seed_same_weights(self, make: Any) -> None:
        runs = []
        for seed in (3, 3, 4):
            algorithm = make().debugging(seed=seed).build_algo()
            for _ in range(2):
                algorithm.train()
            runs.append(weights(algorithm))
            algorithm.stop()
        assert same(runs[0], runs[1])
        assert not same(runs[0], runs[2])

    @pytest.mark.parametrize(
        ("make", "cls"),
        [(dqn, DQN), (lambda: dqn(PRIORITIZED, n_step=3), DQN), (sac, SAC)],
        ids=["dqn", "per", "sac"],
    )
    def test_a_saved_run_goes_on_bit_for_bit(self, make: Any, cls: Any, tmp_path: Path) -> None:
        original = make().build_algo()
        for _ in range(3):
            original.train()
        original.save_to_path(str(tmp_path / "c"))
        generator = torch.get_rng_state()
        restored = make().build_algo()
        restored.restore_from_path(str(tmp_path / "c"))
        assert torch.equal(torch.get_rng_state(), generator)
        loaded = cls.from_checkpoint(str(tmp_path / "c"))
        copies = [original, restored, loaded]
        try:
            before = original.replays[DEFAULT_MODULE_ID].get_state()
            for copy in copies[1:]:
                state = copy.replays[DEFAULT_MODULE_ID].get_state()
                assert state["counters"] == before["counters"]
                for name, array in before["arrays"].items():
                    np.testing.assert_array_equal(state["arrays"][name], array)
                assert same(weights(copy), weights(original))
            for copy in copies:
                # SAC draws from torch's generator, which the three share
                torch.set_rng_state(generator)
                copy.learn(5, 64)
            state = learner_of(original).get_state()
            for copy in copies[1:]:
                assert same(weights(copy), weights(original))
                other = learner_of(copy).get_state()
                assert_equal(other["optimizer"], state["optimizer"])
                for key in ("last_update_ts", "log_alpha"):
                    assert_equal(other["column_learner"][key], state["column_learner"][key])
                assert len(copy.train()["learners"]) == 2
        finally:
            for copy in copies:
                copy.stop()

    def test_a_buffer_can_be_left_out_of_checkpoints(self, tmp_path: Path) -> None:
        algorithm = dqn(store_buffer_in_checkpoints=False).build_algo()
        algorithm.train()
        algorithm.save_to_path(str(tmp_path / "c"))
        assert not list((tmp_path / "c").rglob("*.npy"))
        algorithm.stop()
        restored = DQN.from_checkpoint(str(tmp_path / "c"))
        assert len(restored.replays[DEFAULT_MODULE_ID]) == 0
        restored.stop()

    def test_seeds_differ_between_runners_calls_and_a_resumed_run(self, tmp_path: Path) -> None:
        def first_observations(algorithm: Any) -> list[float]:
            episodes, _ = algorithm.sample()
            return [float(e.get_observations(0)[0]) for e in episodes if e.t_started == 0]

        config = dqn().env_runners(
            num_env_runners=2, num_envs_per_env_runner=2, batch_mode="complete_episodes"
        )
        algorithm = config.build_algo()
        seen = first_observations(algorithm)
        assert len(set(seen)) == len(seen) >= 4
        algorithm.train()
        again = first_observations(algorithm)
        assert not set(seen) & set(again)
        algorithm.save_to_path(str(tmp_path / "c"))
        algorithm.stop()
        resumed = DQN.from_checkpoint(str(tmp_path / "c"))
        # it goes on with the seeds of its own env step; RLlib's runner would begin with `seen` again
        assert not set(first_observations(resumed)) & set(seen)
        resumed.stop()

    def test_remote_runners_and_learners(self) -> None:
        config = dqn(PRIORITIZED).env_runners(num_env_runners=1).learners(num_learners=1)
        algorithm = config.build_algo()
        try:
            result = [algorithm.train() for _ in range(2)][-1]
            assert np.isfinite(result["learners"][DEFAULT_MODULE_ID]["qf_loss"])
            replay = algorithm.replays[DEFAULT_MODULE_ID]
            assert replay.tree is not None
            # TD errors came back from the learner process
            assert len(np.unique(replay.tree.leaves(len(replay)))) > 20
        finally:
            algorithm.stop()

    @pytest.mark.slow
    def test_a_killed_runner_comes_back(self) -> None:
        config = dqn().env_runners(num_env_runners=1, sample_timeout_s=30)
        algorithm = config.fault_tolerance(restart_failed_env_runners=True).build_algo()
        try:
            algorithm.train()
            algorithm.env_runner_group.foreach_env_runner_async(lambda _: os._exit(1), tag="kill")
            results = [algorithm.train() for _ in range(2)]
            steps = [int(r["num_env_steps_sampled_lifetime"]) for r in results]
            assert steps[1] > steps[0] > 128
            assert algorithm.env_runner_group.num_healthy_remote_env_runners() == 1
        finally:
            algorithm.stop()

    def test_runners_that_never_answer_end_the_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        algorithm = dqn().env_runners(sample_timeout_s=0.5).build_algo()
        try:
            monkeypatch.setattr(algorithm, "sample", lambda: ([], []))
            with pytest.raises(
                RunFailed, match=r"no env runner has answered for \d+ s .*sample_timeout_s=0.5"
            ):
                algorithm.train()
        finally:
            algorithm.stop()

    def test_a_recurrent_module_learns_from_sequences(self) -> None:
        model = {"fcnet_hiddens": [16], "use_lstm": True, "lstm_cell_size": 8, "max_seq_len": 5}
        config = dqn(burn_in_len=2).rl_module(model_config=model)
        algorithm = config.build_algo()
        try:
            before = weights(algorithm)
            result = [algorithm.train() for _ in range(2)][-1]
            assert np.isfinite(result["learners"][DEFAULT_MODULE_ID]["qf_loss"])
            after = weights(algorithm)
            moved = [name for name in before if not torch.equal(before[name], after[name])]
            assert any("lstm" in name for name in moved)
            rows, batch = algorithm.draw(DEFAULT_MODULE_ID, 2)
            assert rows.shape == (2, 3)
            assert batch["obs"].shape == (2, 3, 5, 4)
            assert batch["loss_mask"][:, :, :3].all()
        finally:
            algorithm.stop()

    def test_a_recurrent_module_with_priorities_is_refused(self) -> None:
        config = dqn(PRIORITIZED).rl_module(
            model_config={"use_lstm": True, "lstm_cell_size": 8, "max_seq_len": 5}
        )
        with pytest.raises(
            ValueError, match=r"learn from sequences.*expected type 'EpisodeReplayBuffer' and n_step 1"
        ):
            config.build_algo()

    def test_several_agents_learn_each_from_its_own_buffer(self) -> None:
        config = dqn().environment(Pair)
        config.multi_agent(
            policies={"p0", "p1", "idle"},
            policy_mapping_fn=lambda agent, *_: {"0": "p0", "1": "p1", "2": "idle"}[agent],
            policies_to_train=["p0", "p1"],
        )
        algorithm = config.build_algo()
        try:
            result = [algorithm.train() for _ in range(2)][-1]
            assert sorted(algorithm.replays) == ["p0", "p1"]
            rows = result["replay_buffer"]
            # agent 1 acts in every other env step
            assert rows["p1"]["rows"] == pytest.approx(rows["p0"]["rows"] / 2, rel=0.1)
            trained = {m for m, values in result["learners"].items() if "qf_loss" in values}
            assert trained == {"p0", "p1"}
        finally:
            algorithm.stop()

    def test_gamma_and_n_step_of_one_module_are_its_own(self) -> None:
        config = dqn().environment(Pair)
        config.multi_agent(
            policies={"p0", "p1", "idle"},
            policy_mapping_fn=lambda agent, *_: {"0": "p0", "1": "p1", "2": "idle"}[agent],
            policies_to_train=["p0", "p1"],
            algorithm_config_overrides_per_module={"p1": config.overrides(gamma=0.5, n_step=3)},
        )
        algorithm = config.build_algo()
        try:
            algorithm.train()
            batches = {m: algorithm.draw(m, 8)[1] for m in ("p0", "p1")}
        finally:
            algorithm.stop()
        assert set(batches["p0"]["n_step"].flatten()) == {1}
        ahead, rewards = (batches["p1"][name].flatten() for name in ("n_step", "rewards"))  # each reward is 1
        assert set(ahead) == {1, 2, 3}
        np.testing.assert_allclose(rewards, [sum(0.5**k for k in range(int(n))) for n in ahead])

    def test_nan_from_the_environment_names_the_column(self) -> None:
        algorithm = dqn().environment(NanAfter).build_algo()
        try:
            with pytest.raises(EnvError, match=r"step 9: rewards is nan, expected finite numbers"):
                algorithm.train()
        finally:
            algorithm.stop()


class Pair(MultiAgentEnv):
    """Agents 0 and 2 act in each of twelve steps, agent 1 in every other."""

    possible_agents: ClassVar = ["0", "1", "2"]
    observation_spaces: ClassVar = dict.fromkeys(possible_agents, gym.spaces.Box(-1, 1, (3,)))
    action_spaces: ClassVar = dict.fromkeys(possible_agents, gym.spaces.Discrete(2))

    def __init__(self, config: Any = None):
        super().__init__()
        self.agents = list(self.possible_agents)
        self.t = 0

    def observe(self) -> dict[str, np.ndarray]:
        acting = ["0", "2"] if self.t % 2 else ["0", "1", "2"]
        return {a: np.full(3, self.t / 12, np.float32) for a in acting}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.t = 0
        return self.observe(), {}

    def step(self, actions: Any) -> Any:
        self.t += 1
        return self.observe(), dict.fromkeys(actions, 1.0), {"__all__": self.t == 12}, {"__all__": False}, {}


class NanAfter(gym.Env):
    """Ten steps; the reward of the last is NaN."""

    observation_space = gym.spaces.Box(-1, 1, (4,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self, config: Any = None):
        self.t = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.t = 0
        return np.zeros(4, np.float32), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return np.zeros(4, np.float32), float("nan") if self.t == 10 else 1.0, self.t == 10, False, {}


def assert_equal(a: Any, b: Any) -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list | tuple):
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    else:
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))

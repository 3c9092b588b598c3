"""Random streams: no two seeds, runners, environments or calls share one, and one seed repeats a run."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray import cloudpickle
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.ppo import PPOConfig as RLlibPPOConfig
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.offline.offline_env_runner import OfflineSingleAgentEnvRunner

from rlkit import registry, rllib, seeds
from rlkit.algos import DQNConfig
from rlkit.algos.sampling.array_runner import ArrayEnvRunner
from rlkit.algos.sampling.episode_runner import EpisodeRunner, SingleEpisodeRunner, default_runner
from rlkit.algos.sampling.joint_runner import JointEnvRunner
from rlkit.algos.sampling.team_runner import TeamEnvRunner
from rlkit.callbacks import HindsightRelabel
from rlkit.curriculum.task_env import TaskEnv
from rlkit.exploration.bonus import IntrinsicRewards
from rlkit.launch.build import build
from rlkit.recipe import Recipe

SEEDS, RUNNERS, ENVS = range(5), range(1, 5), 8
# kind of runner: (algorithm, environment, its class)
KINDS = {
    "arrays, off-policy": ("DQN", "draw", ArrayEnvRunner),
    "arrays, on-policy": ("PPO", "draw", ArrayEnvRunner),
    "joint": ("MADDPG", "draw_two", JointEnvRunner),
    "teams": ("PPO", "draw_two", TeamEnvRunner),
    "RLlib's": ("rllib/PPO", "draw", SingleEpisodeRunner),
    "RLlib's, several": ("rllib/PPO", "draw_two", EpisodeRunner),
}


def config_of(kind: str, seed: int = 0, **runners: Any) -> Any:
    algorithm, env, _ = KINDS[kind]
    training: dict[str, Any] = {"train_batch_size": 160, "minibatch_size": 80, "num_epochs": 1}
    if not algorithm.endswith("PPO"):
        training = {"train_batch_size": 16, "num_steps_sampled_before_learning_starts": 30}
    asked = {"num_env_runners": 0, "num_envs_per_env_runner": ENVS, "rollout_fragment_length": 20, **runners}
    registry.begin(("case_envs",))
    return build(
        Recipe.from_dict(
            {
                "name": "seeds", "algorithm": algorithm, "env": f"case_{env}", "seed": seed,
                "config": {
                    "training": training, "env_runners": asked,
                    "reporting": {"min_sample_timesteps_per_iteration": 160},
                },
                "model": {"name": "mlp", "hiddens": [8]}, "stop": {"iterations": 2},
            }
        )
    )  # fmt: skip


def runner_of(config: Any, index: int = 0) -> Any:
    """A runner as a remote one of this number would be, in this process."""
    runner = config.env_runner_cls(config=config, worker_index=index, num_workers=len(RUNNERS))
    forget(runner)
    return runner


def starts(runner: Any) -> list[list[float]]:
    """Numbers that the episodes of each environment began with."""
    return [env.unwrapped.starts for env in runner.env.unwrapped.envs]


def forget(runner: Any) -> None:
    """RLlib's check of a MultiAgentEnv resets it with seed 42."""
    for known in starts(runner):
        known.clear()


def flat(lists: list[list[float]]) -> list[float]:
    return list(itertools.chain.from_iterable(lists))


@pytest.fixture
def stopped(ray_local: None) -> Iterator[Callable[[Any], Any]]:
    algorithms: list[Algorithm] = []

    def keep(algorithm: Any) -> Any:
        algorithms.append(algorithm)
        group = algorithm.env_runner_group
        group.foreach_env_runner(forget, local_env_runner=not group.num_remote_env_runners())
        return algorithm

    yield keep
    for algorithm in algorithms:
        algorithm.stop()


# Environments ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_no_two_of_5_seeds_4_runners_8_environments_share_a_start(kind: str) -> None:
    seen, processes = [], []
    for seed in SEEDS:
        config = config_of(kind, seed)
        assert config.env_runner_cls is KINDS[kind][2]
        for index in RUNNERS:
            runner = runner_of(config, index)
            processes += [torch.initial_seed(), int(np.random.get_state()[1][0])]
            runner.sample()
            seen += flat(starts(runner))
            runner.stop()
    assert len(seen) >= len(SEEDS) * len(RUNNERS) * ENVS * 2
    assert len(set(seen)) == len(seen)
    assert len(set(processes)) == len(SEEDS) * len(RUNNERS)  # torch and numpy have the same seed


@pytest.mark.parametrize("kind", KINDS)
def test_one_seed_repeats_and_no_seed_does_not(kind: str) -> None:
    def seen(seed: int | None) -> list[list[float]]:
        config = config_of(kind)
        runner = runner_of(config.copy(copy_frozen=False).debugging(seed=seed), 2)
        runner.sample()
        return starts(runner)

    assert seen(3) == seen(3)
    assert not set(flat(seen(None))) & set(flat(seen(None)))


@pytest.mark.parametrize("kind", KINDS)
def test_every_call_for_whole_episodes_begins_elsewhere(kind: str) -> None:
    runner = runner_of(config_of(kind))
    for _ in range(3):
        runner.sample(num_episodes=ENVS)
    assert len(flat(starts(runner))) >= 3 * ENVS
    assert len(set(flat(starts(runner)))) == len(flat(starts(runner)))


@pytest.mark.parametrize(
    ("cls", "kind"), [(SingleAgentEnvRunner, "RLlib's"), (MultiAgentEnvRunner, "RLlib's, several")]
)
def test_any_runner_of_rllib_can_have_them_also_in_another_process(cls: type, kind: str) -> None:
    made = cloudpickle.loads(cloudpickle.dumps(rllib.seeded(cls)))
    seen = []
    for index in RUNNERS:
        runner = made(config=config_of(kind), worker_index=index, num_workers=4)
        forget(runner)
        runner.sample()
        seen += flat(starts(runner))
    assert len(set(seen)) == len(seen) > 0
    assert rllib.seeded(SingleEpisodeRunner) is SingleEpisodeRunner


def test_a_runner_that_writes_episodes_has_them_too() -> None:
    config = config_of("RLlib's").copy(copy_frozen=False).offline_data(output="somewhere")
    cls = default_runner(config)
    assert issubclass(cls, rllib.RunnerSeeds)
    assert issubclass(cls, OfflineSingleAgentEnvRunner)


def test_asynchronous_environments_and_one_native_batch_take_their_seeds() -> None:
    # a name of its own: RLlib's table of names, which other tests fill, comes before Gymnasium's
    name, module = "cart_pole_of_seeds-v1", "gymnasium.envs.classic_control.cartpole"
    gym.register(name, f"{module}:CartPoleEnv", vector_entry_point=f"{module}:CartPoleVectorEnv")

    def first(seed: int, mode: str) -> bytes:
        config = RLlibPPOConfig().environment(name).debugging(seed=seed)
        config.env_runners(num_envs_per_env_runner=2, gym_env_vectorize_mode=mode)
        runner = SingleEpisodeRunner(config=config, worker_index=1)
        try:
            episodes = runner.sample(num_timesteps=2)
            return b"".join(np.asarray(e.get_observations(0)).tobytes() for e in episodes)
        finally:
            runner.stop()

    for mode in ("async", "vector_entry_point"):
        assert first(0, mode) == first(0, mode) != first(1, mode)
    assert first(0, "async") == first(0, "sync")
    gym.registry.pop(name)


def test_environments_that_are_built_anew_begin_new_streams_that_the_seed_decides() -> None:
    def seen() -> list[float]:
        runner = runner_of(config_of("arrays, off-policy"))
        runner.sample()
        before = flat(starts(runner))
        runner.make_env()
        runner.sample(force_reset=True)
        return before + flat(starts(runner))

    first = seen()
    assert len(set(first)) == len(first)
    assert seen() == first


# Runs ------------------------------------------------------------------------------------------------------


def weights(algorithm: Any) -> list[torch.Tensor]:
    found: list[Any] = []
    algorithm.learner_group.foreach_learner(found.append)
    return parameters(found[0])


def parameters(learner: Any) -> list[torch.Tensor]:
    modules = [module.unwrapped() for _, module in sorted(learner.module.items())]
    return [parameter.detach().clone() for module in modules for parameter in module.parameters()]


@pytest.mark.parametrize("kind", KINDS)
def test_one_seed_repeats_a_run_to_the_last_bit(kind: str, stopped: Any) -> None:
    runs = []
    for seed in (0, 0, 1):
        algorithm = stopped(config_of(kind, seed).build_algo())
        first = weights(algorithm)
        for _ in range(2):
            algorithm.train()
        runs.append((first, weights(algorithm), flat(starts(algorithm.env_runner))))
    same = [[torch.equal(a, b) for a, b in zip(runs[0][k], runs[1][k], strict=True)] for k in (0, 1)]
    assert all(same[0] + same[1])
    assert runs[0][2] == runs[1][2]
    assert not all(torch.equal(a, b) for a, b in zip(runs[0][0], runs[2][0], strict=True))
    assert not set(runs[0][2]) & set(runs[2][2])


@pytest.mark.parametrize(
    ("kind", "remote"),
    [*((kind, 0) for kind in KINDS), ("arrays, on-policy", 1), ("RLlib's", 1), ("joint", 1)],
)
def test_a_resumed_run_does_not_begin_with_its_first_episodes(
    kind: str, remote: int, stopped: Any, tmp_path: Path
) -> None:
    def seen(algorithm: Any) -> set[float]:
        group = algorithm.env_runner_group
        return set(
            flat([s for one in group.foreach_env_runner(starts, local_env_runner=not remote) for s in one])
        )

    config = config_of(kind, num_env_runners=remote)
    algorithm = stopped(config.build_algo())
    algorithm.train()
    before = seen(algorithm)
    assert len(before) >= ENVS
    algorithm.save_to_path(str(tmp_path / "c"))
    algorithm.stop()
    resumed = [stopped(config.copy(copy_frozen=False).build_algo()) for _ in range(2)]
    for one in resumed:
        one.restore_from_path(str(tmp_path / "c"))
        one.train()
    after = [seen(one) for one in resumed]
    assert len(after[0]) >= ENVS
    assert not before & after[0]
    if not remote:
        assert after[0] == after[1]  # the way on is one way


# What else draws -------------------------------------------------------------------------------------------


def test_streams_differ_in_every_part_of_their_name() -> None:
    names = [
        (0, "environment", 0, 0), (1, "environment", 0, 0), (0, "environment", 1, 0), (0, "environment", 0, 1),
        (0, "environment", 0), (0, "replay", 0, 0), (0, "replay", "a"), (0, "replay", "b"), (0, "environment"),
    ]  # fmt: skip
    numbers = [seeds.number(*name) for name in names]
    assert len(set(numbers)) == len(names)
    assert numbers == [seeds.number(*name) for name in names]
    assert all(0 <= number < 2**31 for number in numbers)
    assert seeds.stream(None, "replay").entropy != seeds.stream(None, "replay").entropy


def test_learners_begin_with_equal_weights_and_draw_apart() -> None:
    config = DQNConfig().environment("CartPole-v1").debugging(seed=4)
    env, learners = gym.make("CartPole-v1"), []
    for index in range(2):
        learner = config.get_default_learner_class()(
            config=config, module_spec=config.get_multi_rl_module_spec(env=env)
        )
        learner._learner_index = index
        learner.build()
        learners.append((parameters(learner), torch.initial_seed()))
    assert all(torch.equal(a, b) for a, b in zip(learners[0][0], learners[1][0], strict=True))
    assert learners[0][1] != learners[1][1]


def test_callbacks_draw_apart_in_every_runner_and_after_a_restore() -> None:
    config = config_of("arrays, off-policy")
    runners = [runner_of(config, index) for index in (1, 2)]
    restored = runner_of(config, 1)
    restored.num_env_steps_sampled_lifetime = 160
    draws = [float(seeds.of_runner(runner, "exploration", "m").random()) for runner in (*runners, restored)]
    assert len(set(draws)) == 3
    assert draws[0] == float(seeds.of_runner(runner_of(config, 1), "exploration", "m").random())
    assert HindsightRelabel().rng is None  # until a runner is known
    assert HindsightRelabel(seed=0).rng.random() == HindsightRelabel(seed=0).rng.random()


def test_the_networks_of_a_bonus_are_equal_in_every_runner_and_differ_between_modules() -> None:
    asked: list[int] = []

    class Exploration:
        coefficient = 1.0

        def bonus(self, observation_space: Any, action_space: Any, seed: int) -> Any:
            asked.append(seed)
            raise StopIteration

    for index, module in ((1, "default_policy"), (2, "default_policy")):
        runner = runner_of(config_of("arrays, off-policy"), index)
        with pytest.raises(StopIteration):
            IntrinsicRewards(Exploration())._model(module, None, runner, np.zeros((1, 1)))
    assert asked == [seeds.number(0, "bonus", "default_policy")] * 2


def test_an_environment_that_a_task_builds_anew_goes_on_from_the_seed() -> None:
    from case_envs import Draw

    def seen(seed: int) -> list[float]:
        env = TaskEnv(Draw(), lambda task: Draw())
        numbers = [float(env.reset(seed=seed)[0][0])]
        for level in range(2):
            env.take_task({"level": level}, "constructor")
            numbers += [float(env.reset()[0][0]) for _ in range(2)]
        return numbers

    assert seen(0) == seen(0)
    assert len({*seen(0), *seen(1)}) == 10

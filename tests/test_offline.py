"""BC, MARWIL, CQL and IQL through recipes: from recorded episodes to a checkpoint that acts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector.utils import batch_space

import rlkit
from rlkit import recipe as recipes
from rlkit import registry
from rlkit.algos.learning.minibatches import arrays_of
from rlkit.algos.offline import CQLConfig, value_targets
from rlkit.callbacks import TrajectoryPostprocessor
from rlkit.errors import UsageError
from rlkit.launch.build import build
from rlkit.models import module_spec
from rlkit.recipe import Recipe, RecipeError
from rlkit.recipe.data_check import POSTPROCESSORS
from rlkit.replay.dataset import RecordEpisodes, read_episodes


class Target(gym.Env):
    """Pays most for an action of twice the observation; one step an episode. Actions in [-4, 4]."""

    observation_space: gym.Space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space: gym.Space = gym.spaces.Box(-4, 4, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.seen = self.np_random.uniform(-1, 1, 1).astype(self.observation_space.dtype)
        return self.seen, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        return self.seen, -float(np.abs(action - 2 * self.seen)[0]), True, False, {}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Episodes of a policy that is right, with noise, in `Target`."""
    path = tmp_path_factory.mktemp("data") / "target.npz"
    generator = np.random.default_rng(0)
    with RecordEpisodes(Target(), path) as env:
        for seed in range(500):
            observation, _ = env.reset(seed=seed)
            action = 2 * observation + generator.normal(0, 0.5, 1)
            env.step(np.clip(action, -4, 4).astype(np.float32))
    return path


class Acts(Target):
    """The same observations with any actions."""

    def __init__(self, acts: gym.Space, sees: gym.Space = Target.observation_space):
        self.action_space, self.observation_space = acts, sees

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        return self.seen, 0.0, True, False, {}


DOUBLE = gym.spaces.Box(-1, 1, (1,), np.float64)


@pytest.mark.parametrize(
    ("algorithm", "env"),
    [
        ("BC", Acts(gym.spaces.MultiBinary(4))),
        ("BC", Acts(gym.spaces.Box(-2, 2, (2, 3)), DOUBLE)),
        ("MARWIL", Acts(gym.spaces.Box(-5, 5, (2,), np.int64), DOUBLE)),
        ("CQL", Acts(gym.spaces.Box(-2, 2, (2,)), DOUBLE)),
        ("IQL", Acts(gym.spaces.Box(-2, 2, (2,)), DOUBLE)),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value.action_space),
)
def test_any_action_and_float64_observations_are_learned_from(
    algorithm: str, env: Acts, ray_local: None, tmp_path: Path
) -> None:
    """Gymnasium's MuJoCo environments and Minari's sets of them hold float64."""
    with RecordEpisodes(env, tmp_path / "any.npz") as recorded:
        recorded.action_space.seed(0)
        for seed in range(20):
            recorded.reset(seed=seed)
            recorded.step(recorded.action_space.sample())
    rlkit.register_env("acts", lambda: Acts(env.action_space, env.observation_space))
    values = recipe(algorithm, tmp_path / "any.npz")
    values |= {"env": "acts", "stop": {"iterations": 1}, "evaluation": {"every": 1, "episodes": 2}}
    values["config"]["offline_data"]["dataset_num_iters_per_learner"] = 2
    trained = build(Recipe.from_dict(values)).build_algo()
    try:
        found = trained.train()["learners"]["default_policy"]
        assert np.isfinite([value for name, value in found.items() if name.endswith("loss")]).all()
        assert {a.dtype for a in arrays_of(trained.observations)} == {np.dtype(np.float32)}
    finally:
        trained.stop()


def recipe(algorithm: str, data: Path, **training: Any) -> dict[str, Any]:
    if algorithm in ("BC", "MARWIL"):
        training = {"lr": 3e-3, **training}
    else:
        training = {"actor_lr": 3e-3, "critic_lr": 3e-3, **training}
    return {
        "name": algorithm.lower(),
        "algorithm": algorithm,
        "env": "target",
        "data": str(data),
        "config": {
            "training": {"train_batch_size_per_learner": 64, **training},
            "offline_data": {"dataset_num_iters_per_learner": 50},
        },
        "model": {"fcnet_hiddens": [32], "head_fcnet_hiddens": [32]},
        "stop": {"iterations": 8},
        "evaluation": {"every": 4, "episodes": 20},
        "checkpoint": {"every": 4},
    }


@pytest.mark.parametrize(
    ("algorithm", "training"),
    [
        ("BC", {}),
        ("MARWIL", {}),
        ("CQL", {"bc_iters": 200, "min_q_weight": 1.0, "num_actions": 3}),
        ("IQL", {"tau": 0.05, "beta": 1.0}),
    ],
)
def test_each_algorithm_learns_what_the_data_show(
    algorithm: str, training: dict, data: Path, ray_local: None, tmp_path: Path
) -> None:
    """A policy of 0 earns -1 on the average, one whose actions are not scaled back at least -0.7."""
    rlkit.register_env("target", Target)
    run = rlkit.train(recipe(algorithm, data, **training), out=tmp_path)
    assert run.status == "done"
    assert run.metrics.env_steps.tolist() == [50 * 64 * k for k in range(1, 9)]
    assert rlkit.evaluate(run.best_checkpoint, episodes=50).episode_return["mean"] > -0.45
    action = rlkit.load(run.best_checkpoint).act(np.array([0.5], np.float32))
    assert action == pytest.approx([1.0], abs=0.5)


def test_a_run_that_goes_on_equals_one_that_never_stopped(
    data: Path, ray_local: None, tmp_path: Path
) -> None:
    rlkit.register_env("target", Target)
    values = {**recipe("MARWIL", data), "evaluation": {"every": 1, "episodes": 5}}
    whole = rlkit.train({**values, "stop": {"iterations": 4}}, out=tmp_path / "whole")
    half = rlkit.train({**values, "stop": {"iterations": 2}}, out=tmp_path / "half")
    resumed = rlkit.resume(half.path, {"stop.iterations": 4})
    for column in ("loss/default_policy/policy_loss", "loss/default_policy/vf_loss", "eval/episode_return"):
        assert resumed.metrics[column].iloc[-1] == whole.metrics[column].iloc[-1]


BODY, ARM = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Box(-1, 1, (2,))


@pytest.mark.parametrize(
    "sees",
    [BODY, gym.spaces.Dict({"body": BODY, "arm": ARM}), gym.spaces.Tuple([ARM, BODY])],
    ids=["Box", "Dict", "Tuple"],
)
def test_cql_learns_from_several_arrays_and_saves_its_count_of_updates(sees: gym.Space) -> None:
    """The count decides when cloning ends (`bc_iters`): it goes on after a resume."""
    config = CQLConfig().training(bc_iters=2, num_actions=3)
    config.rl_module(rl_module_spec=module_spec(config, {"name": "mlp", "hiddens": [8]}))

    def drawn(space: gym.Space) -> Any:
        """Three minibatches of five rows."""
        return batch_space(batch_space(space, 5), 3).sample()

    columns = {"obs": drawn(sees), "new_obs": drawn(sees), "actions": drawn(ARM)}
    columns |= {"rewards": np.zeros((3, 5), np.float32), "terminateds": np.zeros((3, 5), bool)}
    first, second = (config.build_learner(spaces={"default_policy": (sees, ARM)}) for _ in range(2))
    steps = {"num_env_steps_sampled_lifetime": 15}
    first.update_from_columns(
        iter([{"default_policy": columns}]), num_updates=3, env_steps=15, timesteps=steps
    )
    second.set_state(first.get_state())
    assert (first.updates, second.updates) == (3, 3)


def test_evaluate_records_what_it_plays(data: Path, ray_local: None, tmp_path: Path) -> None:
    rlkit.register_env("target", Target)
    run = rlkit.train(
        {**recipe("BC", data), "stop": {"iterations": 1}, "evaluation": {"every": 1, "episodes": 1}},
        out=tmp_path,
    )
    found = rlkit.evaluate(run.path, episodes=40, seed=3, record=tmp_path / "more.npz")
    episodes = read_episodes(tmp_path / "more.npz")
    assert episodes.returns.tolist() == [row.ret for row in found.rows]
    assert episodes.terminated.all()
    assert not episodes.truncated.any()
    sent, given = episodes.columns["actions"], episodes.columns["module_actions"]
    np.testing.assert_allclose(sent, np.clip(4 * given, -4, 4), atol=1e-6)
    env = Target()
    first = np.stack([env.reset(seed=seed)[0] for seed in range(3, 43)])
    assert (episodes.columns["observations"][::2] == first).all()


def test_value_targets_of_whole_episodes() -> None:
    """γ = 0.5; the first episode terminated, the second was cut in a state worth 8."""
    rewards, lengths = np.array([1.0, 2.0, 4.0, 1.0, 2.0], np.float32), np.array([3, 2])
    values = np.array([5.0, 5.0, 5.0, 5.0, 7.0, 7.0, 8.0], np.float32)
    terminated = np.array([True, False])
    whole = value_targets(rewards, lengths, terminated, values, gamma=0.5, lambda_=1.0)
    assert whole.tolist() == [3.0, 4.0, 4.0, 4.0, 6.0]
    one_step = value_targets(rewards, lengths, terminated, values, gamma=0.5, lambda_=0.0)
    assert one_step.tolist() == [3.5, 4.5, 4.0, 4.5, 6.0]


class HalfReward(TrajectoryPostprocessor):
    """A user's own."""


BASE = "name: x\nalgorithm: {}\nenv: CartPole-v1\nstop: {{iterations: 1}}\n"
JUDGED = BASE + "evaluation: {{every: 1, episodes: 1}}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (JUDGED.format("BC"), "learns from recorded episodes, and the recipe names none"),
        (
            JUDGED.format("BC") + "config: {reporting: {min_sample_timesteps_per_iteration: 64}}\n",
            "an iteration would never end",
        ),
        (JUDGED.format("BC") + "data: nowhere.npz\n", "there is no /"),
        (JUDGED.format("IQL") + "data: minari/a/b-v0\n", "IQL needs continuous actions"),
        (BASE.format("BC") + "data: minari/a/b-v0\n", "without evaluation nothing says"),
        (BASE.format("PPO") + "data: minari/a/b-v0\n", "PPO plays in the environment and reads no data"),
        (
            BASE.format("DQN") + "config: {offline_data: {materialize_data: true}}\n",
            "materialize_data has no effect",
        ),
        (
            JUDGED.format("BC") + "data: minari/a/b-v0\nconfig: {env_runners: {num_env_runners: 1}}\n",
            "num_env_runners has no effect",
        ),
        (
            JUDGED.format("BC") + "data: minari/a/b-v0\nconfig: {offline_data: {input_: x}}\n",
            "input_ has no effect; fix: write data: PATH",
        ),
        (
            JUDGED.format("MARWIL") + "data: minari/a/b-v0\nexploration: {type: Random}\n",
            "plays no episodes to use it in",
        ),
        (
            JUDGED.format("BC") + "data: minari/a/b-v0\ncheckpoint: {best: episode_return}\n",
            "write eval/episode_return",
        ),
        (
            JUDGED.format("MARWIL") + "data: minari/a/b-v0\ncallbacks: [{name: RewardScale, scale: 2}]\n",
            "RewardScale edits sampled episodes, and MARWIL samples none",
        ),
        (
            JUDGED.format("BC")
            + "data: minari/a/b-v0\ncallbacks: [{name: TimeLimit, seconds: 9}, {name: HalfReward}]\n",
            "callbacks[1].name: HalfReward edits sampled episodes, and BC samples none",
        ),
        (
            JUDGED.format("MARWIL") + "data: minari/a/b-v0\nconfig: {training: {bc_logstd_coeff: 0.1}}\n",
            "the first update fails",
        ),
        (
            JUDGED.format("MARWIL") + "data: minari/a/b-v0\nconfig: {training: {burnin_len: 2}}\n",
            "burnin_len is for recurrent models",
        ),
        (
            JUDGED.format("BC") + "data: minari/a/b-v0\nconfig: {training: {vf_coeff: 0.5}}\n",
            "vf_coeff is for a value function, and BC learns none",
        ),
        (
            JUDGED.format("CQL") + "data: minari/a/b-v0\nconfig: {training: {lagrangian: true}}\n",
            "the loss has no Lagrangian",
        ),
        (
            JUDGED.format("IQL")
            + "data: minari/a/b-v0\nconfig: {training: {moving_average_sqd_adv_norm_start: 5.0}}\n",
            "nothing of IQL reads it",
        ),
    ],
)
def test_check_says_what_does_not_go_together(
    text: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.TABLES, "callbacks", dict(registry.TABLES["callbacks"]))
    registry.register_callback("HalfReward", HalfReward)
    with pytest.raises(RecipeError) as caught:
        recipes.loads(text)
    assert any(message in str(problem) for problem in caught.value.problems), caught.value.problems


def test_check_takes_defaults_and_other_callbacks(data: Path) -> None:
    rlkit.register_env("target", Target)
    values = recipe("MARWIL", data, burnin_len=0, bc_logstd_coeff=0.0, vf_coeff=0.5)
    recipes.loads(json.dumps({**values, "callbacks": [{"name": "TimeLimit", "seconds": 9}]}))


def test_check_knows_every_postprocessor() -> None:
    shipped = {name: entry.load() for name, entry in registry.TABLES["callbacks"].items()}
    assert {n for n, cls in shipped.items() if issubclass(cls, TrajectoryPostprocessor)} == set(
        POSTPROCESSORS
    )


def test_check_compares_data_and_environment(data: Path, ray_local: None, tmp_path: Path) -> None:
    """Gymnasium's environments in `check`, others before anything starts."""
    with pytest.raises(RecipeError, match=r"observations are float32 \(1,\), expected float32 \(4,\)"):
        recipes.loads(JUDGED.format("BC") + f"data: {data}\n")
    rlkit.register_env("wide", lambda: gym.wrappers.FlattenObservation(gym.make("Pendulum-v1")))
    with pytest.raises(
        UsageError, match=r"does not fit wide: observations are float32 \(1,\), expected float32"
    ):
        rlkit.train({**recipe("BC", data), "env": "wide"}, out=tmp_path)


def test_data_stand_beside_their_recipe(data: Path, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(
        "algorithm: BC\nenv: target\ndata: target.npz\nstop: {iterations: 1}\nevaluation: {every: 1}\n"
    )
    rlkit.register_env("target", Target)
    (tmp_path / "target.npz").write_bytes(data.read_bytes())
    assert recipes.load(tmp_path / "my.yaml").data == str(tmp_path / "target.npz")

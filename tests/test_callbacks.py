"""Callbacks inside a running Algorithm: hooks, options, state, errors, and the shipped ones."""

from __future__ import annotations

import contextlib
import pickle
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray import cloudpickle
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.ppo import PPOConfig

from rlkit import registry, rllib
from rlkit.algos.maddpg import MADDPGConfig
from rlkit.callbacks import (
    BestCheckpoint,
    Callback,
    CallbackError,
    EpisodeGif,
    EpisodeStatistics,
    Histograms,
    NumericsGuard,
    RewardScale,
    StopOnPlateau,
    Throughput,
    TimeLimit,
)
from rlkit.callbacks.gif import film
from rlkit.callbacks.guard import check_gradients, check_loss
from rlkit.exploration import configure

# workers do not have the tests' folder on their path
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def ppo(*callbacks: Any, runners: int = 0, seed: int = 0) -> PPOConfig:
    return (
        PPOConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=runners, num_envs_per_env_runner=2)
        .training(train_batch_size_per_learner=200, minibatch_size=100, num_epochs=1)
        .rl_module(model_config={"fcnet_hiddens": [16]})
        .callbacks(list(callbacks))
        .debugging(seed=seed)
    )


class Counter(Callback):
    """Counts iterations in the driver and steps in each runner."""

    def __init__(self, start: int = 0):
        self.iterations = start
        self.steps = 0

    def on_train_result(self, *, result: dict, **kwargs: Any) -> None:
        self.iterations += 1
        result["iterations_counted"] = self.iterations

    def on_episode_step(self, **kwargs: Any) -> None:
        self.steps += 1

    def get_state(self) -> dict[str, Any]:
        return {"iterations": self.iterations}

    def set_state(self, state: dict[str, Any]) -> None:
        self.iterations = state["iterations"]

    def get_runner_state(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def set_runner_state(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]


class FailsInStep(Callback):
    def on_episode_step(self, *, episode: Any, **kwargs: Any) -> None:
        if len(episode) == 3:
            raise KeyError("no such entry")


def test_options_are_bound_without_lambdas() -> None:
    bound = RewardScale.bind(scale=2.0)
    assert pickle.loads(pickle.dumps(bound))().scale == 2.0
    assert repr(bound) == "RewardScale(scale=2.0)"
    assert bound == RewardScale.bind(scale=2.0)
    with pytest.raises(ValueError, match="RewardScale has no option 'scal'; did you mean 'scale'"):
        RewardScale.bind(scal=2.0)
    with pytest.raises(ValueError, match="clip must be positive, got -1"):
        RewardScale.bind(clip=-1)
    with pytest.raises(ValueError, match=r"TimeLimit: .*seconds"):
        TimeLimit.bind()


def test_hooks_that_never_fire_are_refused_where_they_are_written() -> None:
    with pytest.raises(
        TypeError, match=r"never calls it; subclass rlkit\.callbacks\.TrajectoryPostprocessor"
    ):

        class Old(Callback):
            def on_postprocess_trajectory(self, **kwargs: Any) -> None: ...

    with pytest.raises(TypeError, match=r"no such hook; did you mean 'on_episode_start'"):

        class Misspelt(Callback):
            def on_episode_strat(self, **kwargs: Any) -> None: ...


def test_every_registered_callback_has_a_class_with_options() -> None:
    for name in registry.TABLES["callbacks"]:
        cls = registry.resolve("callbacks", name)
        assert cls.__name__ == name
        assert issubclass(cls, Callback)
        assert (cls.__doc__ or "").strip()


@pytest.mark.parametrize("runners", [0, 2])
def test_state_survives_in_a_script_of_ones_own(ray_local: None, tmp_path: Path, runners: int) -> None:
    algorithm = ppo(Counter.bind(start=10), Counter.bind(start=20), runners=runners).build_algo()
    try:
        result = algorithm.train()
        algorithm.train()
        assert result["iterations_counted"] == 21
        steps = algorithm.callbacks[0].call_runners("get_runner_state")
        assert any(s["steps"] >= 100 for s in steps)
        path = algorithm.save_to_path(str(tmp_path / "checkpoint"))
    finally:
        algorithm.stop()
    restored = Algorithm.from_checkpoint(path)
    try:
        assert [c.iterations for c in restored.callbacks] == [12, 22]
        assert restored.callbacks[0].call_runners("get_runner_state") == steps
    finally:
        restored.stop()


def test_a_local_hook_that_raises_names_callback_hook_and_episode(ray_local: None) -> None:
    algorithm = ppo(FailsInStep).build_algo()
    try:
        with pytest.raises(
            CallbackError, match=r"callback FailsInStep failed in on_episode_step \(episode \w+, "
        ):
            algorithm.train()
    finally:
        algorithm.stop()


@pytest.mark.parametrize(
    "hook",
    [
        "on_environment_created", "on_episode_created", "on_episode_start", "on_episode_end", "on_sample_end",
        "on_train_result", "on_learn_on_batch",
    ],
)  # fmt: skip
def test_whatever_hook_raises_is_named(ray_local: None, hook: str) -> None:
    def fail(self: Callback, *args: Any, **kwargs: Any) -> None:
        raise ValueError("out of ideas")

    def train() -> None:
        algorithm = ppo(type("Fails", (Callback,), {hook: fail})).build_algo()
        try:
            algorithm.train()
        finally:
            algorithm.stop()

    with pytest.raises(CallbackError, match=rf"callback Fails failed in {hook}.*ValueError: out of ideas"):
        train()


class LearnsInThread:
    """As IMPALA's learner, but what its thread would do is done at once."""

    metrics = None

    def __init__(self) -> None:
        self._agg_event = threading.Event()
        self._learner_thread = SimpleNamespace(_update_method=self.update_in_thread)
        self.updates = 0

    def compute_loss_for_module(self, **kwargs: Any) -> float:
        return 0.0

    def update_in_thread(self) -> None:
        self.compute_loss_for_module(module_id="p", config=None, batch={}, fwd_out={})
        self.updates += 1

    def update(self) -> dict[str, Any]:
        with contextlib.suppress(ValueError):  # it would end the thread
            self._learner_thread._update_method()
            self._agg_event.set()
        assert self._agg_event.is_set(), "it would wait for ever"
        self._agg_event.clear()
        return {}


def test_what_a_hook_raises_in_the_learners_thread_reaches_the_driver() -> None:
    learner, seen = LearnsInThread(), []
    rllib.hook_learner(learner, hook=lambda **kwargs: seen.append(kwargs["module_id"]))
    update = learner.update
    assert update() == {}

    def fail(**kwargs: Any) -> None:
        raise ValueError("out of ideas")

    rllib.hook_learner(learner, hook=fail)
    assert learner.update is update, "a second callback changes no more than the losses"
    for _ in range(2):
        with pytest.raises(ValueError, match="out of ideas"):
            learner.update()
    assert learner.updates == len(seen) == 1


def test_a_learner_without_losses_per_module_is_refused() -> None:
    class Sees(Callback):
        def on_learn_on_batch(self, **kwargs: Any) -> None: ...

    class MADDPG:
        config, learner_group = MADDPGConfig(), object()

    with pytest.raises(ValueError, match=r"Sees\.on_learn_on_batch: MADDPG never calls it.*optional_hooks"):
        Sees().on_algorithm_init(algorithm=MADDPG())
    EpisodeStatistics().on_algorithm_init(algorithm=MADDPG())


def test_a_remote_hook_that_raises_ends_the_run_with_the_same_words(ray_local: None) -> None:
    algorithm = ppo(FailsInStep, runners=1).build_algo()
    try:
        with pytest.raises(
            CallbackError, match=r"on_episode_step \(episode .*env runner 1\): KeyError: 'no such"
        ):
            algorithm.train()
    finally:
        algorithm.stop()


def test_what_is_shared_reaches_restarted_runners_too(ray_local: None) -> None:
    algorithm = ppo(Counter, runners=1).build_algo()
    try:
        callback = algorithm.callbacks[0]
        callback.share({"steps": 1000})
        assert all(s["steps"] == 1000 for s in callback.call_runners("get_runner_state"))
        group = algorithm.env_runner_group
        group.foreach_env_runner(lambda runner: setattr(runner._callbacks[0], "steps", 0))
        callback.on_env_runners_recreated(
            algorithm=algorithm, env_runner_group=group, env_runner_indices=[1], is_evaluation=False
        )
        assert callback.call_runners("get_runner_state", indices=[1]) == [{"steps": 1000}]
    finally:
        algorithm.stop()


@pytest.mark.parametrize("evaluation", [False, True])
def test_a_restart_sends_what_is_shared_to_its_own_group_alone(ray_local: None, evaluation: bool) -> None:
    config = ppo(Counter, runners=2).evaluation(evaluation_num_env_runners=1)
    algorithm = config.evaluation(evaluation_interval=1).build_algo()
    try:
        callback, groups = (
            algorithm.callbacks[0],
            (algorithm.env_runner_group, algorithm.eval_env_runner_group),
        )
        callback.share({"steps": 1000}, evaluation=evaluation)
        for group in groups:
            group.foreach_env_runner(lambda runner: setattr(runner._callbacks[0], "steps", 0))
        for group, index in zip(groups, (2, 1), strict=True):
            callback.on_env_runners_recreated(
                algorithm=algorithm,
                env_runner_group=group,
                env_runner_indices=[index],
                is_evaluation=group is groups[1],
            )
        steps = [
            group.foreach_env_runner(lambda runner: runner._callbacks[0].steps, local_env_runner=False)
            for group in groups
        ]
        assert steps == [[0, 1000], [1000 if evaluation else 0]]
    finally:
        algorithm.stop()


class Rewards(Callback):
    """Keeps the rewards of each sample as later callbacks left them; put it last."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_sample_end(self, *, samples: list[Any], **kwargs: Any) -> None:
        self.seen.append(float(max(max(episode.get_rewards()) for episode in samples)))


def test_an_evaluation_by_the_training_runner_is_left_alone(ray_local: None) -> None:
    config = ppo(RewardScale.bind(scale=100.0)).evaluation(evaluation_duration=2)
    configure(config, {"type": "CountBased", "eta": 1.0})
    config.callbacks([*config.callbacks_class, Rewards])
    algorithm = config.build_algo()
    try:
        algorithm.train()
        states = algorithm.callbacks[-2].call_runners("get_runner_state")
        rewards = algorithm.env_runner._callbacks[-1].seen
        assert len(rewards) == 1
        assert rewards[0] > 100.0
        algorithm.evaluate()
        assert set(rewards[1:]) == {1.0}
        again = algorithm.callbacks[-2].call_runners("get_runner_state")
        assert str(again) == str(states), "no visit was counted"
        count = len(rewards)
        algorithm.train()
        assert rewards[count] > 100.0
    finally:
        algorithm.stop()


def trained(config: PPOConfig, iterations: int) -> dict[str, Any]:
    algorithm = config.build_algo()
    try:
        return [algorithm.train() for _ in range(iterations)][-1]
    finally:
        algorithm.stop()


def test_episode_statistics_sees_what_the_seven_hooks_saw(ray_local: None) -> None:
    result = trained(ppo(EpisodeStatistics, RewardScale.bind(scale=100.0), Throughput), 2)
    runners = result["env_runners"]
    assert result["callback_ok"] is True
    assert 0 < runners["pole_angle_mean"] < runners["pole_angle_max"] < 0.5
    assert 200 <= runners["sample_size"] <= 202
    assert 0 < result["learners"]["default_policy"]["mean_action"] < 1
    assert runners["edited_return"]["RewardScale"] == pytest.approx(100 * runners["episode_return_mean"])
    assert set(result["throughput"]) >= {"env_steps_per_s", "sampling_s", "learning_share"}


def test_rewards_times_100_leave_the_reported_return_unchanged(ray_local: None) -> None:
    seen: list[float] = []

    class Sees(Callback):
        def on_learn_on_batch(self, *, train_batch: Any, **kwargs: Any) -> None:
            seen.append(float(train_batch["rewards"].max()))

    plain = trained(ppo(), 1)
    edited = trained(ppo(RewardScale.bind(scale=100.0), Sees), 1)
    for name in ("episode_return_mean", "episode_return_max", "episode_len_mean", "num_episodes"):
        assert plain["env_runners"][name] == edited["env_runners"][name]
    assert seen
    assert set(seen) == {100.0}
    losses = [r["learners"]["default_policy"]["vf_loss_unclipped"] for r in (plain, edited)]
    assert losses[1] > 1000 * losses[0]


class NanReward(gym.Wrapper):
    def __init__(self, config: dict[str, Any]):
        super().__init__(gym.make("CartPole-v1"))
        self.taken, self.bad = 0, config["bad"]

    def step(self, action: Any) -> Any:
        self.taken += 1
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, float("nan") if self.taken == self.bad else reward, terminated, truncated, info


def test_guard_names_the_reward(ray_local: None) -> None:
    config = (
        ppo(NumericsGuard)
        .environment(NanReward, env_config={"bad": 7})
        .env_runners(num_envs_per_env_runner=1)
    )
    algorithm = config.build_algo()
    try:
        with pytest.raises(CallbackError, match=r"a reward that is not finite \(episode \w+, step 6\)"):
            algorithm.train()
    finally:
        algorithm.stop()


class Poison(Callback):
    """Makes one train batch infinite."""

    def on_learn_on_batch(self, *, train_batch: Any, **kwargs: Any) -> None:
        train_batch["advantages"] = train_batch["advantages"] * float("inf")


def test_guard_stops_before_a_weight_changes(ray_local: None) -> None:
    algorithm = ppo(NumericsGuard, Poison).build_algo()
    try:
        before = algorithm.learner_group.get_weights()["default_policy"]
        with pytest.raises(CallbackError, match=r"the loss of module 'default_policy' is (nan|-?inf)"):
            algorithm.train()
        after = algorithm.learner_group.get_weights()["default_policy"]
        assert all(np.array_equal(before[name], after[name]) for name in before)
    finally:
        algorithm.stop()


def test_learner_hooks_work_in_a_remote_learner(ray_local: None) -> None:
    result = trained(ppo(EpisodeStatistics).learners(num_learners=1), 1)
    assert 0 < result["learners"]["default_policy"]["mean_action"] < 1
    algorithm = ppo(NumericsGuard, Poison).learners(num_learners=1).build_algo()
    try:
        with pytest.raises(
            Exception, match=r"callback NumericsGuard: the loss of module 'default_policy' is"
        ):
            algorithm.train()
    finally:
        algorithm.stop()


def test_guard_names_the_parameter() -> None:
    class Modules(dict):
        pass

    class Learner:
        module = Modules(policy=torch.nn.Linear(2, 3))

        def get_param_ref(self, parameter: Any) -> Any:
            return parameter

    learner = Learner()
    linear = learner.module["policy"]
    gradients = {linear.weight: torch.zeros(3, 2), linear.bias: torch.zeros(3)}
    check_gradients(learner, gradients)
    gradients[linear.bias][1] = float("nan")
    with pytest.raises(CallbackError, match="module 'policy', parameter 'bias', has 1 of 3 entries"):
        check_gradients(learner, gradients)
    check_loss("policy", torch.tensor(1.0))
    with pytest.raises(CallbackError, match="loss of module 'policy' is inf"):
        check_loss("policy", torch.tensor(float("inf")))


def result_of(
    iteration: int, value: float | None, time_s: float = 0.0, iteration_s: float = 0.0
) -> dict[str, Any]:
    return {
        "training_iteration": iteration,
        "env_runners": {} if value is None else {"episode_return_mean": value},
        "time_total_s": time_s,
        "time_this_iter_s": iteration_s,
        "done": False,
    }


def test_plateau_counts_measurements_without_improvement() -> None:
    stop = StopOnPlateau(patience=3, min_delta=1.0)
    values = [10.0, None, 10.5, float("nan"), 9.0, 12.0, 12.5, 12.9, 13.0]
    done = []
    for i, value in enumerate(values, 1):
        result = result_of(i, value)
        stop.on_train_result(algorithm=None, result=result)
        done.append(result["done"])
    assert done == [False] * 8 + [True]
    again = StopOnPlateau(patience=3)
    again.set_state(stop.get_state())
    assert (again.best, again.waited) == (12.0, 3)


def test_plateau_counts_an_evaluation_once_though_rllib_repeats_it() -> None:
    stop, done = StopOnPlateau("eval/episode_return", patience=2), []
    for iteration in range(1, 10):
        evaluation: dict[str, Any] = {"env_runners": {"episode_return_mean": 5.0}}
        if iteration % 3 == 1:
            evaluation["num_healthy_workers"] = 0
        result = {**result_of(iteration, 1.0), "evaluation": evaluation}
        stop.on_train_result(algorithm=None, result=result)
        done.append(result["done"])
    assert done == [False] * 6 + [True, False, False]


def test_time_limit_ends_after_its_seconds() -> None:
    limit = TimeLimit(seconds=60)
    early, late = result_of(1, 0.0, 59.9), result_of(2, 0.0, 60.0)
    limit.on_train_result(algorithm=None, result=early)
    limit.on_train_result(algorithm=None, result=late)
    assert (early["done"], late["done"]) == (False, True)


def test_time_limit_counts_what_was_before_a_resume() -> None:
    limit, again = TimeLimit(seconds=60), TimeLimit(seconds=60)
    limit.on_train_result(algorithm=None, result=result_of(1, 0.0, 50.0, 50.0))
    again.set_state(limit.get_state())
    results = [result_of(i, 0.0, 4.0 * i, 4.0) for i in (1, 2, 3)]  # RLlib's total begins anew
    for result in results:
        again.on_train_result(algorithm=None, result=result)
    assert [result["done"] for result in results] == [False, False, True]
    tuned = TimeLimit(seconds=60)
    result = result_of(2, 0.0, 61.0, 4.0)  # Tune restores the total
    tuned.on_train_result(algorithm=None, result=result)
    assert result["done"]


def test_a_folder_that_holds_something_else_is_not_replaced(ray_local: None, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    callback = BestCheckpoint(folder=str(tmp_path / "thesis"), metric="training_iteration")
    with pytest.raises(CallbackError, match=r"thesis is no checkpoint of RLlib"):
        callback.on_train_result(result={"training_iteration": 1}, algorithm=None)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"


def test_best_checkpoint_gif_and_histograms_write_files(ray_local: None, tmp_path: Path) -> None:
    config = ppo(
        BestCheckpoint.bind(folder=str(tmp_path / "best"), metric="iterations_counted"),
        Counter,
        EpisodeGif.bind(every=2, folder=str(tmp_path / "gifs"), max_steps=20),
        Histograms.bind(every=2),
    )
    config.callbacks([config.callbacks_class[1], *(c for c in config.callbacks_class if c is not Counter)])
    algorithm = config.build_algo()
    try:
        first, second = algorithm.train(), algorithm.train()
        assert first["best_checkpoint"] == {"value": 1.0, "iteration": 1}
        assert second["best_checkpoint"] == {"value": 2.0, "iteration": 2}
        assert sorted(p.name for p in tmp_path.iterdir()) == ["best", "gifs"]
        import imageio

        frames = imageio.mimread(tmp_path / "gifs" / "iteration_000002.gif")
        assert 2 < len(frames) <= 21
        assert frames[0].shape[:2] == (400, 600)
        assert list(Path(algorithm.logdir, "histograms").glob("events.*"))
        restored = Algorithm.from_checkpoint(str(tmp_path / "best"))
        assert restored.callbacks[0].iterations == 2
        restored.stop()
    finally:
        algorithm.stop()


class OneStep(gym.Env):
    """Episodes of one step; the picture's brightness counts them."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, config: Any = None):
        self.number, self.render_mode = 0, "rgb_array"

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self.number += 1
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        return np.zeros(1, np.float32), 0.0, True, False, {}

    def render(self) -> np.ndarray:
        return np.full((2, 2, 3), self.number, np.uint8)


def test_a_film_shows_one_episode_also_of_one_step(ray_local: None) -> None:
    algorithm = ppo().environment(OneStep).build_algo()
    try:
        frames = film(algorithm, max_steps=10, explore=False, seed=0)
    finally:
        algorithm.stop()
    assert len(frames) == 2
    assert (frames[0] == frames[1]).all()

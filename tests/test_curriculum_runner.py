"""Tasks on their way to sub-environments: env runners alone, without Ray."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from curriculum_envs import MultiProbe, Probe
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.tune.registry import register_env

from rlkit import registry
from rlkit.curriculum import CurriculumCallback, configure
from rlkit.curriculum.base import TASK
from rlkit.curriculum.callback import REPORTS
from rlkit.curriculum.driver import Decider, Evaluations
from rlkit.curriculum.evaluation_env import EvaluationEnv
from rlkit.curriculum.lessons import Lessons
from rlkit.curriculum.randomise import DomainRandomisation
from rlkit.curriculum.route import Route, attribute_owners
from rlkit.curriculum.self_play import SelfPlay, SelfPlayMapping
from rlkit.curriculum.success import SuccessRule
from rlkit.curriculum.task_env import TaskEnv
from rlkit.curriculum.try_tasks import try_tasks
from rlkit.envs import checked
from rlkit.errors import EnvError
from rlkit.play.answers import Answer
from rlkit.play.policy import DirectPolicy
from rlkit.play.rollout import Pool, play
from rlkit.rllib.episodes import EnvEpisode

VIAS = ["attribute", "set_task", "reset_options", "constructor"]
SPACE = {"type": "random", "space": {"level": {"integer": [1, 1000]}}}


def config_of(env: Any, section: dict, *, mode: str = "sync", envs: int = 3, **fault: Any) -> PPOConfig:
    config = (
        PPOConfig()
        .environment(env)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=envs, gym_env_vectorize_mode=mode)
        .rl_module(model_config={"fcnet_hiddens": [4]})
        .fault_tolerance(**fault)
    )
    if env is MultiProbe or fault.get("multi"):
        config.multi_agent(
            policies={"p", "q"}, policy_mapping_fn=lambda a, *_, **__: "p" if a == "a" else "q"
        )
    configure(config, section)
    return config


def runner_of(
    config: PPOConfig, seed: int = 0, life: int = 0, evaluating: bool = False, worker: int = 0
) -> Any:
    cls = MultiAgentEnvRunner if config.is_multi_agent else SingleAgentEnvRunner
    runner = cls(config=config, worker_index=worker)
    callback = runner._callbacks[-1]
    decider = Decider(callback.curriculum, seed, None)
    decider.life = life
    callback.receive(pickle.loads(pickle.dumps(decider.push())), evaluating)
    return runner


def levels(episodes: list[Any]) -> list[tuple[float, float]]:
    """(level the environment was reset with, level of the task) of each episode that was begun here."""
    pairs = []
    for episode in episodes:
        if (episode.env_t_started if hasattr(episode, "agent_episodes") else episode.t_started) == 0:
            first = episode.get_observations(0)
            first = first["a"] if isinstance(first, dict) else first
            pairs.append((float(first[0]), float(episode.custom_data[TASK]["level"])))
    return pairs


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("via", VIAS)
def test_each_episode_is_reset_with_its_own_task(via, mode):
    runner = runner_of(config_of(Probe, {**SPACE, "task": {"via": via}}, mode=mode))
    try:
        pairs = levels(runner.sample(num_timesteps=60) + runner.sample(num_timesteps=60))
    finally:
        runner.stop()
    assert len(pairs) > 20
    assert all(seen == wanted for seen, wanted in pairs)
    assert len({wanted for _, wanted in pairs}) > 15


def test_a_checked_environment_in_a_process_of_its_own_gets_its_attributes():
    register_env("checked-probe", lambda context: checked(Probe(context)))
    runner = runner_of(config_of("checked-probe", SPACE, mode="async"))
    try:
        pairs = levels(runner.sample(num_timesteps=30))
    finally:
        runner.stop()
    assert len(pairs) > 5
    assert all(seen == wanted for seen, wanted in pairs)


@pytest.mark.parametrize("via", VIAS)
def test_each_multi_agent_episode_is_reset_with_its_own_task(via):
    runner = runner_of(config_of(MultiProbe, {**SPACE, "task": {"via": via}}))
    pairs = levels(runner.sample(num_timesteps=60))
    assert len(pairs) > 10
    assert all(seen == wanted for seen, wanted in pairs)
    assert len({wanted for _, wanted in pairs}) > 10


def test_a_pettingzoo_environment_takes_its_own_keyword():
    pytest.importorskip("mpe2")
    from rlkit.envs import make_env

    register_env("spread-keyword", lambda c: make_env("pettingzoo/mpe2.simple_spread_v3", dict(c)))
    section = {"type": "random", "space": {"max_cycles": {"integer": [2, 6]}}, "task": {"via": "constructor"}}
    config = config_of("spread-keyword", section, envs=2)
    config.multi_agent(policies={"p"}, policy_mapping_fn=lambda *_, **__: "p")
    episodes = [e for e in runner_of(config).sample(num_timesteps=60) if e.is_done and e.env_t_started == 0]
    assert len({len(e) for e in episodes}) > 2
    assert all(len(e) == e.custom_data[TASK]["max_cycles"] for e in episodes)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_task_that_does_not_name_an_attribute_gets_its_first_value_back(mode):
    tasks = [{"level": 7.0, "length": 5}, {"length": 4}, {}]
    runner = runner_of(config_of(Probe, SPACE, mode=mode, envs=1))
    callback = runner._callbacks[-1]
    try:
        vector, seen = runner.env.unwrapped, []
        for task in tasks:
            callback._apply(runner, vector, 0, SimpleNamespace(task=task))
            seen.append([vector.call(name)[0] for name in ("level", "length")])
    finally:
        runner.stop()
    assert seen == [[7.0, 5], [0.0, 4], [0.0, 3]]


def test_an_evaluation_episode_does_not_keep_values_of_another_lesson():
    lessons = Lessons(
        [
            {"name": "high", "task": {"level": 7}, "until": {"measure": "length", "threshold": 1}},
            {"name": "plain"},
        ]
    )
    env = EvaluationEnv(lambda task: Probe(task), lessons, Route(), Evaluations("each"), {})
    levels_of = [float(env.reset(seed=seed)[0][0]) for seed in (0, 1, 0, 1, 1)]
    assert levels_of == [7.0, 0.0, 7.0, 0.0, 0.0]
    env = EvaluationEnv(lambda task: Probe(task), lessons, Route("set_task"), Evaluations("each"), {})
    assert env.reset(seed=1)[0][0] == 0.0  # nothing was set before: set_task hears of no empty task


def test_agents_may_be_fewer_and_then_more_than_before_but_not_than_at_first():
    class Crowd(MultiProbe):
        def __init__(self, config: Any = None):
            super().__init__(config)
            self.agents = self.possible_agents = ["a", "b", "c", "d"][: (config or {}).get("n", 3)]
            self.observation_spaces = {x: self.inner.observation_space for x in self.agents}
            self.action_spaces = {x: self.inner.action_space for x in self.agents}

    env = TaskEnv(Crowd(), Crowd)
    for n in (2, 3, 1, 2):
        env.take_task({"n": n}, "constructor")
    with pytest.raises(EnvError, match=r"has agents \['d'\] that the first one lacks \(\['a', 'b', 'c'\]\)"):
        env.take_task({"n": 4}, "constructor")


def test_an_agent_that_left_in_an_earlier_fragment_counts_as_a_success():
    episode = MultiAgentEpisode(
        observation_space={x: Probe().observation_space for x in "ab"},
        action_space={x: Probe().action_space for x in "ab"},
        agent_to_module_mapping_fn=lambda agent, episode: "p",
    )
    one = np.zeros(1, np.float32)
    episode.add_env_reset(observations={"a": one, "b": one})
    ends = {"a": True, "b": False, "__all__": False}
    acted = {"a": 0, "b": 0}
    episode.add_env_step({"a": one, "b": one}, acted, acted, {"a": {"success": True}}, terminateds=ends)
    later = episode.cut()
    ends = {"b": True, "__all__": True}
    later.add_env_step({"b": one}, {"b": 0}, {"b": 0.0}, {"b": {"success": False}}, terminateds=ends)
    assert SuccessRule().of([episode, later]) == 0.5


def test_what_an_agent_that_never_acts_is_paid_counts():
    one = np.zeros(1, np.float32)
    episode = EnvEpisode(
        observation_space={x: Probe().observation_space for x in ("a", "ghost")},
        action_space={x: Probe().action_space for x in ("a", "ghost")},
        agent_to_module_mapping_fn=lambda agent, episode: "p",
    )
    episode.add_env_reset(observations={"a": one})
    episode.add_env_step({"a": one}, {"a": 0}, {"a": 1.0, "ghost": 5.0}, terminateds={"__all__": False})
    later = episode.cut()
    later.add_env_step({"a": one}, {"a": 0}, {"a": 2.0}, terminateds={"__all__": True})
    callback = CurriculumCallback(**SPACE)
    playing = SimpleNamespace(life=0, stage=0, order=(0, 0, 0, 0), task={}, name=None)
    callback._playing[0] = playing
    callback.on_episode_end(episode=later, env_runner=None, env_index=0, prev_episode_chunks=[episode])
    assert callback._reports[0].outcome.episode_return == 8.0
    assert [SuccessRule(return_at_least=least).of([episode, later]) for least in (8.0, 8.1)] == [1.0, 0.0]


def test_an_evaluation_of_self_play_is_played_against_the_pool():
    pool = SelfPlay("p", "b", pool=["p0", "p1"])
    for born, slot in enumerate(pool.slots):
        slot.born = born
    returns: dict[str, list[float]] = {}
    seats: list[tuple[str, ...]] = []

    class Players(DirectPolicy):
        def __init__(self):
            self.mapping = SelfPlayMapping(lambda *_, **__: "p", "p", ["b"], TASK)

        def act(self, memories, **kwargs):
            seats.extend(tuple(self._module_of(memory, agent) for agent in "ab") for memory in memories)
            return [Answer(actions={"a": 0, "b": 0}) for _ in memories]

    def make(render: bool) -> EvaluationEnv:
        return EvaluationEnv(
            lambda task: MultiProbe({"length": 1}), pool, Route(), Evaluations("each"), returns
        )

    play(Players(), Pool(make), [0, 1, 2], slots=1)
    assert seats == [("p", "p0"), ("p", "p1"), ("p", "p0")]
    assert returns == {"p0": [1.0, 1.0], "p1": [1.0]}  # those of the trained side, which plays `a`


def test_an_attribute_path_reaches_every_item_of_a_list():
    pytest.importorskip("mpe2")
    from rlkit.envs import make_env

    env = make_env("pettingzoo/mpe2.simple_spread_v3", {})
    Route("attribute").apply(env, {"world.agents.*.max_speed": 0.25})
    agents = env.env.unwrapped.world.agents
    assert [a.max_speed for a in agents] == [0.25] * 3
    with pytest.raises(EnvError, match="max_sped"):
        Route("attribute").apply(env, {"world.agents.*.max_sped": 1})


def test_set_task_may_take_one_value_by_another_name():
    runner = runner_of(
        config_of(Probe, {**SPACE, "task": {"via": "set_task", "method": "set_task", "key": "level"}})
    )
    assert all(seen == wanted for seen, wanted in levels(runner.sample(num_timesteps=30)))


def test_a_misspelt_attribute_is_an_error_and_creates_nothing():
    with pytest.raises(EnvError, match="no attribute 'levle'"):
        attribute_owners(Probe(), "levle")


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_constructor_tasks_must_keep_the_spaces(mode):
    class Growing(Probe):
        def __init__(self, config: Any = None):
            super().__init__(config)
            import gymnasium as gym

            self.observation_space = gym.spaces.Box(-1e6, 1e6, (int(self.level) or 1,), np.float32)

    section = {
        "type": "random",
        "space": {"level": {"integer": [2, 3]}},
        "task": {"via": "constructor"},
        "check": False,
    }
    runner = runner_of(config_of(Growing, section, mode=mode))
    with pytest.raises(Exception, match="changes the space"):
        runner.sample(num_timesteps=10)
    runner.env.close(**({"terminate": True} if mode == "async" else {}))


def test_a_failed_environment_is_rebuilt_with_the_tasks_of_its_new_episodes():
    config = config_of(Probe, {**SPACE, "task": {"via": "attribute"}}, restart_failed_sub_environments=True)
    config.environment(env_config={"breaks_at": 4})
    Probe.broken = 0
    episodes = runner_of(config).sample(num_timesteps=90)
    assert Probe.broken == 1
    assert all(seen == wanted for seen, wanted in levels(episodes))


def test_the_same_seed_gives_the_same_tasks_and_a_restore_does_not_repeat_them():
    def tasks(seed: int, life: int = 0, worker: int = 0) -> list[float]:
        runner = runner_of(
            config_of(Probe, {**SPACE, "task": {"via": "attribute"}}), seed, life, worker=worker
        )
        return [wanted for _, wanted in levels(runner.sample(num_timesteps=60))]

    assert tasks(1) == tasks(1)
    assert tasks(1) != tasks(2)
    assert tasks(1) != tasks(1, life=1)
    assert tasks(1, worker=1) != tasks(1, worker=2)


def test_reports_hold_the_whole_episode_although_it_came_in_chunks():
    runner = runner_of(
        config_of(Probe, {**SPACE, "task": {"via": "attribute"}, "success": {"info": "success"}}, envs=1)
    )
    reports = []
    for _ in range(14):
        runner.sample(num_timesteps=1)
        metrics = runner.get_metrics()
        if REPORTS in metrics:
            reports += [report for batch in metrics[REPORTS].peek(compile=False) for report in batch]
    assert len(reports) >= 3
    for report in reports:
        assert (report.outcome.episode_return, report.outcome.length) == (3.0, 3)
        assert report.outcome.success == float(report.task["level"] % 2)


def test_returns_of_each_policy_are_reported_when_a_lesson_asks():
    until = {"measure": "return", "of": "q", "threshold": 6}
    section = {
        "lessons": [{"name": "a", "task": {"level": 1}, "until": until}, {"name": "b", "task": {"level": 2}}]
    }
    runner = runner_of(config_of(MultiProbe, section))
    runner.sample(num_timesteps=30)
    reports = [r for batch in runner.get_metrics()[REPORTS].peek() for r in batch]
    assert all(r.outcome.returns == {"p": 3.0, "q": 6.0} and r.outcome.episode_return == 9.0 for r in reports)


def test_evaluation_of_each_plays_the_lessons_in_turn():
    lessons = [
        {"name": n, "task": {"level": i}, "until": {"measure": "steps", "threshold": 9}}
        for i, n in enumerate("abc")
    ] + [{"name": "d", "task": {"level": 3}}]
    section = {"lessons": lessons, "evaluate_on": "each"}
    runner = runner_of(config_of(Probe, section, envs=2), evaluating=True)
    order = [level for _, level in levels(runner.sample(num_episodes=8))]
    assert sorted(order) == [0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0]


@pytest.mark.parametrize(("mode", "level"), [("current", 0.0), ("final", 3.0)])
def test_evaluation_on_the_current_or_the_final_task(mode, level):
    lessons = [
        {"name": "a", "task": {"level": 0}, "until": {"measure": "steps", "threshold": 9}},
        {"name": "b", "task": {"level": 3}},
    ]
    runner = runner_of(config_of(Probe, {"lessons": lessons, "evaluate_on": mode}), evaluating=True)
    assert {wanted for _, wanted in levels(runner.sample(num_episodes=4))} == {level}


# before the run


def test_a_task_the_environment_rejects_is_named_with_its_lesson_before_the_run():
    lessons = Lessons(
        [
            {"name": "fine", "task": {"level": 1}, "until": {"measure": "steps", "threshold": 1}},
            {"name": "wrong", "task": {"level": {"uniform": [-2, 2]}}},
        ]
    )
    with pytest.raises(
        EnvError, match=r"lesson 'wrong': .*\{'level': -2.0\}: ValueError: level must be >= 0"
    ):
        try_tasks(PPOConfig().environment(Probe), lessons, Route("set_task"))


def test_a_misspelt_attribute_is_found_before_the_run():
    with pytest.raises(EnvError, match=r"no attribute 'levl'"):
        try_tasks(PPOConfig().environment(Probe), DomainRandomisation({"levl": 1}), Route())


class Sized(gym.Env):
    """A goal that has to lie inside."""

    observation_space = action_space = gym.spaces.Discrete(2)
    size, goal = 9, 8

    def __init__(self, config=None):
        super().__init__()

    def reset(self, *, seed=None, options=None):
        if self.goal >= self.size:
            raise ValueError(f"goal {self.goal} is outside size {self.size}")
        return 0, {}


def test_tasks_are_tried_as_they_are_trained() -> None:
    """What an earlier task has set goes back where a later one does not name it."""
    until = {"measure": "return", "threshold": 1}
    for task, good in (({"goal": 6}, True), ({"goal": 12}, False)):
        first = {"size": 4, "goal": 3} if good else {"size": 20, "goal": 8}
        lessons = Lessons([{"name": "a", "task": first, "until": until}, {"name": "b", "task": task}])
        if good:
            try_tasks(PPOConfig().environment(Sized), lessons, Route())
            continue
        with pytest.raises(EnvError, match="goal 12 is outside size 9"):
            try_tasks(PPOConfig().environment(Sized), lessons, Route())


def test_options_are_checked_when_they_are_bound():
    with pytest.raises(ValueError, match="lessons: the list is empty"):
        CurriculumCallback.bind(lessons=[])
    with pytest.raises(ValueError, match="train_phases"):
        CurriculumCallback.bind(lessons=[{"name": "a", "task": {}}], carry={"weights": False})
    with pytest.raises(ValueError, match="belong to a `type`"):
        CurriculumCallback.bind(curriculum=DomainRandomisation({"x": 1}), space={})


def test_a_bound_callback_survives_pickling():
    bound = pickle.loads(pickle.dumps(CurriculumCallback.bind(**SPACE, task={"via": "set_task"})))
    assert bound().route == Route("set_task")


def test_a_curriculum_of_one_s_own(monkeypatch):
    class Stairs(DomainRandomisation):
        def __init__(self, height: int):
            super().__init__({"level": height})

    config = PPOConfig().environment(Probe).env_runners(num_env_runners=0)
    monkeypatch.setitem(registry.TABLES["curricula"], "stairs", registry.Entry("stairs", Stairs))
    configure(config, {"type": "stairs", "height": 7})
    runner = runner_of(config)
    assert {seen for seen, _ in levels(runner.sample(num_timesteps=10))} == {7.0}

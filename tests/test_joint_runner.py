"""The joint runner writes the columns that RLlib's episodes would become, and is RLlib's runner where it must be."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from joint_samples import (
    SPEAKER,
    SPREAD,
    Ragged,
    Sampled,
    Scripted,
    as_fragments,
    content,
    fragment_content,
    joint_config,
)
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.utils.spaces.space_utils import unsquash_action

from rlkit import rllib, seeds
from rlkit.algos.sampling.episode_runner import EpisodeRunner
from rlkit.algos.sampling.joint_envs import RosterError
from rlkit.algos.sampling.joint_runner import JointEnvRunner
from rlkit.exploration import configure as explore
from rlkit.replay import Replay
from rlkit.replay.episodes import joint_columns
from rlkit.replay.ring import Fragment

RLlibRunner = rllib.seeded(MultiAgentEnvRunner)
# RLlib's runner (2.60) calls an agent truncated that ends by its own flag where `__all__` truncates; this one does not.
Repaired = {"mixed": EpisodeRunner}
NOISES = (
    {"type": "GaussianNoise", "stddev": 0.3, "random_timesteps": 30, "scale_timesteps": 200},
    {"type": "OrnsteinUhlenbeckNoise", "random_timesteps": 0, "scale_timesteps": 200},
    {"type": "Random", "random_timesteps": 50},
)


def sampled(cls: type, config: Any, calls: int) -> tuple[list[list[Fragment]], dict, Any]:
    torch.manual_seed(0)
    runner = cls(config=config)
    torch.manual_seed(1)
    samples = [as_fragments(runner.sample(), runner.env.envs[0].unwrapped) for _ in range(calls)]
    return samples, runner.get_metrics(), runner


def whole_episodes(samples: list[list[Fragment]]) -> list[tuple]:
    """Finished episodes, joined over samples, as comparable values."""
    parts: dict[str, list[Fragment]] = {}
    for sample in samples:
        for fragment in sample:
            parts.setdefault(fragment.key, []).append(fragment)
    found = []
    for episode in parts.values():
        assert [f.start for f in episode] == np.cumsum([0, *(f.length for f in episode)])[:-1].tolist()
        if episode[-1].done:
            found.append(tuple(fragment_content(f)[3:] for f in _joined(episode)))
    return found


def _joined(episode: list[Fragment]) -> list[Fragment]:
    """One fragment per step, so that where an episode was cut does not matter."""
    steps = []
    for f in episode:
        for t in range(f.length):
            steps.append(
                Fragment(f.key, t, 1, _at(f.states, slice(t, t + 2)), _at(f.steps, slice(t, t + 1)), False)
            )
    return steps


def _at(value: Any, rows: slice) -> Any:
    return {k: _at(v, rows) for k, v in value.items()} if isinstance(value, dict) else np.asarray(value)[rows]


@pytest.mark.parametrize(
    ("env", "modules", "env_config"),
    [
        (SPREAD, None, {"continuous_actions": True}),
        (SPREAD, {"shared": ["agent_0", "agent_1", "agent_2"]}, {}),
        (SPREAD, {"x": ["agent_0", "agent_2"], "y": ["agent_1"]}, {"continuous_actions": True}),
        (SPEAKER, None, {"continuous_actions": True}),
    ],
    ids=["one each, boxes", "shared, discrete", "two modules", "different spaces"],
)
def test_columns_are_those_of_rllibs_episodes(env, modules, env_config):
    config = joint_config(env, modules=modules, **env_config)
    theirs, their_metrics, _ = sampled(RLlibRunner, config, 8)
    ours, our_metrics, runner = sampled(JointEnvRunner, config, 8)
    assert runner._envs is not None  # it took the short way
    for mine, rllibs in zip(ours, theirs, strict=True):
        assert sorted(map(fragment_content, mine)) == sorted(map(fragment_content, rllibs))
    assert any(f.done for sample in ours for f in sample)
    found, wanted = flat(our_metrics), flat(their_metrics)
    for name in wanted:
        if not name.endswith(("timer", "sample", "sampling", "sec_mean")):
            assert found[name] == pytest.approx(wanted[name], nan_ok=True), name


def flat(metrics: Any, prefix: str = "") -> dict[str, float]:
    found = {}
    for key, value in metrics.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}/")
        elif not (prefix + key).startswith(("env_to_module", "module_to_env", "timers/connectors")):
            found[f"{prefix}{key}"] = float(value.peek())
    return found


@pytest.mark.parametrize("ends", ["all", "mixed", "own"])
def test_episodes_of_any_length_and_end_and_spaces_of_any_kind(ends):
    config = joint_config("ragged", envs=4, ends=ends)
    theirs = whole_episodes(sampled(Repaired.get(ends, RLlibRunner), config, 6)[0])
    ours = whole_episodes(sampled(JointEnvRunner, config, 6)[0])
    # RLlib cuts its samples elsewhere: compare the episodes both have
    assert len(ours) > 25
    assert len(set(ours) & set(theirs)) >= min(len(ours), len(theirs)) - 4


@pytest.mark.parametrize("noise", NOISES, ids=[n["type"] for n in NOISES])
def test_exploration_draws_the_same_noise(noise):
    config = joint_config(SPREAD, continuous_actions=True)
    config.replay_buffer_config = {}  # these explorations are for off-policy algorithms
    explore(config, noise)
    theirs, their_metrics, _ = sampled(RLlibRunner, config, 5)
    ours, our_metrics, _ = sampled(JointEnvRunner, config, 5)
    for mine, rllibs in zip(ours, theirs, strict=True):
        assert sorted(map(fragment_content, mine)) == sorted(map(fragment_content, rllibs))
    for name, value in flat(their_metrics).items():
        if name.startswith("exploration"):
            assert flat(our_metrics)[name] == value


def test_distributions_are_sampled_to_explore_and_their_mode_is_taken_otherwise():
    config = joint_config(SPREAD, module=Sampled, continuous_actions=True)
    runner = JointEnvRunner(config=config)
    explored, greedy = runner.sample(explore=True)[0], runner.sample(explore=False)[0]
    for fragment, spread in ((explored, True), (greedy, False)):
        mean = fragment.states["obs"]["agent_1"][:-1, 0] - np.float32(0.3)
        assert (np.abs(fragment.steps["actions"]["agent_1"][:, 0] - mean).max() > 1e-3) == spread


def test_fragments_fill_joint_replay_and_travel_small():
    config = joint_config(SPREAD, envs=4, length=10, continuous_actions=True)
    runner = JointEnvRunner(config=config)
    env = runner.env.envs[0].unwrapped
    states, steps = joint_columns(runner.roster.agents, env.observation_spaces, env.action_spaces)
    replay = Replay(1000, states, steps, agents=3)
    for _ in range(6):
        fragments = pickle.loads(pickle.dumps(runner.sample()))
        assert replay.add(fragments) == 40
    rows = np.arange(len(replay))
    batch = replay.transitions(rows)
    # every row's next observation is the next row's, except where an episode ended: after 25 steps
    joined = (batch["new_obs"]["agent_0"][:-1] == batch["obs"]["agent_0"][1:]).all(axis=1)
    assert batch["truncateds"].any(axis=1).sum() == 8
    assert not batch["terminateds"].any()
    assert joined.sum() > 200
    size = len(pickle.dumps(runner.sample()[0]))
    assert size < 4 * 3 * 11 * (18 + 5 + 4) + 4000


class Log(RLlibCallback):
    """Notes what it is shown."""

    def __init__(self) -> None:
        self.seen: list[tuple] = []

    def on_episode_created(self, *, env_index: int, **kwargs: Any) -> None:
        self.seen.append(("created", env_index))

    def on_episode_start(self, *, episode: Any, env_index: int, env: Any, **kwargs: Any) -> None:
        assert env.envs[env_index].unwrapped is not None
        self.seen.append(
            ("start", env_index, content(episode.get_observations(-1)), episode.get_infos(-1)["a"])
        )
        episode.custom_data["began"] = env_index

    def on_episode_end(
        self, *, episode: Any, env_index: int, prev_episode_chunks: Any, **kwargs: Any
    ) -> None:
        chunks = [*prev_episode_chunks, episode]
        assert all(isinstance(chunk, MultiAgentEpisode) for chunk in chunks)
        assert episode.custom_data["began"] == env_index
        self.seen.append(
            (
                "end", env_index, round(sum(chunk.get_return() for chunk in chunks), 9),
                sum(len(chunk) for chunk in chunks), episode.is_terminated, episode.is_truncated,
                content(episode.get_observations(-1)), content(episode.get_infos(-1)),
                sorted((a, e.module_id, e.is_truncated, e.is_done) for a, e in episode.agent_episodes.items()),
                content({a: e.get_actions(-1) for a, e in episode.agent_episodes.items()}), episode.env_t,
            )
        )  # fmt: skip


@pytest.mark.parametrize("ends", ["all", "mixed"])
def test_episode_hooks_see_what_rllibs_runner_shows_them(ends):
    config = joint_config("ragged", envs=2, length=4, ends=ends)
    config.callbacks(Log)
    logs = []
    for cls in (Repaired.get(ends, RLlibRunner), JointEnvRunner):
        _, _, runner = sampled(cls, config, 10)
        seen = runner._callbacks[0].seen
        logs.append([[entry for entry in seen if entry[1] == row] for row in range(2)])
    for theirs, ours in zip(*logs, strict=True):
        count = min(len(theirs), len(ours)) - 3
        assert count > 20
        assert ours[:count] == theirs[:count]


def test_tasks_of_a_curriculum_reach_the_next_episode_and_its_outcome_is_reported():
    from rlkit.curriculum import configure
    from rlkit.curriculum.callback import REPORTS
    from rlkit.curriculum.driver import Decider

    config = joint_config("ragged", envs=3, length=20)
    space = {"level": {"integer": [1, 1000]}}
    configure(config, {"type": "random", "space": space, "success": {"info": "success"}})
    runner = JointEnvRunner(config=config)
    callback = runner._callbacks[-1]
    decider = Decider(callback.curriculum, 0, None)
    callback.receive(decider.push(), False)
    fragments = runner.sample()
    metrics = runner.get_metrics()
    # the second value of agent b's observation is time + level
    levels = [float(f.states["obs"]["b"][0, 1]) for f in fragments if f.start == 0]
    reports = [report for part in metrics[REPORTS].peek(compile=False) for report in part]
    assert len(set(levels)) > 10
    finished = {f.key: f for f in fragments if f.done}
    assert len(reports) == len(finished) > 8
    told = sorted((r.task["level"], round(r.outcome.episode_return, 3), r.outcome.length) for r in reports)
    seen = sorted(
        (
            int(f.states["obs"]["b"][0, 1]),
            round(float(f.steps["rewards"].astype(np.float64).sum()), 3),
            f.length,
        )
        for f in finished.values()
    )
    assert np.allclose(told, seen, atol=2e-3)
    assert all(0 <= r.outcome.success <= 1 for r in reports)


def test_modules_may_change_from_episode_to_episode():
    config = joint_config(SPREAD, envs=4, continuous_actions=True)

    class Fixed(Scripted):
        def _forward(self, batch: Any, **kwargs: Any) -> dict[str, Any]:
            return {"actions": torch.full((*batch["obs"].shape[:-1], 5), float(self.model_config["value"]))}

    from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
    from ray.rllib.core.rl_module.rl_module import RLModuleSpec

    values = {"x": 0.25, "y": -0.5}

    def choose(agent: str, episode: Any, **kwargs: Any) -> str:
        return "x" if agent == "agent_0" or int(episode.id_, 16) % 2 else "y"

    config.multi_agent(policies=set(values), policy_mapping_fn=choose)
    config.rl_module(
        rl_module_spec=MultiRLModuleSpec(
            rl_module_specs={
                m: RLModuleSpec(module_class=Fixed, model_config={"value": v}) for m, v in values.items()
            }
        )
    )
    runner = JointEnvRunner(config=config)
    fragments = [f for _ in range(12) for f in runner.sample()]
    seen = set()
    for fragment in fragments:
        for agent, actions in fragment.steps["actions"].items():
            wanted = values["x" if agent == "agent_0" or int(fragment.key, 16) % 2 else "y"]
            seen.add((agent, wanted))
            assert (actions == np.float32(wanted)).all()
    assert len(seen) == 5
    steps = flat(runner.get_metrics())
    played = {m: steps[f"num_module_steps_sampled/{m}"] for m in values}
    lengths = {odd: sum(f.length for f in fragments if int(f.key, 16) % 2 == odd) for odd in (0, 1)}
    assert played == {"x": 3 * lengths[1] + lengths[0], "y": 2 * lengths[0]}


# RLlib's way -----------------------------------------------------------------------------------------------


class Watch(RLlibCallback):
    def on_episode_step(self, **kwargs: Any) -> None:
        pass


class Edit(RLlibCallback):
    def on_sample_end(self, *, samples: Any, **kwargs: Any) -> None:
        assert all(isinstance(sample, MultiAgentEpisode) for sample in samples)


class Recurrent(Scripted):
    def get_initial_state(self) -> dict[str, Any]:
        return {"h": torch.zeros(1)}

    def _forward(self, batch: Any, **kwargs: Any) -> dict[str, Any]:
        return super()._forward(batch) | {"state_out": batch["state_in"]}


class Ensemble(Scripted):
    needs_episodes = True


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda c: c.callbacks(Watch), "Watch.on_episode_step looks at every step"),
        (lambda c: c.callbacks(Edit), "Edit.on_sample_end reads the sampled episodes"),
        (lambda c: c.env_runners(env_to_module_connector=lambda *_, **__: _mean_std()), "MeanStdFilter"),
        (Recurrent, "recurrent"),
        (Ensemble, "follows episodes"),
    ],
    ids=["on_episode_step", "on_sample_end", "connector", "recurrent", "ensemble"],
)
def test_what_needs_episodes_gets_them_and_one_message(change, why, caplog):
    module = change if isinstance(change, type) else Scripted
    config = joint_config(SPREAD, module=module, continuous_actions=True)
    if not isinstance(change, type):
        change(config)
    runner = JointEnvRunner(config=config)
    with caplog.at_level("WARNING", logger="rlkit"):
        for _ in range(3):
            samples = runner.sample()
            assert all(isinstance(sample, MultiAgentEpisode) for sample in samples)
    messages = [r.getMessage() for r in caplog.records if "samples episodes" in r.getMessage()]
    assert len(messages) == 1
    assert why in messages[0]


def _mean_std() -> Any:
    from ray.rllib.connectors.env_to_module import MeanStdFilter

    return MeanStdFilter(multi_agent=True)


def test_whole_episodes_random_actions_and_evaluation_are_rllibs():
    config = joint_config(SPREAD, continuous_actions=True)
    runner = JointEnvRunner(config=config)
    assert isinstance(runner.sample()[0], Fragment)
    whole = runner.sample(num_episodes=4)
    assert [len(e) for e in whole] == [25] * 4
    assert isinstance(runner.sample(random_actions=True, num_timesteps=9)[0], MultiAgentEpisode)
    assert isinstance(runner.sample()[0], Fragment)
    config = config.copy(copy_frozen=False)
    config.in_evaluation = True
    assert isinstance(JointEnvRunner(config=config).sample()[0], MultiAgentEpisode)


def test_a_roster_that_changes_is_an_error_with_both_rosters():
    runner = JointEnvRunner(config=joint_config("ragged", envs=2, leaves=3))
    with pytest.raises(RosterError) as caught:
        runner.sample(num_timesteps=100)
    for part in ("ragged", "['a', 'b']", "['a', 'b', 'c']", "sampling: episodes"):
        assert part in str(caught.value)


def test_an_environment_that_fails_once_is_built_anew():
    config = joint_config("ragged", envs=2, length=10, fails=8)
    config.fault_tolerance(restart_failed_sub_environments=True)
    Ragged.steps = 0
    runner = JointEnvRunner(config=config)
    fragments = runner.sample()
    assert Ragged.steps > 8
    assert sum(f.length for f in fragments) >= 20
    assert all(f.start == 0 for f in fragments)
    assert flat(runner.get_metrics())["num_env_step_failures"] == 1
    config = config.copy(copy_frozen=False).fault_tolerance(restart_failed_sub_environments=False)
    Ragged.steps = 0
    with pytest.raises(RuntimeError, match="broken"):
        JointEnvRunner(config=config).sample()


def test_vmas_is_stepped_as_one_batch():
    pytest.importorskip("vmas")
    from rlkit.envs import VmasBatch

    config = joint_config("vmas/simple_spread", envs=6, length=8, max_steps=5, n_agents=3)
    runner = JointEnvRunner(config=config)
    fragments = runner.sample()
    assert sorted(f.length for f in fragments) == [3] * 6 + [5] * 6
    # the same actions in a batch of the same seed give the same observations and rewards
    batch = VmasBatch("simple_spread", 6, max_steps=5, n_agents=3)
    observations = batch.reset(seeds.number(3, "environment", 0, 0, 0, 0))
    first = [f for f in fragments if f.start == 0 and f.done]
    agents = runner.roster.agents
    for t in range(5):
        for row, fragment in enumerate(first):
            for agent in agents:
                seen = fragment.states["obs"][agent][t]
                np.testing.assert_array_equal(seen, observations[agent][row].numpy())
        chosen = {a: np.stack([f.steps["actions"][a][t] for f in first]) for a in agents}
        acted = {a: torch.tensor(unsquash_action(chosen[a], batch.action_spaces[a])) for a in agents}
        observations, rewards, *_ = batch.step(acted)
        paid = np.stack([f.steps["rewards"][t] for f in first])
        order = [batch.possible_agents.index(a) for a in agents]
        np.testing.assert_array_equal(paid, rewards.numpy()[:, order])
    assert all(f.steps["truncateds"][-1].all() and not f.steps["terminateds"].any() for f in first)


# The word in a config --------------------------------------------------------------------------------------


def test_sampling_chooses_the_runner():
    config = joint_config(SPREAD)
    config.validate()
    assert config.env_runner_cls is JointEnvRunner
    other = config.copy(copy_frozen=False).env_runners(sampling="episodes", num_envs_per_env_runner=2)
    other.validate()
    assert other.env_runner_cls is None
    assert other.num_envs_per_env_runner == 2
    with pytest.raises(ValueError, match="did you mean 'joint'"):
        config.copy(copy_frozen=False).env_runners(sampling="jont")


def test_remote_runners_send_fragments(ray_local):
    import ray

    config = joint_config(SPREAD, continuous_actions=True)
    remote = ray.remote(JointEnvRunner).remote(config=config, worker_index=1, num_workers=2)
    fragments = ray.get(remote.sample.remote())
    assert sum(f.length for f in fragments) == 21
    assert all(isinstance(f, Fragment) for f in fragments)
    local = JointEnvRunner(config=config, worker_index=1, num_workers=2)
    assert sorted(map(fragment_content, fragments)) == sorted(map(fragment_content, local.sample()))
    ray.kill(remote)


def test_a_remote_runners_changing_roster_ends_the_run_with_its_message(ray_local):
    from rlkit.algos import MADDPGConfig

    config = MADDPGConfig().environment("ragged", env_config={"leaves": 1}, disable_env_checking=True)
    config.env_runners(num_env_runners=1, num_envs_per_env_runner=2, rollout_fragment_length=20)
    config.env_runners(sample_timeout_s=20)  # a message that does not come fails the test in time
    config.multi_agent(policies={"a", "b", "c"}, policy_mapping_fn=lambda agent, *_, **__: agent)
    algorithm = config.build_algo()
    try:
        with pytest.raises(RosterError, match="expected the fixed roster"):
            algorithm.train()
    finally:
        algorithm.stop()

"""A DRON checkpoint as an agent: opponents through `info`, the gate, and its place in a trace."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import rlkit
from rlkit.algos import DRONConfig
from rlkit.envs.make import env_creator
from rlkit.envs.soccer import SoccerEnv
from rlkit.errors import EnvError, UsageError
from rlkit.runs import manifest


@pytest.fixture(scope="module")
def checkpoint(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from ray.tune.registry import register_env

    register_env("soccer", env_creator("soccer"))
    config = DRONConfig().environment("soccer", env_config={"opponents": "styles"}).debugging(seed=0)
    config.env_runners(
        num_env_runners=0, num_envs_per_env_runner=4, gym_env_vectorize_mode="vector_entry_point"
    )
    config.training(num_steps_sampled_before_learning_starts=64).reporting(
        min_sample_timesteps_per_iteration=128
    )
    algorithm = config.build_algo()
    path = tmp_path_factory.mktemp("dron") / "checkpoint"
    try:
        algorithm.train()
        algorithm.save_to_path(str(path))
    finally:
        algorithm.stop()
    manifest.write(
        path, recipe={"env": "soccer", "env_config": {"opponents": "styles"}}, iteration=1, env_steps=128
    )
    return path


def play(agent, env: SoccerEnv, steps: int = 6, seed: int = 0) -> tuple[list[int], list[np.ndarray]]:
    agent.reset()
    obs, info = env.reset(seed=seed)
    actions, gates = [], []
    for _ in range(steps):
        gates.append(agent.gate(obs, info=info))
        q = agent.q_values(obs, info=info)
        actions.append(int(agent.act(obs, info=info)))
        assert actions[-1] == q.argmax()  # looking changed nothing
        obs, _, done, _, info = env.step(actions[-1])
        if done:
            break
    return actions, gates


def test_the_agent_acts_on_what_infos_say_of_its_opponent(checkpoint):
    agent, env = rlkit.load(checkpoint), SoccerEnv("styles")
    first, gates = play(agent, env)
    assert all(g.shape == (3,) for g in gates)
    np.testing.assert_allclose([g.sum() for g in gates], 1.0, atol=1e-5)
    again, gates_again = play(agent, env)  # the second game begins with an empty history
    assert first == again
    np.testing.assert_allclose(gates, gates_again, atol=1e-6)


def test_a_batch_has_an_info_per_row(checkpoint):
    agent, envs = rlkit.load(checkpoint), [SoccerEnv("up"), SoccerEnv("down")]
    obs, infos = zip(*(env.reset(seed=2) for env in envs), strict=True)
    for _ in range(4):
        weights = agent.gate(np.stack(obs), info=list(infos))
        actions = agent.act(np.stack(obs), info=list(infos))
        assert weights.shape == (2, 3)
        obs, _, done, _, infos = zip(*(e.step(a) for e, a in zip(envs, actions, strict=True)), strict=True)
        if any(done):
            break
    with pytest.raises(UsageError, match="1 infos for 2 observations"):
        agent.act(np.stack(obs), info=[{}])


def test_without_info_the_agent_says_what_it_needs(checkpoint):
    agent, env = rlkit.load(checkpoint), SoccerEnv("styles")
    obs, _ = env.reset(seed=0)
    agent.act(obs)
    with pytest.raises(EnvError, match="expected 'opponent_action'"):
        agent.act(env.step(4)[0])


def test_evaluation_and_trace_show_the_gate(checkpoint, tmp_path):
    trace = tmp_path / "trace.csv"
    evaluation = rlkit.evaluate(checkpoint, episodes=3, trace=trace)
    assert evaluation.episodes == 3
    with trace.open() as file:
        rows = list(csv.DictReader(file))
    weights = np.array([[float(row[f"gate_{k}"]) for k in range(3)] for row in rows])
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-4)
    assert {f"q_{i}" for i in range(5)} <= rows[0].keys()

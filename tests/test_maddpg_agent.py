"""MADDPG's checkpoints as agents: actions without critics, and the value of actions among everybody's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from maddpg_envs import Alone, Match, Sum
from maddpg_samples import config_of
from test_maddpg import trained

import rlkit
from rlkit.errors import UsageError


def agent_of(config: Any, path: Path, iterations: int = 1) -> Any:
    algorithm = trained(config, iterations)
    try:
        algorithm.save_to_path(str(path))
    finally:
        algorithm.stop()
    return rlkit.load(path, trust=True)


def test_a_centralised_critic_judges_among_everybodys_actions(ray_local: None, tmp_path: Path) -> None:
    agent = agent_of(config_of(Sum, gamma=0.0, tau=0.1), tmp_path, iterations=8)
    seen = {"a_0": np.array([0.5], np.float32), "a_1": np.array([-0.2], np.float32)}
    played = agent.act(seen)
    assert played["a_0"] + played["a_1"] == pytest.approx([0.3], abs=0.2)
    assert agent.q_values(seen)["a_0"] == pytest.approx(0.0, abs=0.1)

    def judged(a_0: float, a_1: float) -> float:
        actions = {"a_0": np.array([a_0], np.float32), "a_1": np.array([a_1], np.float32)}
        return float(agent.q_values(seen, actions)["a_0"])

    # -(a_0 + a_1 - 0.3)²: what a_0 is worth depends on a_1
    assert judged(0.5, -0.2) == pytest.approx(0.0, abs=0.1)
    assert judged(0.5, 0.5) == pytest.approx(-0.49, abs=0.15)
    assert judged(-0.2, 0.5) == pytest.approx(0.0, abs=0.1)
    rows = agent.q_values([seen, seen])
    assert [float(row["a_1"]) for row in rows] == pytest.approx(
        [float(agent.q_values(seen)["a_1"])] * 2, abs=1e-6
    )


def test_discrete_critics_give_a_value_for_every_action(ray_local: None, tmp_path: Path) -> None:
    agent = agent_of(config_of(Match, gamma=0.0, tau=0.1, twin_q=True), tmp_path, iterations=6)
    seen = {"a_0": 2, "a_1": 1}
    assert agent.act(seen) == seen
    values = agent.q_values(seen)
    assert values["a_0"].shape == (3,)
    assert values["a_0"].argmax() == 2
    given = agent.q_values(seen, {"a_0": 2, "a_1": 0})
    assert float(given["a_0"]) < 0.5 < float(values["a_0"][2])


def test_one_agent_alone(ray_local: None, tmp_path: Path) -> None:
    agent = agent_of(config_of(Alone, gamma=0.0, tau=0.1), tmp_path, iterations=6)
    seen = np.array([0.4], np.float32)
    assert agent.act(seen) == pytest.approx([0.4], abs=0.15)
    assert float(agent.q_values(seen, np.array([-0.6], np.float32))) == pytest.approx(-1.0, abs=0.25)


def test_ensembles_and_recurrent_policies_act_and_have_no_value_without_their_past(
    ray_local: None, tmp_path: Path
) -> None:
    recurrent = config_of(Sum)
    recurrent.rl_module(
        model_config={"fcnet_hiddens": [8], "use_lstm": True, "lstm_cell_size": 8, "max_seq_len": 5}
    )
    seen = {"a_0": np.array([0.5], np.float32), "a_1": np.array([-0.2], np.float32)}
    for name, config in (("ensemble", config_of(Sum, ensemble_size=3)), ("recurrent", recurrent)):
        agent = agent_of(config, tmp_path / name)
        first, second = agent.act(seen), agent.act(seen)
        same = all(np.array_equal(first[a], second[a]) for a in first)
        # An episode keeps its sub-policy; a recurrent policy has moved on.
        assert same is (name == "ensemble")
        with pytest.raises(UsageError, match="has no Q-values"):
            agent.q_values(seen)

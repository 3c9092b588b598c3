"""Names of environments: what they make, what they refuse, and what looking one up costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import pytest
from env_samples import Scripted
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from rlkit.envs import PettingZooEnv, adapt, available, check_name, is_multi_agent, make_env
from rlkit.envs.names import make_vector
from rlkit.errors import UsageError


def test_names_make_what_they_say() -> None:
    cartpole = make_env("CartPole-v1", {"max_episode_steps": 3})
    cartpole.reset(seed=0)
    assert [cartpole.step(0)[3] for _ in range(3)] == [False, False, True]
    spread = make_env("pettingzoo/mpe2.simple_spread_v3", {"N": 4, "max_cycles": 2})
    assert isinstance(spread, MultiAgentEnv)
    assert spread.possible_agents == [f"agent_{i}" for i in range(4)]
    turns = make_env("pettingzoo/mpe2.simple_spread_v3", {"api": "aec"})
    assert len(turns.reset(seed=0)[0]) == 1
    assert make_env("CartPole").spec.id == make_vector("CartPole", {"num_envs": 2}).spec.id == "CartPole-v1"
    assert is_multi_agent("pettingzoo/mpe2.simple_spread_v3")
    assert not is_multi_agent("CartPole-v1")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("CartPol-v1", ["CartPole-v1"]),
        ("CartPole-v7", ["CartPole-v1", "v7"]),
        ("simple_spread_v3", ["'pettingzoo/mpe2.simple_spread_v3'"]),
        ("pettingzoo/mpe.simple_spread_v3", ["any more", "'pettingzoo/mpe2.simple_spread_v3'"]),
        ("pettingzoo/mpe2.simple_spred_v3", ["did you mean 'pettingzoo/mpe2.simple_spread_v3'"]),
        ("pettingzoo/os.path", ["no environment", "pettingzoo/<module>.<env>"]),
        ("my_module:Env-v0", ["does not import", "--import my_module"]),
    ],
)
def test_a_name_that_does_not_exist_names_the_closest(name: str, words: list[str]) -> None:
    for look in (check_name, make_env):
        with pytest.raises(UsageError) as caught:
            look(name)
        assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("name", "config", "words"),
    [
        ("CartPole-v1", {"suton_barto_reward": True}, "did you mean 'sutton_barto_reward'"),
        ("CartPole", {"suton_barto_reward": True}, "did you mean 'sutton_barto_reward'"),
        ("pettingzoo/mpe2.simple_spread_v3", {"n": 3}, "did you mean 'N'"),
        ("pettingzoo/mpe2.simple_spread_v3", {"api": "both"}, r"expected one of \['aec', 'parallel'\]"),
        ("LunarLander-v3", {}, "needs a package that is not installed"),
    ],
)
def test_arguments_and_packages_are_named(name: str, config: dict, words: str) -> None:
    if name == "LunarLander-v3":
        try:
            import Box2D  # noqa: F401

            pytest.skip("Box2D is installed")
        except ImportError:
            pass
    with pytest.raises(UsageError, match=words):
        make_env(name, config)


@pytest.mark.parametrize("name", ["CartPole-v1", "GymV26Environment-v0"])
@pytest.mark.parametrize("key", ["id", "env_id", "vector_kwargs"])
def test_no_argument_makes_gymnasium_import_a_module(
    name: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil_module.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    for make in (make_env, make_vector):
        with pytest.raises((UsageError, TypeError)):
            make(name, {key: "evil_module:x-v0", "num_envs": 1})
    assert not (tmp_path / "ran").exists()


def test_a_users_environment_is_adapted() -> None:
    assert isinstance(adapt(Scripted({"a": (0, 1, "terminated")})), PettingZooEnv)
    cartpole = gym.make("CartPole-v1")
    assert adapt(cartpole) is cartpole
    with pytest.raises(UsageError, match="returned int, expected"):
        adapt(3)


def test_listing_and_looking_up_import_no_library() -> None:
    program = (
        "import sys, rlkit.envs as e; e.check_name('pettingzoo/mpe2.simple_spread_v3'); e.is_multi_agent('x');"
        "print([m for m in ('ray', 'torch', 'pettingzoo', 'mpe2', 'gymnasium') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    assert "CartPole-v1" in available()

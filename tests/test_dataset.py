"""Recorded episodes: what is written is what was played, and a file cannot run anything."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from rlkit.errors import UsageError
from rlkit.replay.dataset import EpisodeWriter, RecordEpisodes, read_episodes, read_headers
from rlkit.replay.minari import read_minari


class Counts(gym.Env):
    """Observes a Dict that counts steps; ends at 3, or is cut at `limit`; overwrites its arrays."""

    observation_space = gym.spaces.Dict(
        {"t": gym.spaces.Box(0, 9, (1,), np.float32), "odd": gym.spaces.Discrete(2)}
    )
    action_space = gym.spaces.Tuple(
        (gym.spaces.Discrete(3, start=1), gym.spaces.Box(-2, 2, (1,), np.float32))
    )

    def __init__(self, limit: int = 9):
        self.limit = limit
        self.array = np.zeros(1, np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.t = 0
        return self._seen(), {}

    def _seen(self) -> Any:
        self.array[:] = self.t
        return {"t": self.array, "odd": self.t % 2}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self.t += 1
        return self._seen(), 0.5 * self.t, self.t >= 3, self.t >= self.limit, {}


def recorded(path: Path, limits: tuple[int, ...] = (9, 2)) -> Path:
    for number, limit in enumerate(limits):
        with RecordEpisodes(Counts(limit), path) as env:
            env.reset(seed=number)
            over = False
            while not over:
                _, _, terminated, truncated, _ = env.step((1 + env.unwrapped.t, np.full(1, 0.25, np.float32)))
                over = terminated or truncated
    return path


def test_a_file_holds_exactly_what_was_played(tmp_path: Path) -> None:
    with RecordEpisodes(Counts(), tmp_path / "data.npz") as env:
        for seed, steps in ((7, 3), (8, 2)):  # the second one is left in its middle
            env.reset(seed=seed)
            for t in range(steps):
                env.step((1 + t, np.full(1, 0.25, np.float32)))
    episodes = read_episodes(tmp_path / "data.npz")
    assert episodes.lengths.tolist() == [3, 2]
    assert episodes.terminated.tolist() == [True, False]
    assert episodes.truncated.tolist() == [False, True]
    assert episodes.rewards.tolist() == [0.5, 1.0, 1.5, 0.5, 1.0]
    assert episodes.returns.tolist() == [3.0, 1.5]
    values = episodes.values("observations", Counts.observation_space)
    assert values["t"][:, 0].tolist() == [0, 1, 2, 3, 0, 1, 2]  # the last observations too
    assert values["odd"].tolist() == [0, 1, 0, 1, 0, 1, 0]
    chosen, pushed = episodes.values("actions", Counts.action_space)
    assert chosen.tolist() == [1, 2, 3, 1, 2]
    assert pushed.shape == (5, 1)
    episodes.check_fit("counts", Counts.observation_space, Counts.action_space)


@pytest.mark.parametrize(
    ("observation", "action", "message"),
    [
        (gym.spaces.Box(0, 9, (1,), np.float32), Counts.action_space, "it has no observations "),
        (
            gym.spaces.Dict({**Counts.observation_space.spaces, "t": gym.spaces.Box(0, 9, (2,))}),
            Counts.action_space,
            r"observations/t are float32 \(1,\), expected float32 \(2,\)",
        ),
        (
            Counts.observation_space,
            gym.spaces.Tuple((gym.spaces.Discrete(2, start=1), Counts.action_space[1])),
            "actions/0 reach from 1 to 3, expected values of Discrete",
        ),
        (
            Counts.observation_space,
            gym.spaces.Tuple((Counts.action_space[0], gym.spaces.Box(0.5, 1, (1,)))),
            "actions/1 reach from 0.25 to 0.25",
        ),
        (
            gym.spaces.Dict({"t": Counts.observation_space["t"]}),
            Counts.action_space,
            "it has observations/odd",
        ),
    ],
)
def test_data_of_other_spaces_say_what_they_hold(
    observation: Any, action: Any, message: str, tmp_path: Path
) -> None:
    episodes = read_episodes(recorded(tmp_path / "data.npz", (9,)))
    with pytest.raises(UsageError, match=message):
        episodes.check_fit("other", observation, action)


class Bomb:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("ran"),))


def test_nothing_in_a_file_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arrays = dict(np.load(recorded(tmp_path / "data.npz", (9,))))
    np.savez(tmp_path / "bomb.npz", **{**arrays, "about": np.array([Bomb()], dtype=object)})
    (tmp_path / "bare.npz").write_bytes(pickle.dumps(Bomb()))
    for name, message in (("bomb.npz", "about holds Python objects"), ("bare.npz", "not a file of recorded")):
        with pytest.raises(UsageError, match=message):
            read_episodes(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rewards": np.zeros(2)}, "episodes of 3 steps in all, rewards of 2"),
        ({"rewards": np.full(3, np.nan)}, "rewards hold NaN"),
        ({"actions/0": np.zeros(2, int)}, r"actions/0 has shape \(2,\), expected 3 rows"),
        (
            {"terminated": np.zeros(1, bool), "truncated": np.zeros(1, bool)},
            "neither terminated nor truncated",
        ),
        ({"format": "rlkit-episodes-2"}, "has the format 'rlkit-episodes-2'"),
        ({"lengths": None}, "has no lengths"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(change: dict, message: str, tmp_path: Path) -> None:
    arrays = {**dict(np.load(recorded(tmp_path / "data.npz", (9,)))), **change}
    np.savez(tmp_path / "bad.npz", **{name: a for name, a in arrays.items() if a is not None})
    with pytest.raises(UsageError, match=message):
        read_episodes(tmp_path / "bad.npz")


def test_headers_are_read_without_the_arrays(tmp_path: Path) -> None:
    headers = read_headers(recorded(tmp_path / "data.npz", (9,)))
    assert headers["observations/t"] == ((4, 1), np.dtype(np.float32))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "data.npz").read_bytes()[:200])
    for name, message in (("cut.npz", "not a file"), ("none.npz", "no such file"), (".", "is a folder")):
        with pytest.raises(UsageError, match=message):
            read_headers(tmp_path / name)


def test_a_writer_refuses_what_is_no_episode(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ending in \.npz"):
        EpisodeWriter(tmp_path / "data.pkl")
    writer = EpisodeWriter(tmp_path / "data.npz")
    with pytest.raises(UsageError, match="2 observations, 2 actions and 2 rewards"):
        writer.add([0, 1], [0, 0], [1.0, 1.0], terminated=True, truncated=False)
    with pytest.raises(UsageError, match="neither terminated nor was truncated"):
        writer.add([0, 1], [0], [1.0], terminated=False, truncated=False)
    writer.close(complete=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore")  # Minari wants an author, a description and more
def test_minari_data_are_read_by_id_and_by_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minari = pytest.importorskip("minari")
    pytest.importorskip("h5py")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    from minari.data_collector.episode_buffer import EpisodeBuffer

    env = gym.make("CartPole-v1")
    buffers = [
        EpisodeBuffer(
            id=k,
            observations=np.full((steps + 1, 4), k, np.float32),
            actions=np.full(steps, k),
            rewards=np.ones(steps),
            terminations=np.zeros(steps, bool),
            truncations=np.arange(steps) == steps - 1,
            infos={},
        )
        for k, steps in enumerate((3, 2))
    ]
    minari.create_dataset_from_buffers("cartpole/tiny-v0", buffers, env=env)
    for source in ("minari/cartpole/tiny-v0", str(tmp_path / "cartpole" / "tiny-v0")):
        episodes = read_minari(source)
        assert episodes.lengths.tolist() == [3, 2]
        assert episodes.truncated.all()
        assert episodes.columns["actions"].tolist() == [0, 0, 0, 1, 1]
        assert episodes.columns["observations"][:, 0].tolist() == [0, 0, 0, 0, 1, 1, 1]
        episodes.check_fit("CartPole-v1", env.observation_space, env.action_space)


def test_minari_data_that_cannot_be_had_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))

    def unreachable(*_: Any, **__: Any) -> Any:
        raise ConnectionError("no route to the host")

    monkeypatch.setattr(minari, "load_dataset", unreachable)
    with pytest.raises(UsageError, match=r"minari/a/b-v0: Minari can neither find it .* no route"):
        read_minari("minari/a/b-v0")

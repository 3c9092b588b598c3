"""Columnar replay against plain Python: links, n-step windows, priorities, sequences, state, faults."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlkit.errors import EnvError
from rlkit.replay import Column, Fragment, Replay
from rlkit.replay.sumtree import SumTree

OBS = gym.spaces.Box(-np.inf, np.inf, (1,))
ACTION = gym.spaces.Discrete(9)


def replay(capacity: int = 100, **options: Any) -> Replay:
    return Replay(capacity, {"obs": OBS}, {"actions": ACTION}, seed=0, **options)


def fragment(episode: int, start: int, length: int, end: str = "") -> Fragment:
    """Steps whose observation is `1000 * episode + t` and whose reward at t is t + 1."""
    t = np.arange(start, start + length + 1)
    last = np.arange(length) == length - 1
    return Fragment(
        f"e{episode}",
        start,
        length,
        {"obs": (1000.0 * episode + t)[:, None].astype(np.float32)},
        {
            "actions": t[:-1] % 9,
            "rewards": (t[:-1] + 1).astype(np.float32),
            "terminateds": last & (end == "terminated"),
            "truncateds": last & (end == "truncated"),
        },
        done=bool(end),
    )


def expected_window(t: int, length: int, n: int, gamma: float, known: int) -> tuple[float, int]:
    """Return the return and the length of the n-step window at t of an episode of which `known` steps came."""
    m = min(n, known - t)
    return sum(gamma**i * (t + i + 1) for i in range(m)), m


@settings(max_examples=60, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 7), min_size=1, max_size=8),
    episodes=st.integers(1, 3),
    n=st.integers(1, 5),
    end=st.sampled_from(["", "terminated", "truncated"]),
)
def test_windows_do_not_see_fragment_borders(cuts: list[int], episodes: int, n: int, end: str) -> None:
    """Whatever the fragments, a window is that of the whole episode: its return, next observation and flags."""
    buffer, length = replay(200), sum(cuts)
    start = 0
    for i, cut in enumerate(cuts):
        # the episodes interleave, as those of several environments do
        buffer.add(fragment(e, start, cut, end if i == len(cuts) - 1 else "") for e in range(episodes))
        start += cut
    rows = np.arange(len(buffer))
    assert len(rows) == episodes * length
    batch = buffer.transitions(rows, n_step=n, gamma=0.5)
    for i in rows:
        episode, t = divmod(int(batch["obs"][i, 0]), 1000)
        value, m = expected_window(t, length, n, 0.5, length)
        assert batch["rewards"][i] == pytest.approx(value)
        assert batch["n_step"][i] == m
        assert batch["new_obs"][i, 0] == 1000 * episode + t + m
        assert batch["terminateds"][i] == (end == "terminated" and t + m == length)
        assert batch["truncateds"][i] == (end == "truncated" and t + m == length)
        assert batch["actions"][i] == t % 9


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=40), n=st.integers(1, 4))
def test_a_full_ring_keeps_the_newest_steps_and_their_links(lengths: list[int], n: int) -> None:
    buffer = replay(37)
    written = []
    for episode, length in enumerate(lengths):
        half = length // 2
        pieces = [(0, half, ""), (half, length - half, "terminated")]
        for start, count, end in pieces:
            if count:
                buffer.add([fragment(episode, start, count, end)])
                written += [1000 * episode + start + i for i in range(count)]
    alive = written[-37:]
    rows = np.arange(len(buffer))
    batch = buffer.transitions(rows, n_step=n)
    assert sorted(batch["obs"][:, 0].tolist()) == sorted(alive)
    for i in rows:
        episode, t = divmod(int(batch["obs"][i, 0]), 1000)
        m = min(n, lengths[episode] - t)
        assert batch["new_obs"][i, 0] == 1000 * episode + t + m
    # every slot of the side table is either free or holds the end of one row
    used = -1 - buffer.ring.link[: len(buffer)][buffer.ring.link[: len(buffer)] < 0]
    free = buffer.ring._free[: buffer.ring._num_free]
    assert sorted([*used.tolist(), *free.tolist()]) == list(range(len(buffer.ring._free)))


def test_a_fragment_that_ends_mid_episode_bootstraps_from_its_last_observation() -> None:
    buffer = replay()
    buffer.add([fragment(1, 0, 4)])
    batch = buffer.transitions(np.array([3]), n_step=3)
    assert batch["new_obs"].tolist() == [[1004.0]]
    assert not batch["terminateds"][0]
    assert not batch["truncateds"][0]
    assert batch["n_step"].tolist() == [1.0]
    buffer.add([fragment(1, 4, 2)])
    assert buffer.transitions(np.array([3]), n_step=3)["new_obs"].tolist() == [[1006.0]]


def test_a_lost_fragment_is_not_bridged() -> None:
    buffer = replay()
    buffer.add([fragment(1, 0, 4)])
    buffer.add([fragment(1, 9, 2)])  # steps 4 to 8 never came
    batch = buffer.transitions(np.array([3]), n_step=5)
    assert batch["new_obs"].tolist() == [[1004.0]]
    assert batch["n_step"].tolist() == [1.0]


def test_n_step_longer_than_the_episode_ends_with_it() -> None:
    buffer = replay()
    buffer.add([fragment(1, 0, 3, "terminated")])
    batch = buffer.transitions(np.array([0, 1, 2]), n_step=10, gamma=1.0)
    assert batch["rewards"].tolist() == [6.0, 5.0, 3.0]
    assert batch["n_step"].tolist() == [3.0, 2.0, 1.0]
    assert batch["terminateds"].all()


def test_a_range_of_n_steps_covers_both_ends() -> None:
    buffer = replay()
    buffer.add([fragment(1, 0, 60)])
    lengths = buffer.transitions(np.zeros(400, np.int64), n_step=(2, 4))["n_step"]
    assert set(lengths.tolist()) == {2.0, 3.0, 4.0}


def test_a_fragment_longer_than_the_buffer_keeps_its_end() -> None:
    buffer = replay(10)
    buffer.add([fragment(1, 0, 25, "terminated")])
    assert len(buffer) == 10
    batch = buffer.transitions(np.arange(10))
    assert sorted(batch["obs"][:, 0].tolist()) == [1015.0 + i for i in range(10)]


# Priorities ------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(
    capacity=st.integers(1, 5000),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_sum_tree_is_a_search_in_the_running_sum(capacity: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tree = SumTree(capacity)
    values = np.zeros(capacity)
    for _ in range(4):
        rows = rng.integers(0, capacity, 50)
        new = rng.random(50) * 10
        tree.set(rows, new)
        values[rows] = new
    assert tree.total == pytest.approx(values.sum())
    assert tree.minimum == values[values > 0].min()
    mass = rng.random(200) * tree.total
    found = tree.find(mass)
    assert (values[found] > 0).all()
    np.testing.assert_array_equal(found, np.searchsorted(values.cumsum(), mass, side="right"))


def test_draws_follow_the_priorities_and_weights_undo_them() -> None:
    buffer = replay(alpha=0.5)
    buffer.add([fragment(1, 0, 4)])
    buffer.update_priorities(np.array([0, 1, 2, 3]), np.array([1.0, 4.0, 9.0, 36.0]))
    share = np.sqrt([1.0, 4.0, 9.0, 36.0]) / 12
    rows = buffer.draw(20_000)[0]
    np.testing.assert_allclose(np.bincount(rows, minlength=4) / 20_000, share, atol=0.01)
    np.testing.assert_allclose(buffer.weights(np.arange(4), beta=0.4), (share / share[0]) ** -0.4, rtol=1e-6)
    # a new row gets the largest priority seen
    buffer.add([fragment(2, 0, 1)])
    assert buffer.tree is not None
    assert buffer.tree.get(np.array([4])).item() == pytest.approx(6.0)


def test_weights_are_rllibs() -> None:
    """RLlib: (p_i N)^-beta over the largest such weight."""
    buffer = replay(alpha=0.6)
    buffer.add([fragment(1, 0, 50)])
    errors = np.random.default_rng(0).random(50)
    buffer.update_priorities(np.arange(50), errors)
    p = errors**0.6 / (errors**0.6).sum()
    expected = (p * 50) ** -0.4 / (p.min() * 50) ** -0.4
    np.testing.assert_allclose(buffer.weights(np.arange(50), 0.4), expected, rtol=1e-5)


def test_uniform_draws_reach_every_row() -> None:
    buffer = replay()
    buffer.add([fragment(1, 0, 20)])
    rows = buffer.draw(64, 30)
    assert rows.shape == (30, 64)
    np.testing.assert_allclose(np.bincount(rows.ravel(), minlength=20) / rows.size, 1 / 20, atol=0.015)


# Spaces, images, sequences, joint rows --------------------------------------------------------------------


def test_nested_spaces_come_back_nested() -> None:
    space = gym.spaces.Dict(
        image=gym.spaces.Box(0, 255, (4, 4, 3), np.uint8),
        pair=gym.spaces.Tuple((gym.spaces.Discrete(5), gym.spaces.MultiDiscrete([2, 3]))),
        mask=gym.spaces.MultiBinary(3),
        wide=gym.spaces.Box(-1, 1, (2,), np.float64),
    )
    action = gym.spaces.Tuple((gym.spaces.Discrete(2), gym.spaces.Box(-1, 1, (2,))))
    buffer = Replay(50, {"obs": space}, {"actions": action}, seed=0)
    values = [space.sample() for _ in range(4)]
    acts = [action.sample() for _ in range(3)]
    stacked = {
        "image": np.stack([v["image"] for v in values]),
        "pair": tuple(np.stack([v["pair"][i] for v in values]) for i in range(2)),
        "mask": np.stack([v["mask"] for v in values]),
        "wide": np.stack([v["wide"] for v in values]),
    }
    flags = np.zeros(3, bool)
    steps = {
        "actions": tuple(np.stack([a[i] for a in acts]) for i in range(2)),
        "rewards": np.ones(3), "terminateds": flags, "truncateds": flags,
    }  # fmt: skip
    buffer.add([Fragment("e", 0, 3, {"obs": stacked}, steps, False)])
    batch = buffer.transitions(np.array([2, 0]))
    assert batch["obs"]["image"].dtype == np.uint8
    assert batch["obs"]["wide"].dtype == np.float32
    np.testing.assert_array_equal(batch["obs"]["image"][0], values[2]["image"])
    np.testing.assert_array_equal(batch["new_obs"]["image"][0], values[3]["image"])
    np.testing.assert_array_equal(batch["new_obs"]["pair"][1][1], values[1]["pair"][1])
    np.testing.assert_array_equal(batch["actions"][1][0], acts[2][1])


def test_images_are_stored_once() -> None:
    image = gym.spaces.Box(0, 255, (84, 84, 4), np.uint8)
    buffer = Replay(2000, {"obs": image}, {"actions": ACTION}, seed=0)
    assert buffer.nbytes < 2 * 2000 * 84 * 84 * 4  # obs and next obs would take this much alone


def test_sequences_stop_at_the_end_of_an_episode() -> None:
    buffer = replay()
    buffer.add([fragment(1, 0, 3), fragment(2, 0, 2, "terminated")])
    buffer.add([fragment(1, 3, 2, "truncated")])
    batch = buffer.sequences(np.array([1, 3]), length=6)
    np.testing.assert_array_equal(batch["loss_mask"], [[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]])
    np.testing.assert_array_equal(batch["obs"][0, :, 0], [1001, 1002, 1003, 1004, 0, 0])
    np.testing.assert_array_equal(batch["new_obs"][1, :, 0], [2001, 2002, 0, 0, 0, 0])
    np.testing.assert_array_equal(batch["terminateds"][1], [False, True, False, False, False, False])


def test_recurrent_states_are_those_before_and_after_the_first_step() -> None:
    state = Column.like("state_in", {"h": np.zeros(2)})
    buffer = Replay(50, {"obs": OBS, "state_in": state}, {"actions": ACTION}, seed=0)
    base = fragment(1, 0, 3)
    states = {**base.states, "state_in": {"h": np.arange(8, dtype=np.float32).reshape(4, 2)}}
    buffer.add([Fragment("e", 0, 3, states, base.steps, False)])
    batch = buffer.sequences(np.array([1, 2]), length=2)
    np.testing.assert_array_equal(batch["state_in"]["h"], [[2, 3], [4, 5]])
    np.testing.assert_array_equal(batch["next_state_in"]["h"], [[4, 5], [6, 7]])


def joint_fragment(rewards: Any, terminated: Any, truncated: Any) -> Fragment:
    rewards = np.asarray(rewards, np.float32)
    length = len(rewards)
    return Fragment(
        "e", 0, length, {"obs": np.arange(length + 1, dtype=np.float32)[:, None]},
        {"actions": np.zeros(length, int), "rewards": rewards, "terminateds": np.asarray(terminated, bool),
         "truncateds": np.asarray(truncated, bool)}, False,
    )  # fmt: skip


def test_joint_windows_keep_agents_apart() -> None:
    """Agent 1 terminates at step 1, agent 0 goes on: only agent 1's target stops there."""
    buffer = Replay(50, {"obs": OBS}, {"actions": ACTION}, agents=2, seed=0)
    none = [[0, 0]] * 4
    buffer.add([joint_fragment([[1, 10], [2, 20], [3, 0], [4, 0]], [[0, 0], [0, 1], [0, 0], [0, 0]], none)])
    batch = buffer.transitions(np.array([0]), n_step=3, gamma=0.5)
    assert batch["rewards"].tolist() == [[1 + 1 + 0.75, 10 + 10]]
    assert batch["terminateds"].tolist() == [[False, True]]
    assert batch["new_obs"].tolist() == [[3.0]]


def test_joint_windows_end_where_an_agent_is_truncated() -> None:
    buffer = Replay(50, {"obs": OBS}, {"actions": ACTION}, agents=2, seed=0)
    none = [[0, 0]] * 4
    buffer.add([joint_fragment([[1, 1]] * 4, none, [[0, 0], [0, 1], [0, 0], [0, 0]])])
    batch = buffer.transitions(np.array([0]), n_step=4, gamma=1.0)
    assert batch["n_step"].tolist() == [2.0]
    assert batch["new_obs"].tolist() == [[2.0]]
    assert batch["truncateds"].tolist() == [[False, True]]


# State ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [None, 0.6])
def test_a_restored_buffer_goes_on_bit_for_bit(alpha: float | None) -> None:
    def fill(buffer: Replay, first: int, last: int) -> None:
        for e in range(first, last):
            buffer.add([fragment(e, 0, 5), fragment(e, 5, 3, "terminated" if e % 2 else "")])
            if alpha:
                rows = buffer.draw(8)[0]
                buffer.update_priorities(rows, buffer.rng.random(8))

    one, other = replay(50, alpha=alpha), replay(50, alpha=alpha)
    fill(one, 0, 9)
    state = one.get_state()
    saved = {"arrays": {k: v.copy() for k, v in state["arrays"].items()}, "counters": state["counters"]}
    other.set_state(saved)
    for buffer in (one, other):
        fill(buffer, 9, 20)
        # the episode that was open when the state was taken is continued
        buffer.add([fragment(8, 8, 2, "terminated")])
    a, b = one.get_state(), other.get_state()
    assert a["counters"] == b["counters"]
    for name in a["arrays"]:
        if not name.startswith("tail"):
            np.testing.assert_array_equal(a["arrays"][name], b["arrays"][name])
    rows = one.draw(32, 4)
    np.testing.assert_array_equal(rows, other.draw(32, 4))
    x, y = one.transitions(rows, n_step=3), other.transitions(rows, n_step=3)
    for name in x:
        np.testing.assert_array_equal(x[name], y[name])


def test_a_state_that_does_not_fit_is_refused() -> None:
    state = replay(50).get_state()
    with pytest.raises(ValueError, match=r"got capacity 50 .* expected capacity 60"):
        replay(60).set_state(state)
    with pytest.raises(ValueError, match="is uniform, expected prioritized"):
        replay(50, alpha=0.6).set_state(state)


# Bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "space",
    [gym.spaces.Text(5), gym.spaces.Sequence(OBS), gym.spaces.Graph(OBS, None)],
    ids=lambda s: type(s).__name__,
)
def test_a_space_the_buffer_cannot_hold_is_named(space: gym.Space) -> None:
    nested = gym.spaces.Dict(part=gym.spaces.Tuple((OBS, space)))
    with pytest.raises(
        ValueError, match=rf"cannot hold obs.part.1: got {type(space).__name__} .* expected Box"
    ):
        Replay(10, {"obs": nested}, {"actions": ACTION})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", ["obs", "rewards"])
def test_nan_is_named_and_nothing_is_written(value: float, column: str) -> None:
    buffer = replay()
    buffer.add([fragment(1, 0, 3)])
    bad = fragment(2, 10, 5)
    (bad.states if column == "obs" else bad.steps)[column][3] = value
    with pytest.raises(EnvError, match=rf"episode e2, step 13: {column} is .*(nan|inf).*expected finite"):
        buffer.add([fragment(3, 0, 2), bad])
    assert len(buffer) == 3
    assert np.isfinite(buffer.transitions(buffer.draw(64)[0])["obs"]).all()


def test_a_wrong_shape_is_named() -> None:
    buffer = replay()
    bad = fragment(1, 0, 3)
    with pytest.raises(ValueError, match=r"episode e1, steps 0-2: obs has shape \(4, 2\), expected \(4, 1\)"):
        buffer.add([Fragment("e1", 0, 3, {"obs": np.zeros((4, 2), np.float32)}, bad.steps, False)])


def test_a_missing_column_is_named() -> None:
    bad = fragment(1, 0, 3)
    with pytest.raises(ValueError, match="column 'actions' is missing"):
        replay().add([Fragment("e1", 0, 3, bad.states, {"rewards": bad.steps["rewards"]}, False)])


def test_an_empty_buffer_says_so() -> None:
    with pytest.raises(ValueError, match="empty replay buffer"):
        replay().draw(4)


def test_further_columns_take_their_shape_from_the_first_fragment() -> None:
    buffer = Replay(50, {"obs": OBS}, {"actions": ACTION, "infos/label": None}, seed=0)
    base = fragment(1, 0, 3)
    buffer.add(
        [Fragment("e", 0, 3, base.states, {**base.steps, "infos/label": np.array([[4, 5]] * 3)}, False)]
    )
    assert buffer.transitions(np.array([1]))["infos/label"].tolist() == [[4, 5]]
    restored = Replay(50, {"obs": OBS}, {"actions": ACTION, "infos/label": None}, seed=0)
    restored.set_state(buffer.get_state())
    assert restored.transitions(np.array([1]))["infos/label"].tolist() == [[4, 5]]


def test_memory_of_a_cartpole_buffer_is_below_the_raw_arrays() -> None:
    space = gym.spaces.Box(-1, 1, (4,))
    buffer = Replay(100_000, {"obs": space}, {"actions": gym.spaces.Discrete(2)}, alpha=0.6)
    raw = 100_000 * (4 * 4 * 2 + 8 + 4 + 1 + 1)  # obs, next obs, action, reward, two flags
    assert buffer.nbytes <= 1.2 * raw


def test_a_capacity_beyond_the_memory_is_said_in_bytes() -> None:
    with pytest.raises(
        MemoryError, match=r"replay of 100,000,000,000,000 steps: obs alone takes 400,000\.0 GB"
    ):
        replay(10**14)

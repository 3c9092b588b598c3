"""Columnar replay: memory of a CartPole buffer of 1e6 rows, time of a draw from it, and growth with its size.

    python benchmarks/offpolicy_replay.py

Bars: memory at most 1.2 x the raw arrays; 1,024 of 1e6 rows in under 1 ms; time per 10,000 env steps (add,
and draw 0.5 minibatches of 64 per step) at 1e5 and at 1e6 rows equal within 10 %, together with what the
updates cost.
"""

from __future__ import annotations

import os
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gymnasium as gym
import numpy as np

from rlkit.replay import Fragment, Replay

ROWS = 1_000_000
ENVS, LENGTH = 16, 16
STEPS = 10_000


def buffer(capacity: int, alpha: float | None) -> Replay:
    obs = gym.spaces.Box(-np.inf, np.inf, (4,))
    return Replay(capacity, {"obs": obs}, {"actions": gym.spaces.Discrete(2)}, alpha=alpha, seed=0)


def fragments(count: int, length: int, start: int, rng: np.random.Generator) -> list[Fragment]:
    return [
        Fragment(
            f"e{i}", start, length, {"obs": rng.random((length + 1, 4), np.float32)},
            {"actions": rng.integers(0, 2, length), "rewards": np.ones(length, np.float32),
             "terminateds": np.zeros(length, bool), "truncateds": np.zeros(length, bool)}, False,
        )
        for i in range(count)
    ]  # fmt: skip


def fill(replay: Replay, rows: int, rng: np.random.Generator) -> None:
    start = 0
    while replay.ring.total < rows:
        replay.add(fragments(64, 250, start, rng))
        start += 250


def call(replay: Replay, rng: np.random.Generator) -> None:
    """One training step of 256 env steps and 128 minibatches of 64."""
    replay.add(fragments(ENVS, LENGTH, replay.ring.total, rng))
    if replay.tree is None:
        replay.transitions(replay.draw(64, 128))
    else:
        for _ in range(128):
            rows = replay.draw(64)
            replay.transitions(rows)
            replay.weights(rows, 0.4)
            replay.update_priorities(rows, rng.random(64))


def seconds_per_10k(replay: Replay, rng: np.random.Generator) -> float:
    begin = time.process_time()
    for _ in range(STEPS // (ENVS * LENGTH)):
        call(replay, rng)
    return time.process_time() - begin


def main() -> None:
    rng = np.random.default_rng(0)
    raw = ROWS * (4 * 4 * 2 + 8 + 4 + 1 + 1)
    print(f"raw arrays of 1e6 rows (obs, next obs, action, reward, two flags): {raw / 1e6:.1f} MB")
    for name, alpha in (("uniform", None), ("prioritized", 0.6)):
        big, small = buffer(ROWS, alpha), buffer(ROWS, alpha)
        fill(big, ROWS, rng)
        fill(small, ROWS // 10, rng)
        ratio = big.nbytes / raw
        print(
            f"{name}: {big.nbytes / 1e6:.1f} MB = {ratio:.2f} x (bar: at most 1.2) {'PASS' if ratio <= 1.2 else 'FAIL'}"
        )
        times = []
        for _ in range(300):
            begin = time.perf_counter()
            big.sample(1024, beta=0.4)
            times.append(time.perf_counter() - begin)
        draw = statistics.median(times) * 1e3
        print(f"{name}: 1,024 of 1e6 rows in {draw:.2f} ms (bar: under 1) {'PASS' if draw < 1 else 'FAIL'}")
        growth: dict[int, list[float]] = {ROWS // 10: [], ROWS: []}
        for _ in range(5):
            for replay in (small, big):
                growth[ROWS if replay is big else ROWS // 10].append(seconds_per_10k(replay, rng))
        low, high = (statistics.median(growth[size]) for size in sorted(growth))
        # 5,000 updates of 1.5 ms belong to the same 10,000 env steps (benchmarks/offpolicy_update.py)
        whole = (high + 7.5) / (low + 7.5)
        print(
            f"{name}: replay CPU per 10,000 env steps {low:.2f} s at 1e5 rows, {high:.2f} s at 1e6; with the updates "
            f"x {whole:.3f} (bar: within 10 %) {'PASS' if whole <= 1.1 else 'FAIL'}"
        )


if __name__ == "__main__":
    main()

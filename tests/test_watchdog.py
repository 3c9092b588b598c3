"""An environment that blocks is named with its method, its seconds and the line that it is in."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
import time
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from rlkit.envs import checked
from rlkit.envs.watchdog import watching
from rlkit.errors import EnvError

LIMIT_S = 0.5


class Blocks(gym.Env):
    """Does what it is told in the calls it is told."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, how: Any, at: str = "step"):
        self.how, self.at = how, at

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        if self.at == "reset":
            self.how()
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        if self.at == "step":
            self.how()
        return np.zeros(1, np.float32), 0.0, False, False, {}

    def render(self) -> None:
        if self.at == "render":
            self.how()

    def close(self) -> None:
        if self.at == "close":
            self.how()


def sleeps() -> None:
    time.sleep(10_000)


def spins() -> None:
    while True:
        pass


def waits() -> None:
    queue.Queue().get()


def catches_everything() -> None:
    while True:
        try:
            time.sleep(0.01)
        except Exception:
            continue


def _play(env: gym.Env) -> None:
    env.reset()
    env.step(0)


@pytest.mark.parametrize("how", [sleeps, spins, waits, catches_everything])
@pytest.mark.parametrize("at", ["step", "reset"])
def test_a_blocked_call_ends_with_one_message(how: Any, at: str) -> None:
    env = checked(Blocks(how, at), name="blocks", limit_s=LIMIT_S)
    with pytest.raises(
        EnvError, match=rf"^blocks: {at}\(\) of episode 1 has not returned for [01] s; it is in .*:\d+ \("
    ) as caught:
        _play(env)
    assert "env_timeout_s" in str(caught.value)
    frames = []
    trace = caught.value.__cause__.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert how.__name__ in frames
    env.unwrapped.how = lambda: None
    _play(env)  # it can be used again


@pytest.mark.parametrize("how", [sleeps, waits])
def test_a_close_that_blocks_or_raises_is_named(how: Any) -> None:
    env = checked(Blocks(how, "close"), name="blocks", limit_s=LIMIT_S)
    with pytest.raises(EnvError, match=r"^blocks: close\(\) has not returned for [01] s; it is in "):
        env.close()
    env.unwrapped.how = lambda: 1 / 0
    with pytest.raises(EnvError, match=r"^blocks: close\(\) raised ZeroDivisionError: division by zero"):
        env.close()


def test_a_render_that_blocks_or_raises_is_named() -> None:
    env = checked(Blocks(sleeps, "render"), name="blocks", limit_s=LIMIT_S)
    env.reset()
    with pytest.raises(
        EnvError, match=r"^blocks: render\(\) of episode 1 has not returned for [01] s; it is in "
    ):
        env.render()
    env.unwrapped.how = lambda: 1 / 0
    env.step(0)
    with pytest.raises(
        EnvError, match=r"^blocks: render\(\) in step 1 of episode 1 raised ZeroDivisionError"
    ):
        env.render()


def test_an_environment_left_open_does_not_hold_the_end_of_python() -> None:
    """Gymnasium's vectors close theirs when Python ends, and no thread can be started then."""
    program = (
        "import gymnasium as gym; from rlkit.envs import checked; make = lambda: checked(gym.make('CartPole-v1'), "
        "limit_s=300.0); envs = gym.vector.SyncVectorEnv([make]); envs.reset()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_constructor_that_blocks_is_named() -> None:
    with (
        pytest.raises(
            EnvError, match=r"^slow/Env-v0: __init__\(\) has not returned .*\(sleeps: time.sleep\(10_000\)\)"
        ),
        watching("slow/Env-v0", LIMIT_S),
    ):
        sleeps()


def test_an_environment_in_another_thread_is_watched() -> None:
    found: list[BaseException] = []

    def play() -> None:
        try:
            checked(Blocks(spins, "reset"), name="blocks", limit_s=LIMIT_S).reset()
        except EnvError as error:
            found.append(error)

    thread = threading.Thread(target=play, daemon=True)
    thread.start()
    thread.join(20)
    assert "reset() of episode 1 has not returned" in str(found[0])


def test_many_calls_that_return_are_no_call_that_does_not() -> None:
    env = checked(Blocks(lambda: time.sleep(LIMIT_S / 4)), name="slow", limit_s=LIMIT_S)
    env.reset()
    for _ in range(12):
        env.step(0)


NATIVE = """
import ctypes
import rlkit.envs.watchdog as watchdog
watchdog.GRACE_S = 0.3
libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(256)
libc.pthread_mutex_init(mutex, None)
with watchdog.watching("native", 0.3):
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a deadlock of pthread_mutex")
def test_native_code_that_hears_nothing_ends_its_process_with_the_stack() -> None:
    done = subprocess.run([sys.executable, "-c", NATIVE], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "native: __init__() has not returned" in done.stderr
    assert 'File "<string>", line 9' in done.stderr

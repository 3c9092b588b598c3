"""Returns of different environments on one scale: 0 is a policy that acts at random, 1 a published or solved return."""

from __future__ import annotations

from collections.abc import Sequence

from rlkit.errors import UsageError

# Environment -> (random, reference). Random: uniform actions, mean of 1,000 episodes on seeds 0 to 999
# (`python benchmarks/random_returns.py`). Reference: where episodes are cut or the environment's own threshold for
# `solved`; where it has none, rl-baselines3-zoo's table (one run): Pendulum SAC -157.0, Acrobot PPO -73.5.
SCORES: dict[str, tuple[float, float]] = {
    "CartPole-v1": (22.6, 475.0),
    "Acrobot-v1": (-498.6, -73.5),
    "MountainCar-v0": (-200.0, -110.0),
    "Pendulum-v1": (-1218.9, -157.0),
}


class Scores(dict[str, tuple[float, float]]):
    """Environment -> the returns that count as 0 and 1. `given` are those that the user named."""

    given: tuple[str, ...] = ()


def scores(words: Sequence[str] = ()) -> Scores:
    """Return `SCORES` with what is given as `ENV=LOW:HIGH`.

    Raises:
        UsageError: another form, or a lowest return that is the highest as well.
    """
    found = Scores(SCORES)
    for word in words:
        env, _, bounds = word.rpartition("=")
        low, _, high = bounds.partition(":")
        try:
            found[env] = float(low), float(high)
        except ValueError:
            env = ""
        if not env or not abs(found[env][1] - found[env][0]) > 0:
            raise UsageError(
                f"--score {word}: expected ENV=LOW:HIGH, the returns that count as 0 and 1: CartPole-v1=22.6:475"
            )
        found.given += (env,)
    return found

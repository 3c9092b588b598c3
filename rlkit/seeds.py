"""One seed, many independent random streams.

`stream(seed, purpose, *where)` is a `np.random.SeedSequence` with a spawn key: two streams share nothing unless all of
seed, purpose and where are equal. Sums such as `seed + runner + environment` do share: environment 1 of seed 0 is
environment 0 of seed 1.

| purpose | where | what draws from it |
|---|---|---|
| `environment`, `evaluation environment` | runner, env steps, start, environment | an environment, from its reset on |
| `runner`, `evaluation runner` | runner, env steps | torch, numpy and random in the process of an env runner |
| `weights` | | the first weights of the networks, equal in every learner |
| `learner` | learner | torch, numpy and random of a learner while it learns |
| `replay` | module | minibatches |
| `data` | | minibatches from recorded episodes |
| `exploration` | runner, env steps, module | random actions and noise |
| `connector`, `evaluation connector` | runner, env steps, connector | whose features DRON's placebo shows |
| `bonus` | module | fixed networks and projections of intrinsic rewards, equal in every runner |
| `hindsight` | runner, env steps | goals |
| `curriculum`, `evaluation curriculum` | life, births, push, runner, environment | tasks |
| `search` | | random draws of search spaces |

`env steps` are those of the run when the stream begins: a resumed run and a runner that replaces a dead one go on with
new streams instead of those they began with.
"""

from __future__ import annotations

import random
import zlib
from typing import Any

import numpy as np

Where = int | str


def stream(seed: int | None, purpose: str, *where: Where) -> np.random.SeedSequence:
    """Return the seed of one random stream; `np.random.default_rng` takes it.

    Args:
        seed: of the run, at least 0; None draws one from the operating system.
        purpose: see the module's docstring.
        where: which of the streams with this purpose: numbers at least 0, or names.
    """
    if seed is None:
        return np.random.SeedSequence()
    key = [zlib.crc32(one.encode()) if isinstance(one, str) else int(one) for one in (purpose, *where)]
    return np.random.SeedSequence(seed, spawn_key=key)


def number(seed: int | None, purpose: str, *where: Where) -> int:
    """Return a stream as an integer in [0, 2^31), which every environment and library takes as a seed."""
    return int(stream(seed, purpose, *where).generate_state(1)[0]) >> 1


def of_runner(env_runner: Any, purpose: str, *where: Where) -> np.random.Generator:
    """Return a generator that no other env runner has, nor this one after a restore; seeded if the config is."""
    here = (env_runner.worker_index or 0, env_runner.num_env_steps_sampled_lifetime)
    return np.random.default_rng(stream(env_runner.config.seed, purpose, *here, *where))


def seed_process(seed: int) -> None:
    """Seed the global generators of torch, numpy and random, which modules, environments and libraries draw from."""
    import torch

    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)

"""`tune: {search: {type: optuna, space: default}}`: a search space to start from.

Ranges are those of rl-baselines3-zoo 2.9.2 (rl_zoo3/hyperparams_opt.py; github.com/DLR-RM/rl-baselines3-zoo) for the
same quantity, with two changes: its log-uniform 1 - gamma and 1 - lambda are lists here, because a recipe names gamma
itself; and sizes are lists inside its ranges that fit each other whatever is drawn. What the zoo searches beside these
(network, noise, train frequency) stays as the recipe says. MADDPG and MATD3 take the ranges of TD3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlkit.recipe.problems import Path, Report
from rlkit.recipe.spaces import SearchSpace

LR = SearchSpace("loguniform", (1e-5, 2e-3))
TAU = SearchSpace("loguniform", (1e-3, 0.08))
GAMMA = SearchSpace("choice", (0.9, 0.95, 0.98, 0.99, 0.995, 0.999))
BATCH = SearchSpace("choice", (32, 64, 128, 256, 512))
TD3 = {"actor_lr": LR, "critic_lr": LR, "gamma": GAMMA, "tau": TAU}
DEFAULT_SPACES: dict[str, dict[str, SearchSpace]] = {  # algorithm -> argument of config.training -> its space
    "PPO": {
        "lr": LR,
        "gamma": GAMMA,
        "lambda_": SearchSpace("choice", (0.8, 0.9, 0.92, 0.95, 0.98, 0.99, 1.0)),
        "entropy_coeff": SearchSpace("loguniform", (1e-8, 0.1)),
        "clip_param": SearchSpace("choice", (0.1, 0.2, 0.3, 0.4)),
        "num_epochs": SearchSpace("choice", (1, 5, 10, 20)),
        "grad_clip": SearchSpace("uniform", (0.3, 2.0)),
        "train_batch_size_per_learner": SearchSpace("choice", (256, 512, 1024, 2048)),
        "minibatch_size": SearchSpace("choice", (32, 64, 128, 256)),
    },
    "DQN": {
        "lr": LR,
        "gamma": GAMMA,
        "train_batch_size_per_learner": BATCH,
        "target_network_update_freq": SearchSpace("choice", (100, 500, 1000, 5000, 10000)),
    },
    "SAC": {
        "actor_lr": LR, "critic_lr": LR, "alpha_lr": LR, "gamma": GAMMA, "tau": TAU,
        "train_batch_size_per_learner": BATCH,
    },
    "MADDPG": TD3,
    "MATD3": TD3,
}  # fmt: skip


def fill_in(data: dict[str, Any], report: Report) -> None:
    """Put the algorithm's default space into `config.training` where `tune.search.space` asks for it.

    A value that the recipe fixes is searched as well; a search space of the recipe's own stays.
    """
    tune = data.get("tune")
    search = tune.get("search") if isinstance(tune, Mapping) else None
    if not isinstance(search, dict) or "space" not in search:
        return
    word = search.pop("space")
    path: Path = ("tune", "search", "space")
    if word != "default":
        fix = "write space: default, or search spaces such as config: {training: {lr: !loguniform [1e-5, 1e-3]}}"
        report.add(path, "the only space with a name is `default`", fix, got=word)
        return
    algorithm = str(data.get("algorithm", ""))
    spaces = DEFAULT_SPACES.get(algorithm.removeprefix("rllib/"))
    if spaces is None:
        known = ", ".join(DEFAULT_SPACES)
        fix = "write search spaces of your own, such as config: {training: {lr: !loguniform [1e-5, 1e-3]}}"
        report.add(path, f"{algorithm} has no default space; {known} have", fix)
        return
    config = data.setdefault("config", {})
    training = config.setdefault("training", {}) if isinstance(config, dict) else None
    if isinstance(training, dict):
        training.update({k: v for k, v in spaces.items() if not isinstance(training.get(k), SearchSpace)})

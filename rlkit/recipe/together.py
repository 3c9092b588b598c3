"""Values of `config` that are each allowed, and do not fit together. Every message quotes both numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlkit.recipe.limits import section
from rlkit.recipe.problems import Report
from rlkit.recipe.signatures import Config
from rlkit.recipe.spaces import candidates


def _numbers(value: Any) -> list[float]:
    return [x for x in candidates(value) if isinstance(x, int | float) and not isinstance(x, bool)]


class _Values:
    """Values of a recipe's config, with RLlib's defaults where it says nothing."""

    def __init__(self, data: Mapping[str, Any], config: Config):
        self.data, self.config = data, config

    def given(self, method: str, argument: str) -> bool:
        return argument in section(self.data, "config", method)

    def get(self, method: str, argument: str) -> Any:
        values = section(self.data, "config", method)
        return values[argument] if argument in values else self.config.default(method, argument)

    def numbers(self, method: str, argument: str) -> list[float]:
        return _numbers(self.get(method, argument))

    def one(self, method: str, argument: str, otherwise: float) -> float:
        found = self.numbers(method, argument)
        return min(found) if found else otherwise

    def batch(self) -> tuple[str, list[float]]:
        """Return the argument that sets the batch of one learner, and its candidates."""
        per_learner = self.numbers("training", "train_batch_size_per_learner")
        if per_learner:
            return "train_batch_size_per_learner", per_learner
        learners = max(1, int(self.one("learners", "num_learners", 0)))
        return "train_batch_size", [size / learners for size in self.numbers("training", "train_batch_size")]


def iteration_steps(data: Mapping[str, Any], config: Config) -> float:
    """Return the least env steps that one iteration takes, as far as the config says; 0 where it does not."""
    values = _Values(data, config)
    steps = values.one("reporting", "min_sample_timesteps_per_iteration", 0)
    if "PPOConfig" in config.line and "APPOConfig" not in config.line:
        _, batch = values.batch()
        steps = max(steps, min(batch, default=0) * max(1, values.one("learners", "num_learners", 0)))
    return steps


def check_together(data: Mapping[str, Any], config: Config, report: Report) -> None:
    """Report values that RLlib would refuse at the start, or that make the run pointless."""
    values = _Values(data, config)
    name, batch = values.batch()
    minibatch = values.numbers("training", "minibatch_size")
    if batch and minibatch and max(minibatch) > min(batch):
        argument = "minibatch_size" if values.given("training", "minibatch_size") else name
        report.add(
            ("config", "training", argument),
            f"minibatch_size {max(minibatch):g} is larger than the batch of a learner, {name} {min(batch):g}",
            fix=f"write a minibatch_size of at most {min(batch):g}, or a larger {name}",
        )
    if "SACConfig" in config.line and section(data, "config", "training").get("lr") is not None:
        report.add(
            ("config", "training", "lr"),
            f"{config.algorithm} has three learning rates and refuses lr",
            fix="write actor_lr, critic_lr and alpha_lr",
            key=True,
        )
    if "rlkit.MADDPGConfig" in config.line and section(data, "config", "training").get("lr") is not None:
        report.add(
            ("config", "training", "lr"),
            f"{config.algorithm} has two learning rates and refuses lr",
            fix="write actor_lr and critic_lr",
            key=True,
        )
    fragment, steps = values.get("env_runners", "rollout_fragment_length"), values.get("training", "n_step")
    longest = max(
        (max(x) if isinstance(x, list) and x else x for x in candidates(steps) if _countable(x)), default=0
    )
    if (
        values.given("env_runners", "rollout_fragment_length")
        and config.default("training", "n_step") is not None
    ):
        shortest = min(_numbers(fragment), default=longest)
        if longest > shortest:
            report.add(
                ("config", "env_runners", "rollout_fragment_length"),
                f"a fragment of {shortest:g} steps is shorter than n_step {longest:g}",
                fix=f"write rollout_fragment_length: {longest:g} or auto",
            )
    _check_batch_fits_fragments(values, config, report)
    _check_atoms(values, report)
    buffer = values.get("training", "replay_buffer_config")
    capacity = _numbers(buffer.get("capacity")) if isinstance(buffer, Mapping) else []
    if capacity and batch and max(batch) > min(capacity) >= 1:
        where = "replay_buffer_config" if values.given("training", "replay_buffer_config") else name
        report.add(
            ("config", "training", where, *(["capacity"] if where == "replay_buffer_config" else [])),
            f"the replay buffer holds {min(capacity):g} steps, the batch takes {max(batch):g}",
            fix=f"write a capacity above {max(batch):g}",
        )
    _check_learning_starts(values, capacity, report)


def _countable(value: Any) -> bool:
    items = value if isinstance(value, list) else [value]
    return bool(items) and all(isinstance(x, int) and not isinstance(x, bool) for x in items)


def _check_batch_fits_fragments(values: _Values, config: Config, report: Report) -> None:
    """PPO refuses a batch that fragments cannot make up to within 10 % (AlgorithmConfig.validate, RLlib 2.60)."""
    if "PPOConfig" not in config.line or not values.given("env_runners", "rollout_fragment_length"):
        return
    fragments = values.numbers("env_runners", "rollout_fragment_length")
    name, batch = values.batch()
    runners = max(1, int(values.one("env_runners", "num_env_runners", 0)))
    envs = max(1, int(values.one("env_runners", "num_envs_per_env_runner", 1)))
    if len(fragments) != 1 or len(batch) != 1 or fragments[0] < 1 or batch[0] < 1:
        return
    total = batch[0] * max(1, int(values.one("learners", "num_learners", 0)))
    round_size = runners * envs * fragments[0]
    reached = round_size * -(-total // round_size)
    if reached - total > 0.1 * total:
        report.add(
            ("config", "env_runners", "rollout_fragment_length"),
            f"{runners} runners x {envs} environments x {fragments[0]:g} steps give {reached:g}, "
            f"not within 10 % of {name} {total:g}",
            fix=f"write rollout_fragment_length: auto, or {max(1, int(total // (envs * runners)))}",
        )


def _check_atoms(values: _Values, report: Report) -> None:
    low, high = values.numbers("training", "v_min"), values.numbers("training", "v_max")
    atoms = values.numbers("training", "num_atoms")
    if atoms and max(atoms) > 1 and low and high and max(low) >= min(high):
        where = next((a for a in ("v_min", "v_max") if values.given("training", a)), "num_atoms")
        report.add(
            ("config", "training", where),
            f"v_min {max(low):g} is not below v_max {min(high):g}",
            fix="write v_min and v_max around the returns to expect",
        )
    drop, quantiles = (
        values.numbers("training", "top_quantiles_to_drop_per_net"),
        values.numbers("training", "n_quantiles"),
    )
    if drop and quantiles and max(drop) >= min(quantiles):
        where = next(
            (a for a in ("top_quantiles_to_drop_per_net", "n_quantiles") if values.given("training", a)),
            "n_quantiles",
        )
        report.add(
            ("config", "training", where),
            f"top_quantiles_to_drop_per_net {max(drop):g} leaves none of n_quantiles {min(quantiles):g}",
            fix=f"write top_quantiles_to_drop_per_net of at most {int(min(quantiles)) - 1}",
        )


def _check_learning_starts(values: _Values, capacity: list[float], report: Report) -> None:
    start = values.numbers("training", "num_steps_sampled_before_learning_starts")
    limit = section(values.data, "stop").get("env_steps")
    if (
        not start
        or isinstance(limit, bool)
        or not isinstance(limit, int | float)
        or len(section(values.data, "stop")) > 1
    ):
        return
    if min(start) >= limit > 0:
        given = values.given("training", "num_steps_sampled_before_learning_starts")
        report.add(
            ("config", "training", "num_steps_sampled_before_learning_starts")
            if given
            else ("stop", "env_steps"),
            f"learning starts after {min(start):g} env steps, the run stops at {limit:g}",
            fix="write a larger stop.env_steps, or a smaller num_steps_sampled_before_learning_starts",
        )

"""What recipes must know of PPO."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rlkit.algos.rules import SEQUENCE, Fault, Rules, Settings, candidates, keeps_state

# words of `training` that the learner reads in columns, or obeys in the update from them; RLlib's pipeline has neither
ON_COLUMNS = ("normalize_rewards", "stop_kl", "vf_clip_range")


def iteration_steps(settings: Settings) -> float:
    """Return the env steps of one iteration: the batches of all learners."""
    _, batch = settings.batch()
    return min(batch, default=0) * max(1, settings.least("learners", "num_learners"))


def check_ppo(settings: Settings) -> Iterator[Fault]:
    """Yield what is wrong with fragments, sequences, critics, and what needs one agent, one learner, remote runners."""
    yield from check_fragments(settings)
    yield from check_sequences(settings)
    yield from check_critic(settings)
    yield from check_learners(settings)
    overlaps = True in candidates(settings.get("training", "overlap_sampling"))
    if overlaps and not settings.least("env_runners", "num_env_runners", 1):
        yield (
            ("config", "training", "overlap_sampling"),
            "overlap_sampling needs remote env runners, and num_env_runners is 0",
            "write num_env_runners: 1 or more, or leave overlap_sampling out",
        )


def check_sequences(settings: Settings) -> Iterator[Fault]:
    """A sequence cannot be longer than the fragment it is cut from."""
    length = settings.model.get("max_seq_len", SEQUENCE)
    if not keeps_state(settings.model) or not isinstance(length, int):
        return
    name, batch = settings.batch()
    runners = max(1, int(settings.least("env_runners", "num_env_runners")))
    envs = max(1, int(settings.least("env_runners", "num_envs_per_env_runner", 1)))
    fragments = settings.numbers("env_runners", "rollout_fragment_length")
    shared = f"{name} over {runners} runners x {envs} environments"
    if not fragments and batch and settings.get("env_runners", "batch_mode") == "truncate_episodes":
        total = min(batch) * max(1, int(settings.least("learners", "num_learners")))
        fragments = [max(1.0, total // (runners * envs))]
    if fragments and min(fragments) < length:
        given = settings.given("env_runners", "rollout_fragment_length")
        source = "rollout_fragment_length" if given else shared
        yield (
            ("model", "max_seq_len"),
            f"max_seq_len {length} is longer than a fragment of {min(fragments):g} steps ({source}): sequences end "
            "where a fragment does",
            f"write max_seq_len: {min(fragments):g}, or fragments of at least {length} steps",
        )


def check_critic(settings: Settings) -> Iterator[Fault]:
    """A centralised critic needs several agents, and one learner."""
    critic = settings.get("training", "critic")
    if "centralized" not in (critic.values() if isinstance(critic, Mapping) else (critic,)):
        for name, default in (("critic_input", "observations"), ("normalize_values", None)):
            if settings.get("training", name) not in (None, default):
                yield (
                    ("config", "training", name),
                    f"{name} is for centralised critics, here are none",
                    "write critic: centralized, or remove it",
                )
        return
    if settings.single_agent:
        yield (
            ("config", "training", "critic"),
            f"a centralised critic needs several agents, {settings.env} has one",
            "write critic: local, or use an environment of several agents",
        )
    learners = settings.least("learners", "num_learners")
    if learners > 1:
        yield (
            ("config", "learners", "num_learners"),
            f"a centralised critic learns with one learner, got {learners:g}",
            "write num_learners: 0 or 1",
        )


def check_learners(settings: Settings) -> Iterator[Fault]:
    """Several learners learn through RLlib's pipeline, which does not know every word of rlkit's update."""
    learners = settings.least("learners", "num_learners")
    if learners <= 1:
        return
    overrides: Any = settings.get("rl_module", "algorithm_config_overrides_per_module") or {}
    for name in ON_COLUMNS:
        values = {("training", name): settings.get("training", name)} | {
            ("rl_module", "algorithm_config_overrides_per_module", module, name): own.get(name)
            for module, own in overrides.items()
            if isinstance(own, Mapping)
        }
        for where, value in values.items():
            if any(candidates(value)):
                yield (
                    ("config", *where),
                    f"{name} is for one learner, got num_learners {learners:g}",
                    f"write num_learners: 0 or 1, or leave {name} out",
                )


def check_fragments(settings: Settings) -> Iterator[Fault]:
    """PPO refuses a batch that fragments cannot make up to within 10 % (AlgorithmConfig.validate, RLlib 2.60)."""
    if not settings.given("env_runners", "rollout_fragment_length"):
        return
    fragments = settings.numbers("env_runners", "rollout_fragment_length")
    name, batch = settings.batch()
    if len(fragments) != 1 or len(batch) != 1:
        return
    runners = max(1, int(settings.least("env_runners", "num_env_runners")))
    envs = max(1, int(settings.least("env_runners", "num_envs_per_env_runner", 1)))
    total = batch[0] * max(1, int(settings.least("learners", "num_learners")))
    round_size = runners * envs * fragments[0]
    reached = round_size * -(-total // round_size)
    if reached - total > 0.1 * total:
        yield (
            ("config", "env_runners", "rollout_fragment_length"),
            f"{runners} runners x {envs} environments x {fragments[0]:g} steps are {round_size:g}; "
            f"{-(-total // round_size):g} rounds of them give {reached:g}, not within 10 % of {name} {total:g}",
            f"write rollout_fragment_length: auto, or {max(1, int(total // (envs * runners)))}",
        )


OF_ALL = (
    "overlap_sampling", "normalize_observations", "normalize_rewards", "critic", "critic_input", "normalize_values",
)  # fmt: skip
PPO = Rules(check=check_ppo, steps=iteration_steps, of_all=OF_ALL)

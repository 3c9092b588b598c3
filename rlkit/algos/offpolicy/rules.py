"""What recipes must know of DQN, SAC and TQC, rlkit's and RLlib's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from rlkit.algos.options import Options, Positive
from rlkit.algos.rules import SEQUENCE, Fault, Rules, Settings, keeps_state, numbers
from rlkit.errors import did_you_mean

# type of buffer -> whether it draws by priority
BUFFERS = {
    "EpisodeReplayBuffer": False,
    "PrioritizedEpisodeReplayBuffer": True,
    "MultiAgentEpisodeReplayBuffer": False,
    "MultiAgentPrioritizedEpisodeReplayBuffer": True,
}


def _buffer(kind: str) -> str:
    if kind not in BUFFERS:
        hint = did_you_mean(kind, BUFFERS)
        fix = f"write {hint.split(chr(39))[1]}" if hint else f"use one of {', '.join(BUFFERS)}"
        raise ValueError(f"unknown replay buffer{hint}; fix: {fix}")
    return kind


class _Buffer(Options):
    type: Annotated[str, AfterValidator(_buffer)] = Field(
        default="", json_schema_extra={"enum": list(BUFFERS)}
    )
    capacity: Positive = 1
    alpha: float = Field(default=0, ge=0)
    beta: float = Field(default=0, ge=0, le=1)


class ColumnarBuffer(_Buffer):
    """`replay_buffer_config` of rlkit.algos.offpolicy.step."""

    columns: list[str] = Field(default=[])


class EpisodeBuffer(_Buffer):
    """`replay_buffer_config` of RLlib 2.60's own algorithms."""

    batch_size_B: Positive = 1
    batch_length_T: Positive = 1
    metrics_num_episodes_for_smoothing: Positive = 1


class OffPolicyOptions(Options):
    """Options of `training` of rlkit's off-policy step."""

    replay_buffer_config: ColumnarBuffer = Field(default=ColumnarBuffer())


class ReplayOptions(Options):
    """Options of `training` of RLlib's off-policy algorithms."""

    replay_buffer_config: EpisodeBuffer = Field(default=EpisodeBuffer())


MIN_ENV_STEPS_PER_CALL = 64  # where `rollout_fragment_length` is auto
WARM_UP = "num_steps_sampled_before_learning_starts"
DEFAULT_REPLAY = "PrioritizedEpisodeReplayBuffer"  # RLlib's


def check_replay(settings: Settings) -> Iterator[Fault]:
    """Fragments, batch and buffer that do not fit each other."""
    steps = settings.get("training", "n_step")
    items = steps.candidates() if hasattr(steps, "candidates") else [steps]
    for item in items:
        if isinstance(item, list) and item != sorted(item):
            falls = f"the range {item} falls"
            yield ("config", "training", "n_step"), falls, f"write n_step: {sorted(item)}"
    longest = max(
        (step for item in items for step in (item if isinstance(item, list) else [item]) if step), default=0
    )
    shortest = settings.least("env_runners", "rollout_fragment_length", longest)
    if settings.given("env_runners", "rollout_fragment_length") and longest > shortest:
        yield (
            ("config", "env_runners", "rollout_fragment_length"),
            f"a fragment of {shortest:g} steps is shorter than n_step {longest:g}",
            f"write rollout_fragment_length: {longest:g} or auto",
        )
    buffer: Any = settings.get("training", "replay_buffer_config")
    capacity = numbers(buffer.get("capacity")) if isinstance(buffer, Mapping) else []
    name, batch = settings.batch()
    if capacity and batch and max(batch) > min(capacity):
        own = settings.given("training", "replay_buffer_config")
        yield (
            ("config", "training", *(("replay_buffer_config", "capacity") if own else (name,))),
            f"the replay buffer holds {min(capacity):g} steps, the batch takes {max(batch):g}",
            f"write a capacity above {max(batch):g}",
        )
    yield from check_sample(settings, capacity, longest)


def check_sample(settings: Settings, capacity: Sequence[float], n_step: float) -> Iterator[Fault]:
    """The buffer holds what one step samples, once learning waits for env steps (`OffPolicyConfig.validate`)."""
    rlkits = "rlkit.OffPolicyConfig" in settings.line
    if not rlkits or not capacity or not settings.least("training", WARM_UP):
        return

    def most(argument: str, otherwise: float) -> float:
        return max(settings.numbers("env_runners", argument), default=otherwise)

    envs = int(most("num_envs_per_env_runner", 1) * max(1, most("num_env_runners", 0)))
    steps = int(most("rollout_fragment_length", max(n_step, math.ceil(MIN_ENV_STEPS_PER_CALL / envs))))
    if min(capacity) < envs * steps:
        yield (
            ("config", "training", "replay_buffer_config", "capacity"),
            f"the replay buffer holds {min(capacity):g} steps, one step samples {envs * steps} ({envs} environments x "
            f"{steps} steps)",
            f"write a capacity of at least {envs * steps}, or fewer environments",
        )


def check_sequences(settings: Settings) -> Iterator[Fault]:
    """Sequences of a recurrent model that a burn-in, a batch, priorities or several steps ahead leave nothing of."""
    if not keeps_state(settings.model) or settings.algorithm.startswith("rllib/"):
        return
    length = settings.model.get("max_seq_len", SEQUENCE)
    burn_in = settings.numbers("training", "burn_in_len")
    if not isinstance(length, int):
        return
    if burn_in and max(burn_in) >= length:
        given = "max_seq_len" in settings.model
        yield (
            ("config", "training", "burn_in_len"),
            f"burn_in_len {max(burn_in):g} leaves nothing of sequences of {length} steps (max_seq_len"
            f"{'' if given else ', the default'})",
            f"write at most {length - 1}, or a longer max_seq_len",
        )
    name, batch = settings.batch()
    if batch and min(batch) < length:
        yield (
            ("model", *(("max_seq_len",) if "max_seq_len" in settings.model else ("name",))),
            f"{name} {min(batch):g} is shorter than one sequence of {length} steps (max_seq_len)",
            f"write {name}: {length} or more",
        )


def check_single_steps(settings: Settings) -> Iterator[Fault]:
    """What RLlib's DQN and SAC read in single steps, with a recurrent model, which learns from sequences."""
    if not keeps_state(settings.model) or settings.algorithm.startswith("rllib/"):
        return
    given = settings.given("training", "replay_buffer_config")
    buffer: Any = settings.get("training", "replay_buffer_config")
    kind = str(buffer.get("type", DEFAULT_REPLAY)) if isinstance(buffer, Mapping) else ""
    if "Prioritized" in kind:
        yield (
            ("config", "training", "replay_buffer_config") if given else ("model",),
            f"sequences of a recurrent model are drawn uniformly, and the replay buffer is a {kind}",
            "write config: {training: {replay_buffer_config: {type: EpisodeReplayBuffer, capacity: 50000}}}",
        )
    for word in ("n_step", "num_atoms"):
        if any(value != 1 for value in settings.numbers("training", word)):
            where = ("config", "training", word) if settings.given("training", word) else ("model",)
            yield where, f"a recurrent model learns from sequences with {word} 1 alone", f"write {word}: 1"


def check_dqn(settings: Settings) -> Iterator[Fault]:
    """Continuous actions, and a support of returns that is none."""
    yield from check_replay(settings)
    yield from check_sequences(settings)
    yield from check_single_steps(settings)
    if settings.action == "Box":
        needed = f"{settings.algorithm} needs discrete actions, {settings.env} has continuous ones"
        yield ("algorithm",), needed, "use SAC or PPO"
    low, high = settings.numbers("training", "v_min"), settings.numbers("training", "v_max")
    if (
        max(settings.numbers("training", "num_atoms"), default=1) > 1
        and low
        and high
        and max(low) >= min(high)
    ):
        where = next((a for a in ("v_min", "v_max") if settings.given("training", a)), "num_atoms")
        yield (
            ("config", "training", where),
            f"v_min {max(low):g} is not below v_max {min(high):g}",
            "write v_min and v_max around the returns to expect",
        )


def check_sac(settings: Settings) -> Iterator[Fault]:
    """One learning rate where there are three."""
    yield from check_replay(settings)
    yield from check_sequences(settings)
    yield from check_single_steps(settings)
    if settings.config.get("training", {}).get("lr") is not None:
        refused = f"{settings.algorithm} has three learning rates and refuses lr"
        yield ("config", "training", "lr"), refused, "write actor_lr, critic_lr and alpha_lr"


def check_tqc(settings: Settings) -> Iterator[Fault]:
    """Discrete actions, and no quantile left."""
    if settings.action == "Discrete":
        needed = f"{settings.algorithm} needs continuous actions, {settings.env} has discrete ones"
        yield ("algorithm",), needed, "use DQN or PPO"
    drop = settings.numbers("training", "top_quantiles_to_drop_per_net")
    quantiles = settings.numbers("training", "n_quantiles")
    if drop and quantiles and max(drop) >= min(quantiles):
        given = settings.given("training", "top_quantiles_to_drop_per_net")
        yield (
            ("config", "training", "top_quantiles_to_drop_per_net" if given else "n_quantiles"),
            f"top_quantiles_to_drop_per_net {max(drop):g} leaves none of n_quantiles {min(quantiles):g}",
            f"write top_quantiles_to_drop_per_net of at most {int(min(quantiles)) - 1}",
        )


# the step reads the first two; the others are built into the modules and runners, from the config of all of them
OF_ALL = (
    "overlap_sampling", "burn_in_len", "epsilon", "num_atoms", "v_min", "v_max", "dueling", "double_q", "sigma0",
    "twin_q", "clip_actions",
)  # fmt: skip
OFF_POLICY = Rules(options=OffPolicyOptions, of_all=OF_ALL)
DQN = Rules(options=ReplayOptions, check=check_dqn)
SAC = Rules(options=ReplayOptions, check=check_sac)
TQC = Rules(check=check_tqc)

"""What recipes must know of MADDPG and MATD3."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel

from rlkit.algos.fields import number, schedule, whole
from rlkit.algos.offpolicy.rules import check_replay
from rlkit.algos.rules import Fault, Rules, Settings


class MADDPGOptions(BaseModel):
    """Options of `MADDPGConfig.training` that have a range."""

    policy_delay: whole(ge=1) = 1  # type: ignore[valid-type]
    target_noise: number(ge=0) = 0.0  # type: ignore[valid-type]
    target_noise_clip: number(ge=0) = 0.5  # type: ignore[valid-type]
    exploration_noise: number(ge=0) | schedule(ge=0) = [[0, 0.5], [150_000, 0.05]]  # type: ignore[valid-type]
    temperature: number(gt=0) | schedule(gt=0) = 1.0  # type: ignore[valid-type]
    logit_regularisation: number(ge=0) = 1e-3  # type: ignore[valid-type]
    infer_entropy_coeff: number(ge=0) = 1e-3  # type: ignore[valid-type]
    infer_batch_size: whole(ge=1) = 100  # type: ignore[valid-type]
    ensemble_size: whole(ge=1) | dict[str, whole(ge=1)] = 1  # type: ignore[valid-type]
    burn_in_len: whole(ge=0) = 0  # type: ignore[valid-type]


def check_maddpg(settings: Settings) -> Iterator[Fault]:
    """One agent with discrete actions, and one learning rate where there are two. With one Box action it is DDPG."""
    yield from check_replay(settings)
    if settings.single_agent and settings.action == "Discrete":
        needed = f"{settings.algorithm} trains several agents, {settings.env} has one, with discrete actions"
        yield ("algorithm",), needed, "use DQN or PPO, or an environment of several agents"
    if settings.config.get("training", {}).get("lr") is not None:
        refused = f"{settings.algorithm} has two learning rates and refuses lr"
        yield ("config", "training", "lr"), refused, "write actor_lr and critic_lr"


MADDPG = Rules(options=MADDPGOptions, check=check_maddpg)

"""What recipes must know of MADDPG and MATD3."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from rlkit.algos.offpolicy.rules import check_replay
from rlkit.algos.options import Options, Positive, Schedule
from rlkit.algos.rules import Fault, Rules, Settings


class MADDPGOptions(Options):
    """Options of `MADDPGConfig.training` that have a range."""

    policy_delay: Positive = 1
    target_noise: float = Field(default=0.0, ge=0)
    target_noise_clip: float = Field(default=0.5, ge=0)
    exploration_noise: Annotated[float, Field(ge=0)] | Schedule = Field(
        default=[(0.0, 0.5), (150_000.0, 0.05)]
    )
    temperature: Annotated[float, Field(gt=0)] | Schedule = 1.0
    logit_regularisation: float = Field(default=1e-3, ge=0)
    infer_entropy_coeff: float = Field(default=1e-3, ge=0)
    infer_batch_size: Positive = 100
    ensemble_size: Positive | dict[str, Positive] = 1
    burn_in_len: int = Field(default=0, ge=0)


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

"""What recipes must know of MADDPG and MATD3."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import create_model

from rlkit.algos.centralised.options import MADDPGOptions
from rlkit.algos.offpolicy.rules import check_replay, check_sequences
from rlkit.algos.options import Options
from rlkit.algos.rules import STATELESS, Fault, Rules, Settings

# What the table of RLlib's signatures and the rules of replay check already.
ELSEWHERE = {"replay_buffer_config", *MADDPGOptions.rllibs}
FIELDS: dict[str, Any] = {
    name: (field.annotation, field)
    for name, field in MADDPGOptions.model_fields.items()
    if name not in ELSEWHERE
}
Given = create_model("Given", __base__=Options, **FIELDS)
"""The options of `MADDPGConfig.training` by type and range, without those of RLlib."""


def check_maddpg(settings: Settings) -> Iterator[Fault]:
    """One agent with discrete actions, one learning rate where there are two, sequences of a model without a state.

    With one agent and Box actions it is DDPG.
    """
    yield from check_replay(settings)
    yield from check_sequences(settings)
    if settings.single_agent and settings.action == "Discrete":
        needed = f"{settings.algorithm} trains several agents, {settings.env} has one, with discrete actions"
        yield ("algorithm",), needed, "use DQN or PPO, or an environment of several agents"
    model = settings.model
    if "max_seq_len" in model and model.get("name") in STATELESS and not model.get("use_lstm"):
        idle = "max_seq_len has no effect without a recurrent model"
        yield ("model", "max_seq_len"), idle, "remove max_seq_len, or write name: lstm"
    if settings.config.get("training", {}).get("lr") is not None:
        refused = f"{settings.algorithm} has two learning rates and refuses lr"
        yield ("config", "training", "lr"), refused, "write actor_lr and critic_lr"


OF_ALL = tuple(name for name in MADDPGOptions.model_fields if name not in MADDPGOptions.overridden)
MADDPG = Rules(options=Given, check=check_maddpg, of_all=OF_ALL)

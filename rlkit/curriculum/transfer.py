"""What passes from one lesson to the next: weights, optimiser, replay.

`hand_over` moves them between two algorithms of one process (train_phases); `forget` drops them inside one (callback).
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import Any

from rlkit import rllib, state

LEARNER = "learner_group/learner"
REPLAY = "replay"  # the component of rlkit's off-policy algorithms: passed as an object, not copied


def hand_over(
    old: Any, new: Any, *, weights: bool = True, optimizer: bool = True, replay: bool = True
) -> None:
    """Give `new` what `old` has learnt. Counters, metrics, connectors and callbacks' state always pass.

    Args:
        weights: module weights, targets and SAC's temperature included.
        optimizer: optimiser state; RLlib binds it to the weights, so without `weights` it starts anew as well.
        replay: the buffer object itself.
    """
    components = ["env_runner"]
    if weights:
        components += [f"{LEARNER}/rl_module", f"{LEARNER}/{state.LEARNER_STATE}"]
        if optimizer:
            components.append(f"{LEARNER}/optimizer")
    new.set_state(old.get_state(components=components))
    # the optimiser's state has the old lesson's learning rate
    new.learner_group.foreach_learner(partial(rllib.apply_rates, env_steps=rllib.sampled_env_steps(old)))
    if replay:
        _pass_buffers(old, new)
    for name, component in state.components(old).items():
        target = state.components(new).get(name)
        if target is not None and name != REPLAY:
            target.set_state(component.get_state())
    for group in (new.env_runner_group, new.eval_env_runner_group):
        if group is not None:
            group.sync_weights(from_worker_or_learner_group=new.learner_group, inference_only=True)


def forget(algorithm: Any, *, optimizer: bool, replay: bool) -> None:
    """Drop the optimiser's state, and the contents of the replay buffers, as told.

    Raises:
        ValueError: RLlib's own replay buffers cannot be emptied (2.60); train_phases builds new ones.
    """
    if optimizer:
        algorithm.learner_group.foreach_learner(_fresh_optimizers)
    if not replay:
        return
    if hasattr(algorithm, "make_replays"):
        algorithm.make_replays()
    elif getattr(algorithm, "local_replay_buffer", None) is not None:
        raise ValueError(
            f"carry.replay: false: RLlib's {type(algorithm.local_replay_buffer).__name__} cannot be emptied; "
            "use rlkit's DQN or SAC, or train_phases"
        )


def _pass_buffers(old: Any, new: Any) -> None:
    if hasattr(old, "replays") and hasattr(new, "replays"):
        new.replays.update(old.replays)
    elif getattr(old, "local_replay_buffer", None) is not None:
        new.local_replay_buffer = old.local_replay_buffer


def _fresh_optimizers(learner: Any) -> None:
    for optimizer in rllib.optimizers_of(learner):
        optimizer.state = defaultdict(dict)

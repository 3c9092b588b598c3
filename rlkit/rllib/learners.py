"""Learners and connector pipelines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def hook_learner(learner: Any, *, hook: Callable[..., None]) -> None:
    """Call `hook` before each module's loss in a Learner.

    2.60 has no callbacks in learners; `on_learn_on_batch` is gone. `compute_loss_for_module` is public and
    meant to be overridden; here it is extended on the instance, so that any learner class keeps its own.
    """
    compute_loss = learner.compute_loss_for_module

    def compute_loss_for_module(*, module_id: str, config: Any, batch: Any, fwd_out: Any) -> Any:
        hook(learner=learner, module_id=module_id, train_batch=batch, metrics_logger=learner.metrics)
        return compute_loss(module_id=module_id, config=config, batch=batch, fwd_out=fwd_out)

    learner.compute_loss_for_module = compute_loss_for_module
    _raise_of_thread(learner)


def watch_learner(
    learner: Any,
    *,
    on_loss: Callable[[str, Any], None] | None = None,
    on_gradients: Callable[[Any, dict[Any, Any]], None] | None = None,
) -> None:
    """Show each module's loss and the gradients of each update to a Learner before they are used.

    RLlib 2.60 replaces NaN gradients by 0 and inf by 3.4e38 in `apply_gradients`; behind it nothing can be seen.
    """
    compute_loss, compute_gradients = learner.compute_loss_for_module, learner.compute_gradients

    def compute_loss_for_module(*, module_id: str, **kwargs: Any) -> Any:
        loss = compute_loss(module_id=module_id, **kwargs)
        if on_loss is not None:
            on_loss(module_id, loss)
        return loss

    def compute_and_show(*args: Any, **kwargs: Any) -> Any:
        gradients = compute_gradients(*args, **kwargs)
        if on_gradients is not None:
            on_gradients(learner, gradients)
        return gradients

    learner.compute_loss_for_module = compute_loss_for_module
    learner.compute_gradients = compute_and_show
    _raise_of_thread(learner)


def _raise_of_thread(learner: Any) -> None:
    """Let `update` of an IMPALA or APPO learner raise what its thread raised.

    2.60 learns in a `_LearnerThread`. An exception ends the thread alone, and `update` waits for its results for ever.
    Here the thread goes on, does no more updates, and the next `update` raises. A second call changes nothing.
    """
    thread = getattr(learner, "_learner_thread", None)
    if thread is None or getattr(thread, "rlkit_raises", False):
        return
    raised: list[Exception] = []
    update_in_thread, update = thread._update_method, learner.update

    def remembering(*args: Any, **kwargs: Any) -> Any:
        if raised:
            return None
        try:
            return update_in_thread(*args, **kwargs)
        except Exception as error:
            raised.append(error)
            learner._agg_event.set()

    def update_and_raise(*args: Any, **kwargs: Any) -> Any:
        result = update(*args, **kwargs)
        if raised:
            raise raised[0]
        return result

    thread._update_method, learner.update = remembering, update_and_raise
    thread.rlkit_raises = True


def plain_backwards() -> tuple[Callable[..., Any], ...]:
    """Return the `compute_gradients` of RLlib's learners that amount to one backward pass of the summed losses.

    SAC's calls backward once per optimizer, each on a loss that reaches the parameters of that optimizer
    alone (2.60, `sac_torch_learner.py`); the sum has the same gradients.
    """
    from ray.rllib.algorithms.sac.torch.sac_torch_learner import SACTorchLearner
    from ray.rllib.core.learner.torch.torch_learner import TorchLearner

    return TorchLearner.compute_gradients, SACTorchLearner.compute_gradients


def forget_sac_losses(learner: Any) -> None:
    """Drop the losses SAC keeps for its own `compute_gradients` (2.60: `_temp_losses`, one entry per optimizer)."""
    learner._temp_losses.clear()


def add_to_sac_loss(learner: Any, module_id: str, name: str, more: Any) -> Any:
    """Add a term to one of the losses that SAC's learner has just computed for a module; return the sum's value.

    Its `compute_gradients` takes the gradients of these losses, not of the one that is returned (2.60: `_temp_losses`).
    """
    loss = learner._temp_losses[module_id, name] + more
    learner._temp_losses[module_id, name] = loss
    return loss.detach()


def forward_train_of(learner: Any) -> Callable[[Any], Any]:
    """Return a learner's train forward pass without what RLlib repeats around it for every minibatch.

    `TorchRLModule.forward_train` walks all submodules to set train mode (2.60; 10 % of a 256x256 update on
    CPU); here the mode is set once. Modules wrapped for DDP, and MultiRLModules with a `_forward_train` of
    their own, keep theirs.
    """
    from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
    from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule

    module = learner.module
    parts = {mid: module[mid] for mid in module.keys()}  # noqa: SIM118 (a MultiRLModule is no dict)
    plain = type(module)._forward_train is MultiRLModule._forward_train and all(
        type(part).forward_train is TorchRLModule.forward_train for part in parts.values()
    )
    if not plain:
        return module.forward_train
    for part in parts.values():
        part.train()

    def forward_train(batch: Any) -> Any:
        return {mid: parts[mid]._forward_train(columns) for mid, columns in batch.items() if mid in parts}

    return forward_train


def scales_gradients(learner: Any) -> bool:
    """Whether a TorchLearner has gradient scalers or torch lr schedulers, which act inside `apply_gradients` (2.60)."""
    return learner._grad_scalers is not None or learner._lr_scheduler_classes is not None


def remember_learner_errors(algorithm: Any) -> None:
    """Keep the last error of a remote learner for `lost_learners`.

    RLlib (2.60) drops those of a restore: the learner is taken out of service, and whoever asks it next finds nobody.
    """
    group = algorithm.learner_group
    if group is None or group.is_local:
        return
    manager = group._worker_manager

    def remembering(ask: Callable[..., Any]) -> Callable[..., Any]:
        def asking(*args: Any, **kwargs: Any) -> Any:
            answers = ask(*args, **kwargs)
            manager.last_error = next((a.get() for a in answers if not a.ok), manager.last_error)
            return answers

        return asking

    manager.last_error, manager.foreach_actor = None, remembering(manager.foreach_actor)
    manager.fetch_ready_async_reqs = remembering(manager.fetch_ready_async_reqs)  # IMPALA's and APPO's way


def lost_learners(algorithm: Any) -> tuple[int, int, Exception | None]:
    """Return how many of an Algorithm's remote learners are out of service, of how many, and the last one's error.

    `LearnerGroup` (2.60) asks the healthy ones of its private manager; without any: no answers, or an IndexError.
    """
    group = algorithm.learner_group
    if group is None or group.is_local:
        return 0, 0, None
    manager = group._worker_manager
    return manager.num_actors() - manager.num_healthy_actors(), manager.num_actors(), manager.last_error


def count_update(learner: Any) -> None:
    """Count one call of a learner's update; env runners take weights with a higher number only (2.60)."""
    learner._weights_seq_no += 1


def weights_seq_no(owner: Any) -> int:
    """Return how many update calls a learner has done, or those behind an env runner's weights (2.60, no accessor)."""
    number: int = owner._weights_seq_no
    return number


def learner_index(learner: Any) -> int:
    """Return which of the `num_learners` this learner is (2.60, no accessor)."""
    return learner._learner_index


def optimizers_of(learner: Any) -> list[Any]:
    """Return the torch optimisers of a learner (2.60: kept by name, no accessor for all)."""
    return list(learner._named_optimizers.values())


def apply_rates(learner: Any, env_steps: int) -> None:
    """Give a learner's optimisers their own learning rates for so many env steps (2.60: `_optimizer_lr_schedules`).

    A loaded state of an optimiser holds the rate of the learner that wrote it.
    """
    for optimizer, schedule in learner._optimizer_lr_schedules.items():
        rate = schedule.update(timestep=env_steps)
        for group in optimizer.param_groups:
            group["lr"] = float(rate)


def wants_component(owner: Any, name: str, components: Any, not_components: Any) -> bool:
    """Whether a `get_state(components, not_components=…)` of a Checkpointable asks for a component (2.60)."""
    wanted: bool = owner._check_component(name, components, not_components)
    return wanted


DEFAULT_LEARNER_PIECES = (
    "AddObservationsFromEpisodesToBatch",
    "AddNextObservationsFromEpisodesToTrainBatch",
    "AddColumnsFromEpisodesToTrainBatch",
    "AddTimeDimToBatchAndZeroPad",
    "AddStatesFromEpisodesToBatch",
    "AgentToModuleMapping",
    "BatchIndividualItems",
    "NumpyToTensor",
)


ADVANTAGE_PIECES = ("AddOneTsToEpisodesAndTruncate", "GeneralAdvantageEstimation")


def learner_pieces(learner: Any) -> list[Any]:
    """Return the pieces of a learner's connector pipeline, in their order (2.60, no accessor)."""
    pipeline = learner._learner_connector
    return [] if pipeline is None else list(pipeline.connectors)


def extra_learner_pieces(learner: Any) -> list[Any]:
    """Return a learner's connector pieces besides RLlib's way from episodes to a batch, or to advantages (2.60)."""
    known = (*DEFAULT_LEARNER_PIECES, *ADVANTAGE_PIECES)
    return [piece for piece in learner_pieces(learner) if type(piece).__name__ not in known]


def custom_learner_pieces(learner: Any) -> list[Any]:
    """Return the learner connector pieces besides RLlib's default way from episodes to a train batch (2.60).

    The default pieces read columns from episodes, which columnar replay has done already. Other pieces of
    RLlib's own (frame stacking, for example) read episodes too and have none to read here.

    Raises:
        ValueError: one of RLlib's other pieces is configured.
    """
    custom = extra_learner_pieces(learner)
    for piece in custom:
        if type(piece).__module__.startswith("ray.rllib.connectors."):
            raise ValueError(
                f"the learner connector {type(piece).__name__} reads episodes, and replay holds columns; do the "
                f"same in an environment wrapper or an env-to-module connector, or use `algorithm: rllib/DQN`"
            )
    return custom


def append_after_gae(learner: Any, piece: Any) -> bool:
    """Put a piece at the end of a learner's connector pipeline, behind RLlib's GAE; False where there is none.

    PPO's learner appends GAE in its own `build` (2.60), so `config.training(learner_connector=…)` comes too early.
    """
    from ray.rllib.connectors.learner import GeneralAdvantageEstimation

    if not any(isinstance(known, GeneralAdvantageEstimation) for known in learner_pieces(learner)):
        return False
    learner._learner_connector.append(piece)
    return True


def policy_mapping(env_to_module: Any) -> Callable[..., str] | None:
    """Return the agent -> module function inside a connector pipeline, or None in a single-agent one.

    `AgentToModuleMapping` keeps the config's `policy_mapping_fn` in a private attribute (2.60, no accessor).
    """
    from ray.rllib.connectors.common import AgentToModuleMapping

    pieces = [c for c in env_to_module.connectors if isinstance(c, AgentToModuleMapping)]
    return pieces[0]._agent_to_module_mapping_fn if pieces else None


def freeze_connectors(pipeline: Any) -> None:
    """Stop connectors from learning, and put their tensors on the CPU.

    `MeanStdFilter` goes on updating its statistics unless `_update_stats` is False (2.60: its constructor
    only); rlkit's `NormalizeObservations` learns for an env runner alone; `NumpyToTensor` keeps the device it was saved
    with.
    """
    for connector in pipeline.connectors:
        if hasattr(connector, "_update_stats"):
            connector._update_stats = False
        if hasattr(connector, "runner"):
            connector.runner = None
        if hasattr(connector, "_device"):
            connector._device = None


def observation_filter(piece: Any) -> Callable[[Any], Any]:
    """Return what RLlib's MeanStdFilter does to one observation of a single agent (2.60, no accessor)."""
    if piece._filters is None:
        piece._init_new_filters()

    def normalised(observation: Any) -> Any:
        return piece._filters[None](observation, update=piece._update_stats)

    return normalised


def filter_of(piece: Any, agent: Any) -> Any:
    """Return the statistics of RLlib's MeanStdFilter for one agent, None for the only one (2.60, no accessor).

    It has `running_stats`, nested like the space, each with `mean` and `std`, and `demean`, `destd`, `clip`.
    """
    if piece._filters is None:
        piece._init_new_filters()
    return piece._filters[agent]


def removed_keys(piece: Any) -> tuple[str, ...]:
    """Return the keys that RLlib's FlattenObservations leaves out (2.60, no accessor)."""
    return tuple(piece._keys_to_remove)


def flattens_for_learner(piece: Any) -> bool:
    """Whether RLlib's FlattenObservations is one for learners or several agents (2.60, no accessor)."""
    return bool(piece._as_learner_connector or piece._multi_agent)

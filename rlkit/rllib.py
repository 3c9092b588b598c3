"""The one place that touches private names of RLlib and Tune; tests/test_private_names.py holds it.

Each entry says why it is needed, checked against ray 2.60.0. What reaches into a class from outside is a function; what
overrides or uses private names inside one is a mixin, to stand before RLlib's class in the bases.
"""

from __future__ import annotations

import copy
import functools
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlkit.files import swap_folder


def add_callbacks(config: Any, callbacks: Sequence[Callable[[], Any]]) -> None:
    """Append callbacks to those a config has already, through its public method.

    `AlgorithmConfig.callbacks()` replaces the list, and the list is kept in the public attribute
    `callbacks_class` (2.60: a class or a list of zero-argument callables).
    """
    from ray.rllib.callbacks.callbacks import RLlibCallback

    known = config.callbacks_class
    known = list(known) if isinstance(known, list | tuple) else [known]
    config.callbacks([*(c for c in known if c is not RLlibCallback), *callbacks])


def persist_by_rename(storage: Any, name_of: Callable[[], str]) -> None:
    """Make Tune move a finished checkpoint into place instead of copying it file by file.

    Tune writes a checkpoint to a temporary folder and copies it (`StorageContext.persist_current_checkpoint`,
    2.60); a process that dies in between leaves half a checkpoint under the final name. On a local file
    system a rename is atomic and writes large replay buffers once. Other file systems keep Tune's copy.

    Args:
        storage: the Trainable's StorageContext.
        name_of: returns the name of the folder, for example `checkpoint_000010`.
    """
    if storage.storage_filesystem.type_name != "local":
        return

    def persist(checkpoint: Any) -> Any:
        target = Path(storage.trial_fs_path, name_of())
        swap_folder(Path(checkpoint.path), target)
        return type(checkpoint)(filesystem=storage.storage_filesystem, path=str(target))

    storage.persist_current_checkpoint = persist


# The state that Tune unpickles from a run folder on resume (2.60): every CKPT_FILE_TMPL in ray.tune.
TUNE_STATE = (
    "basic-variant-state-*.json",
    "search_gen_state-*.json",
    "searcher-state-*.pkl",
    "callback-states-*.pkl",
    "experiment_state-*.json",
)


@contextmanager
def tune_state_to(put: Callable[[Path], None], folder: Path) -> Iterator[None]:
    """Hand the staging folder with Tune's state to `put`, in place of Tune's copy into the run folder.

    Tune copies its staging folder in a thread, file by file (2.60: `_ExperimentCheckpointManager` asks
    `_FilesystemSyncer._sync_up_command` what to run): a process killed meanwhile leaves half a file. `put` runs in the
    main thread before that copy, when the state in the staging folder is whole, and the copy leaves it out.

    Args:
        put: writes the state into the run folder.
        folder: the run folder as Tune spells it.
    """
    from ray.train._internal.storage import _FilesystemSyncer

    command = _FilesystemSyncer._sync_up_command

    def without_state(self: Any, local_path: str, uri: str, exclude: list[str] | None = None) -> Any:
        if Path(uri) == folder:
            put(Path(local_path))
            exclude = [*(exclude or ()), "*.json", "*.pkl"]
        return command(self, local_path, uri, exclude)

    _FilesystemSyncer._sync_up_command = without_state
    try:
        yield
    finally:
        _FilesystemSyncer._sync_up_command = command


def set_progress(trainable: Any, *, iteration: int, time_total_s: float, metrics: dict[str, Any]) -> None:
    """Set the counters that `Trainable.restore` takes from the driver (ray/tune/trainable/trainable.py, 2.60)."""
    trainable._iteration = iteration
    trainable._time_total = time_total_s
    trainable._timesteps_total = metrics.get("timesteps_total")
    trainable._episodes_total = metrics.get("episodes_total")


def keep_trial_info(trainable: Any, config: dict[str, Any]) -> None:
    """Tell a Trainable which trial it is: its own constructor looks for it in the config (2.60)."""
    trainable._trial_info = config.get("__trial_info__")


def trial_folder(trainable: Any) -> Path | None:
    """Return the trial's folder on a local file system, or None when Tune stores it elsewhere."""
    storage = trainable._storage
    if storage is None or storage.storage_filesystem.type_name != "local":
        return None
    return Path(storage.trial_fs_path)


def storage_of(trainable: Any) -> Any:
    """Return the StorageContext Tune gave to a Trainable (no public accessor in 2.60)."""
    return trainable._storage


def progress_of(trainable: Any) -> tuple[int, float, dict[str, Any]]:
    """Return iteration, seconds trained and the last result of a Trainable."""
    return trainable._iteration, trainable._time_total, trainable._last_result or {}


def runner_callbacks(env_runner: Any) -> list[Any]:
    """Return the callback instances of an EnvRunner, in the order of `config.callbacks` (2.60, no accessor)."""
    return env_runner._callbacks


def ongoing_episodes(env_runner: Any) -> list[Any]:
    """Return the episode each sub-environment of an EnvRunner is in, by its index (2.60, no accessor)."""
    return env_runner._ongoing_episodes


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


def forget_deleted_checkpoints(trial: Any) -> None:
    """Drop checkpoints that Tune's notes list and the disk no longer has.

    The notes are written every few seconds. After a crash they can name a checkpoint that was deleted since then, and
    Tune (2.60, `_CheckpointManager.register_checkpoint`) ends the run when it deletes it once more.
    """
    manager = trial.run_metadata.checkpoint_manager
    manager._checkpoint_results = [r for r in manager._checkpoint_results if Path(r.checkpoint.path).is_dir()]
    latest = manager._latest_checkpoint_result
    if latest is not None and not Path(latest.checkpoint.path).is_dir():
        manager._latest_checkpoint_result = None


def point_to_checkpoint(trial: Any, path: Path, notes: Any) -> None:
    """Make a Tune trial start from a checkpoint its own notes do not know (2.60: `Trial.on_checkpoint`)."""
    from ray.train._internal.session import _TrainingResult
    from ray.tune import Checkpoint

    known = trial.checkpoint
    if known is not None and Path(known.path) == path.resolve():
        return
    metrics = {
        **(trial.last_result or {}),
        "training_iteration": notes.iteration,
        "time_total_s": float(notes.extra.get("time_total_s") or 0.0),
    }
    checkpoint = Checkpoint.from_directory(str(path.resolve()))  # a trial works in a folder of its own
    trial.on_checkpoint(_TrainingResult(checkpoint=checkpoint, metrics=metrics))


def env_creator_of(config: Any) -> Callable[[Any], Any]:
    """Return what makes a config's environments from an EnvContext (or a dict), picklable.

    `config.env` is a callable, a name registered with Tune (2.60: its registry has no accessor), or a Gymnasium id.
    """
    from ray.tune.registry import ENV_CREATOR, _global_registry

    if callable(config.env):
        create: Callable[[Any], Any] = config.env
    elif _global_registry.contains(ENV_CREATOR, config.env):
        create = _global_registry.get(ENV_CREATOR, config.env)
    else:
        create = functools.partial(_make_gymnasium, config.env)
    return create


def _make_gymnasium(env_id: str, context: Any) -> Any:
    import gymnasium as gym

    return gym.make(env_id, **dict(context))


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
    only); `NumpyToTensor` keeps the device it was saved with.
    """
    for connector in pipeline.connectors:
        if hasattr(connector, "_update_stats"):
            connector._update_stats = False
        if hasattr(connector, "_device"):
            connector._device = None


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


def refresh_spaces(episode: Any, env: Any) -> None:
    """Give a MultiAgentEpisode, created a moment ago, the spaces of an environment that was built anew since.

    `MultiAgentEnvRunner._new_episode` (2.60) reads them before `on_episode_created` can change the environment.
    """
    env = env.unwrapped
    episode.observation_space = {agent: env.get_observation_space(agent) for agent in env.possible_agents}
    episode.action_space = {agent: env.get_action_space(agent) for agent in env.possible_agents}


def record_class(checkpoint: Path, algorithm_class: type) -> None:
    """Name the plain Algorithm class in a checkpoint just written, so that reading it needs no class of rlkit.

    `Checkpointable.save_to_path` (2.60) pickles `type(self)` with the constructor's arguments; for a trial
    that is a class made at run time, which would be stored by value.
    """
    from ray import cloudpickle
    from ray.rllib.utils.checkpoints import Checkpointable

    path = checkpoint / Checkpointable.CLASS_AND_CTOR_ARGS_FILE_NAME
    content = cloudpickle.loads(path.read_bytes())
    path.write_bytes(cloudpickle.dumps({**content, "class": algorithm_class}))


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


def count_update(learner: Any) -> None:
    """Count one call of a learner's update; env runners take weights with a higher number only (2.60)."""
    learner._weights_seq_no += 1


def weights_seq_no(learner: Any) -> int:
    """Return the number of update calls a learner has done (2.60, no accessor)."""
    return learner._weights_seq_no


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


def custom_learner_pieces(learner: Any) -> list[Any]:
    """Return the learner connector pieces besides RLlib's default way from episodes to a train batch (2.60).

    The default pieces read columns from episodes, which columnar replay has done already. Other pieces of
    RLlib's own (frame stacking, for example) read episodes too and have none to read here.

    Raises:
        ValueError: one of RLlib's other pieces is configured.
    """
    pipeline = learner._learner_connector
    pieces = [] if pipeline is None else list(pipeline.connectors)
    custom = [p for p in pieces if type(p).__name__ not in (*DEFAULT_LEARNER_PIECES, *ADVANTAGE_PIECES)]
    for piece in custom:
        if type(piece).__module__.startswith("ray.rllib.connectors."):
            raise ValueError(
                f"the learner connector {type(piece).__name__} reads episodes, and replay holds columns; do the "
                f"same in an environment wrapper or an env-to-module connector, or use `algorithm: rllib/DQN`"
            )
    return custom


ADVANTAGE_PIECES = ("AddOneTsToEpisodesAndTruncate", "GeneralAdvantageEstimation")


def extra_learner_pieces(learner: Any) -> list[Any]:
    """Return a PPO learner's connector pieces besides RLlib's way from episodes to a batch with advantages (2.60)."""
    known = (*DEFAULT_LEARNER_PIECES, *ADVANTAGE_PIECES)
    return [piece for piece in learner_pieces(learner) if type(piece).__name__ not in known]


def seed_runner(env_runner: Any, seed: int) -> None:
    """Set the seed of an EnvRunner's next reset.

    2.60: `_seed`, which the first reset and each sample of whole episodes use; see `_reset_envs`.
    """
    env_runner._seed = seed


def learner_index(learner: Any) -> int:
    """Return which of the `num_learners` this learner is (2.60, no accessor)."""
    return learner._learner_index


class EncoderHook:
    """Mixin for RLlib catalogs, before RLlib's class: `encoder_config` decides which encoder is built.

    `Catalog` has no public hook between its spaces and its encoder config (core/models/catalog.py, 2.60);
    every family of catalogs calls `_get_encoder_config` from its constructor.
    """

    def encoder_config(self, observation_space: Any, action_space: Any) -> Any:
        raise NotImplementedError

    def _get_encoder_config(
        self, observation_space: Any, model_config_dict: Any, action_space: Any = None
    ) -> Any:
        return self.encoder_config(observation_space, action_space)


def learner_pieces(learner: Any) -> list[Any]:
    """Return the pieces of a learner's connector pipeline, in their order (2.60, no accessor)."""
    pipeline = learner._learner_connector
    return [] if pipeline is None else list(pipeline.connectors)


def append_after_gae(learner: Any, piece: Any) -> bool:
    """Put a piece at the end of a learner's connector pipeline, behind RLlib's GAE; False where there is none.

    PPO's learner appends GAE in its own `build` (2.60), so `config.training(learner_connector=…)` comes too early.
    """
    from ray.rllib.connectors.learner import GeneralAdvantageEstimation

    if not any(isinstance(known, GeneralAdvantageEstimation) for known in learner_pieces(learner)):
        return False
    learner._learner_connector.append(piece)
    return True


def given_module_spec(config: Any) -> Any:
    """Return the rl_module_spec the user gave, or None (2.60: the public property merges it with the default)."""
    return config._rl_module_spec


def batch_rows(env_runner: Any, module_id: str) -> list[Any]:
    """Return what each row of a module's batch belongs to: the episode id, with several agents (id, agent).

    Valid while the runner computes actions. The mapping of several agents is what `AgentToModuleMapping` left in
    the runner's shared data (2.60, connectors/common/agent_to_module_mapping.py).
    """
    from ray.rllib.env.multi_agent_episode import MultiAgentEpisode

    episodes = env_runner._ongoing_episodes
    if episodes and isinstance(episodes[0], MultiAgentEpisode):
        return list(env_runner._shared_data["memorized_map_structure"][module_id])
    return [episode.id_ for episode in episodes]


def runner_weights_seq_no(env_runner: Any) -> int:
    """Return the number of the weights an EnvRunner has (2.60, no accessor)."""
    return env_runner._weights_seq_no


def spaces_of_env(config: Any) -> tuple[Any, Any]:
    """Make a config's environment once and return its observation and action space, by agent if there are several."""
    import gymnasium as gym
    from ray.rllib.env.env_context import EnvContext
    from ray.rllib.env.multi_agent_env import MultiAgentEnv

    env = env_creator_of(config)(EnvContext(dict(config.env_config), worker_index=0))
    try:
        own = env.unwrapped
        if not isinstance(own, MultiAgentEnv):
            return env.observation_space, env.action_space
        return (
            gym.spaces.Dict({agent: own.get_observation_space(agent) for agent in own.possible_agents}),
            gym.spaces.Dict({agent: own.get_action_space(agent) for agent in own.possible_agents}),
        )
    finally:
        env.close()


def forward(module: Any, call: str) -> Callable[..., Any]:
    """Return `module.forward_inference` or `forward_exploration`, the short way where it makes no difference.

    The public methods of a TorchRLModule set evaluation mode on every sub-module at each call and then call the
    underscored ones (torch_rl_module.py, 2.60): 412 instead of 314 us for 32 rows of DQN's default module.
    """
    from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule

    public = getattr(module, call)
    own = getattr(type(module), call, None) is getattr(TorchRLModule, call) and call not in vars(module)
    return getattr(module, f"_{call}") if own and not module.training else public


def hanging_actions(episode: Any) -> dict[Any, Any]:
    """Return the actions of a MultiAgentEpisode whose agents have not observed their outcome yet, by agent.

    In turn-based games an action enters its agent's own episode only with that agent's next observation (2.60:
    `_hanging_actions_end`, no accessor).
    """
    return episode._hanging_actions_end


def optimizers_of(learner: Any) -> list[Any]:
    """Return the torch optimisers of a learner (2.60: kept by name, no accessor for all)."""
    return list(learner._named_optimizers.values())


def runner_pipelines(env_runner: Any) -> tuple[Any, Any]:
    """Return the env-to-module and the module-to-env pipeline of an EnvRunner (2.60, no accessor)."""
    return env_runner._env_to_module, env_runner._module_to_env


def map_rows(env_runner: Any, rows: dict[str, list[tuple[str, str]]]) -> None:
    """Tell an EnvRunner which (episode id, agent) each row of each module's batch is: see `batch_rows`."""
    env_runner._shared_data = {"memorized_map_structure": rows}


def fill_episode(
    episode: Any,
    *,
    agents: dict[str, dict[str, Any]],
    started: int,
    length: int,
    terminated: bool,
    truncated: bool,
    seconds: float,
) -> None:
    """Put a whole chunk of steps, all agents in every one of them, into an empty MultiAgentEpisode at once.

    `add_env_step` (2.60, multi_agent_episode.py) does it step by step: 60 us for three agents.

    Args:
        agents: for each agent the arguments of its SingleAgentEpisode.
        started: index of the first step in the episode.
        length: how many steps.
        seconds: what `get_duration_s` returns.
    """
    from ray.rllib.env.single_agent_episode import SingleAgentEpisode
    from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer

    for agent, given in agents.items():
        episode.agent_episodes[agent] = SingleAgentEpisode(
            agent_id=agent,
            module_id=episode.module_for(agent),
            multi_agent_episode_id=episode.id_,
            t_started=started,
            len_lookback_buffer=0,
            **given,
        )
        # counted from the chunk's start: `get_actions(-1)` compares an agent's own time with the length of the
        # chunk (2.60, `_get_inf_lookback_buffer_or_dict`) and finds nothing where they happen to be equal
        episode.env_t_to_agent_t[agent] = InfiniteLookbackBuffer(list(range(length + 1)))
        episode.agent_t_started[agent] = 0
    episode.env_t_started, episode.env_t = started, started + length
    episode.is_terminated, episode.is_truncated = terminated, truncated
    episode._start_time, episode._last_step_time = 0.0, seconds


def share_custom_data(episode: Any, successor: Any) -> None:
    """Let the next chunk of a MultiAgentEpisode go on with what hooks kept in `custom_data` (2.60, no setter)."""
    successor._custom_data = episode._custom_data


def latest_checkpoint(trial: Any) -> Path | None:
    """Return the folder a Tune trial goes on from, or None (2.60: `Trial.checkpoint`)."""
    known = trial.checkpoint
    return None if known is None else Path(known.path)


def folder_of(trial: Any) -> Path | None:
    """Return a Tune trial's folder on a local file system, seen from the driver (2.60: `Trial.storage`)."""
    storage = trial.storage
    if storage is None or storage.storage_filesystem.type_name != "local":
        return None
    return Path(storage.trial_fs_path)


def exploit_checkpoint(trial: Any, path: Path) -> None:
    """Point a trial that exploits another one at its own copy of that one's checkpoint.

    `PopulationBasedTraining._exploit` (2.60) sets the same attribute to the other trial's folder.
    """
    from ray.train._internal.session import _TrainingResult
    from ray.tune import Checkpoint

    manager = trial.run_metadata.checkpoint_manager
    result = _TrainingResult(Checkpoint.from_directory(str(path)), manager._latest_checkpoint_result.metrics)
    others = [(Path(r.checkpoint.path), r) for r in manager._checkpoint_results]
    manager._checkpoint_results = [r for place, r in others if place != path and place.is_dir()] + [result]
    manager._latest_checkpoint_result = result


def pbt_iteration(scheduler: Any, trial: Any) -> int | None:
    """Return the iteration of the checkpoint of a trial that others may exploit, or None (2.60: `_trial_state`)."""
    state = scheduler._trial_state.get(trial)
    return state.last_result.get("training_iteration") if state is not None and state.last_result else None


def prune_checkpoints(trial: Any, keep: int, protect: int | None) -> None:
    """Delete a trial's checkpoints but the best `keep`, the newest one, and those of iteration `protect`.

    What `_CheckpointManager.register_checkpoint` does (2.60) when `num_to_keep` is set; it knows no protection.
    """
    manager = trial.run_metadata.checkpoint_manager
    ranked = manager._checkpoint_results  # worst first
    kept = []
    for position, result in enumerate(ranked):
        needed = position >= len(ranked) - keep or result is manager._latest_checkpoint_result
        if needed or result.metrics.get("training_iteration") == protect:
            kept.append(result)
        else:
            shutil.rmtree(result.checkpoint.path, ignore_errors=True)
    manager._checkpoint_results = kept


def keep_chunks(env_runner: Any, samples: Sequence[Any]) -> None:
    """Give an EnvRunner copies of the episodes it just sampled, for its metrics and for `prev_episode_chunks`.

    It keeps the objects that it returns, in `_done_episodes_for_metrics` and `_ongoing_episodes_for_metrics` (2.60).
    In one process with the learner or a replay buffer these go on changing: `AddOneTsToEpisodesAndTruncate` appends a
    step, `concat_episode` the next fragment, so that episodes of 7 steps were reported as 9.
    """
    copies = {id(episode): _copy_of(episode) for episode in samples}
    done = env_runner._done_episodes_for_metrics
    done[:] = [copies.get(id(episode), episode) for episode in done]
    chunks = env_runner._ongoing_episodes_for_metrics
    for episode in samples:
        if not episode.is_done and episode.id_ in chunks:
            chunks[episode.id_] = [copies.get(id(one), one) for one in chunks[episode.id_]]


def _copy_of(episode: Any) -> Any:
    """Return an episode with buffers of its own; the arrays in them are shared, but for rewards."""
    new = copy.copy(episode)
    agents = getattr(episode, "agent_episodes", None)
    if agents is not None:
        new.agent_episodes = {agent: _copy_of(one) for agent, one in agents.items()}
        new.env_t_to_agent_t = copy.copy(episode.env_t_to_agent_t)
        return new
    for name in ("observations", "infos", "actions", "rewards"):
        setattr(new, name, _copy_of_buffer(getattr(episode, name)))
    new.rewards.data = copy.copy(new.rewards.data)
    new.extra_model_outputs = {k: _copy_of_buffer(b) for k, b in episode.extra_model_outputs.items()}
    return new


def _copy_of_buffer(buffer: Any) -> Any:
    """`append` and `extend` of an InfiniteLookbackBuffer (2.60) replace arrays and change lists."""
    new = copy.copy(buffer)
    if isinstance(new.data, list):
        new.data = list(new.data)
    return new


def count_time(episode: Any) -> None:
    """Note that an episode has made a step now: what `get_duration_s` is computed from (2.60, no setter)."""
    episode._last_step_time = time.perf_counter()
    if episode._start_time is None:
        episode._start_time = episode._last_step_time


def take_done_episodes(env_runner: Any) -> list[Any]:
    """Take the episodes that ended from an EnvRunner's metrics, with what it kept of their chunks (2.60)."""
    done = list(env_runner._done_episodes_for_metrics)
    env_runner._done_episodes_for_metrics.clear()
    for episode in done:
        env_runner._ongoing_episodes_for_metrics.pop(episode.id_, None)
    return done


@dataclass(frozen=True)
class Raised:
    """An exception in a remote env runner, on its way to the driver."""

    message: str  # type and text
    traceback: str


def guard_runners(
    group: Any,
    *,
    on_raise: Callable[[int, Raised], Exception],
    on_death: Callable[[int, Exception, bool], None],
) -> None:
    """Hear of every call to a remote EnvRunner of an EnvRunnerGroup that ends with an exception or a death.

    `FaultAwareApply.apply` (2.60, utils/actor_manager.py) answers an exception by sleeping for
    `delay_between_env_runner_restarts_s` (60) and ending the process, so that a bug of an environment is a dead actor
    without a message, restarted up to 1,000 times. Here the call brings the exception back as a value.

    Args:
        on_raise: gets the runner's index and the exception; raises what ends the run, or returns the error to go on
            with. Then the runner is started anew: what it was doing is half done.
        on_death: gets the runner's index, Ray's error, and whether Ray will not start it again; may raise. It is called
            once for each death, not for the calls that find the runner still starting.
    """
    import ray
    from ray.exceptions import ActorDiedError, RayActorError
    from ray.rllib.utils.actor_manager import ResultOrError, _method_caller

    manager = group._worker_manager
    call, fetch = manager._call_actors, manager._fetch_result

    def guarded(func: Any) -> Any:
        return functools.partial(_guarded, _method_caller(func) if isinstance(func, str) else func)

    def call_actors(func: Any, **kwargs: Any) -> Any:
        return call(func=[guarded(f) for f in func] if isinstance(func, list) else guarded(func), **kwargs)

    def fetch_result(**kwargs: Any) -> Any:
        alive = {index for index in kwargs["remote_actor_ids"] if manager.is_actor_healthy(index)}
        ready, results = fetch(**kwargs)
        for answer in results.result_or_errors:
            value = answer.get()
            if isinstance(value, Raised):
                error = on_raise(answer.actor_id, value)
                answer.result_or_error = ResultOrError(error=error)
                manager.set_actor_state(answer.actor_id, healthy=False)
                ray.kill(manager.actors()[answer.actor_id], no_restart=False)
            elif not answer.ok and isinstance(value, RayActorError):
                gone = isinstance(value, ActorDiedError)
                if gone or answer.actor_id in alive:
                    alive.discard(answer.actor_id)
                    on_death(answer.actor_id, value, gone)
        return ready, results

    manager._call_actors, manager._fetch_result = call_actors, fetch_result


def _guarded(func: Callable[..., Any], env_runner: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        return func(env_runner, *args, **kwargs)
    except Exception as error:
        shown = error.__cause__ if not str(error) and error.__cause__ is not None else error
        return Raised(f"{type(shown).__name__}: {shown}", traceback.format_exc())


def sampled_env_steps(algorithm: Any) -> int:
    """Return the env steps of all runners so far, as the algorithm has counted them (2.60: its metrics logger)."""
    from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME

    return int(algorithm.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), default=0))


def print_to_stderr() -> None:
    """Send what Ray prints in this process for other processes to stderr; stdout belongs to results.

    `listen_error_messages` (2.60, _private/worker.py) prints "A worker died or was killed …" to stdout even without
    `log_to_driver`; with it, so it prints what workers print.
    """
    from ray._private import worker

    own = worker.print_to_stdstream
    if getattr(own, "rlkit", False):
        return

    def to_stderr(data: dict[str, Any], ignore_prefix: bool) -> None:
        own({**data, "is_err": True}, ignore_prefix)

    to_stderr.rlkit = True  # type: ignore[attr-defined]
    worker.print_to_stdstream = to_stderr


def forwards_separately(module: Any, call: str) -> bool:
    """Whether a MultiRLModule runs each of its modules by itself in `forward_exploration` or `forward_inference`.

    One of its own kind overrides the underscored methods and may let modules see each other's batches (2.60,
    core/rl_module/multi_rl_module.py).
    """
    from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule

    names = (f"_{call}", "_forward")
    return all(getattr(type(module), name) is getattr(MultiRLModule, name) for name in names)


class RunnerInside:
    """Mixin for env runners, before RLlib's class: the private side that a loop of one's own needs.

    It serves `SingleAgentEnvRunner` and `MultiAgentEnvRunner`.
    2.60 has no public hook between `sample()`, which logs and calls `on_sample_end`, and the loop inside it.
    """

    config: Any
    metrics: Any
    env: Any
    module: Any
    num_envs: int
    num_env_steps_sampled_lifetime: int
    make_env: Any

    def collect(self, **asked: Any) -> Any:
        """The loop of `sample()`: `num_timesteps` or `num_episodes`, `explore`, `random_actions`, `force_reset`."""
        return self.collect_episodes(**asked)

    def collect_episodes(self, **asked: Any) -> Any:
        """RLlib's own loop."""
        return super()._sample(**asked)  # type: ignore[misc]

    def _sample(self, **asked: Any) -> Any:
        return self.collect(**asked)

    @property
    def needs_reset(self) -> bool:
        """Whether the environments start anew, with the seed, in the next sample."""
        return bool(self._needs_initial_reset)

    @needs_reset.setter
    def needs_reset(self, value: bool) -> None:
        self._needs_initial_reset = value

    @property
    def first_seed(self) -> int | None:
        """The seed of the first reset."""
        return self._seed if self._needs_initial_reset else None  # type: ignore[attr-defined]

    @property
    def torch_device(self) -> Any:
        """Where the module is."""
        return self._device  # type: ignore[attr-defined]

    @property
    def pipelines(self) -> tuple[Any, Any]:
        """The env-to-module and the module-to-env pipeline."""
        return self._env_to_module, self._module_to_env  # type: ignore[attr-defined]

    @property
    def weights_number(self) -> int:
        """The number of the weights the module has."""
        return int(self._weights_seq_no)  # type: ignore[attr-defined]

    @property
    def current(self) -> list[Any]:
        """The episode each environment is in."""
        return self._ongoing_episodes

    @current.setter
    def current(self, episodes: list[Any]) -> None:
        self._ongoing_episodes = episodes

    @property
    def earlier_chunks(self) -> Any:
        """Chunks of episodes that go on, by id: `prev_episode_chunks` of `on_episode_end`."""
        return self._ongoing_episodes_for_metrics  # type: ignore[attr-defined]

    def begin_episode(self, row: int) -> None:
        """Make the next episode of an environment and call `on_episode_created`."""
        self._new_episode(row, self._ongoing_episodes)  # type: ignore[attr-defined]

    def call_hook(self, name: str, row: int) -> None:
        """Call an episode hook for the episode of an environment."""
        self._make_on_episode_callback(name, row, self._ongoing_episodes)  # type: ignore[attr-defined]

    def begin_shared_data(self) -> None:
        """Empty what connectors share within a sample."""
        self._shared_data: dict[str, Any] = {}

    def log_episode(self, *numbers: Any) -> None:
        """Log length, return, seconds (and per-agent numbers) of a finished episode."""
        self._log_episode_metrics(*numbers)  # type: ignore[attr-defined]

    def count_sampled(self, steps: int, episodes: int) -> None:
        """Log the counts of one sample of a single agent."""
        self.count_env_steps(steps)
        self._increase_sampled_metrics(steps, episodes)  # type: ignore[attr-defined]

    def count_env_steps(self, steps: int) -> None:
        """Tell Ray's metrics how many env steps were sampled."""
        self._log_env_steps(metric=self._metrics_num_env_steps_sampled, num_steps=steps)  # type: ignore[attr-defined]


def refill(episode: Any, made: Any, seconds: float) -> None:
    """Put the steps of `made` into a SingleAgentEpisode that hooks know; its `custom_data` stays (2.60: `__slots__`).

    Args:
        seconds: what `get_duration_s` returns.
    """
    for name in type(made).__slots__:
        if name != "_custom_data":
            setattr(episode, name, getattr(made, name))
    episode._start_time, episode._last_step_time = 0.0, seconds


def observation_filter(piece: Any) -> Callable[[Any], Any]:
    """Return what RLlib's MeanStdFilter does to one observation of a single agent (2.60, no accessor)."""
    if piece._filters is None:
        piece._init_new_filters()

    def normalised(observation: Any) -> Any:
        return piece._filters[None](observation, update=piece._update_stats)

    return normalised


def removed_keys(piece: Any) -> tuple[str, ...]:
    """Return the keys that RLlib's FlattenObservations leaves out (2.60, no accessor)."""
    return tuple(piece._keys_to_remove)


def flattens_for_learner(piece: Any) -> bool:
    """Whether RLlib's FlattenObservations is one for learners or several agents (2.60, no accessor)."""
    return bool(piece._as_learner_connector or piece._multi_agent)


def share_hanging_rewards(first: Any, joined: Any) -> None:
    """Let the whole of a MultiAgentEpisode begin with the rewards its first piece had not given away yet (2.60)."""
    joined._hanging_rewards_begin = first._hanging_rewards_begin


def lookback_buffer(data: Any, *, lookback: int, finalized: bool, like: Any = None) -> Any:
    """Return an InfiniteLookbackBuffer around `data` as it is, with the space of another one.

    The constructor (2.60) looks through the data; a buffer that is built for every edited trajectory cannot wait.
    """
    from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer

    new = InfiniteLookbackBuffer.__new__(InfiniteLookbackBuffer)
    new._space, new._space_struct = (None, None) if like is None else (like._space, like._space_struct)
    new.data, new.lookback, new.finalized = data, lookback, finalized
    return new


def wants_component(owner: Any, name: str, components: Any, not_components: Any) -> bool:
    """Whether a `get_state(components, not_components=…)` of a Checkpointable asks for a component (2.60)."""
    wanted: bool = owner._check_component(name, components, not_components)
    return wanted


class ResultFile:
    """Mixin before Tune's JsonLoggerCallback: which file a trial's results go to."""

    _trial_files: dict[Any, Any]

    def write_to(self, trial: Any, file: Any) -> None:
        self._trial_files[trial] = file


class EventWriter:
    """Mixin before Tune's TBXLoggerCallback: the TensorBoard writer of a trial."""

    _trial_writer: dict[Any, Any]
    _trial_result: dict[Any, Any]
    _summary_writer_cls: Callable[..., Any]

    def write_into(self, trial: Any, folder: str) -> None:
        """Write a trial's events into a folder from now on."""
        if trial in self._trial_writer:
            self._trial_writer[trial].close()
        self._trial_writer[trial] = self._summary_writer_cls(folder, flush_secs=30)
        self._trial_result[trial] = {}


class ModelSettings:
    """Mixin before an AlgorithmConfig: `model_settings` reach every module's `model_config` (2.60: a property)."""

    def model_settings(self) -> dict[str, Any]:
        raise NotImplementedError

    @property
    def _model_config_auto_includes(self) -> dict[str, Any]:
        return super()._model_config_auto_includes | self.model_settings()  # type: ignore[misc]


class QForward:
    """Mixin before RLlib's DQN module: `q_forward` is asked for the Q-values of a batch, whichever network's."""

    def q_forward(self, batch: Any, encoder: Any, head: Any) -> dict[str, Any]:
        """RLlib's own: encoder, then heads (2.60, default_dqn_rl_module.py)."""
        out: dict[str, Any] = super()._qf_forward_helper(batch, encoder, head)  # type: ignore[misc]
        return out

    def _qf_forward_helper(self, batch: Any, encoder: Any, head: Any) -> dict[str, Any]:
        return self.q_forward(batch, encoder, head)

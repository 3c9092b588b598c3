"""Algorithm configs, the environments they name, and the catalogs and modules that are built from them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any


def add_callbacks(config: Any, callbacks: Sequence[Callable[[], Any]]) -> None:
    """Append callbacks to those a config has already, through its public method.

    `AlgorithmConfig.callbacks()` replaces the list, and the list is kept in the public attribute
    `callbacks_class` (2.60: a class or a list of zero-argument callables).
    """
    from ray.rllib.callbacks.callbacks import RLlibCallback

    known = config.callbacks_class
    known = list(known) if isinstance(known, list | tuple) else [known]
    config.callbacks([*(c for c in known if c is not RLlibCallback), *callbacks])


def register_env(name: str, creator: Callable[[Any], Any]) -> None:
    """Register an environment with Tune, and leave Ray as it is.

    `ray.tune.register_env` starts a Ray where none runs, and a second one where the first is half started: it asks
    `_internal_kv_initialized`, which Ray connects for. While Ray starts, that is true a moment before there is a job
    id, which the registry asks for next (2.60, `_Registry.prefix`). So the registry is told to ask whether this process
    is connected. Until then the name waits in the registry, and `ray.init` writes it down.
    """
    from ray.tune import registry

    registry._internal_kv_initialized = _connected
    registry.register_env(name, creator)


def _connected() -> bool:
    from ray._private.worker import global_worker

    return bool(global_worker.connected)


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


def take_offline(config: Any) -> None:
    """Make a config one of an algorithm that steps no environment (2.60: RLlib does so for MARWIL, not for CQL)."""
    config._is_online = False


def state_space_of_env(config: Any) -> Any:
    """Make a config's environment once and return the space of its global state, (S,).

    PettingZoo's API has `state()` and, where an environment declares it, `state_space`.

    Raises:
        ValueError: it has no `state()`, or one that is no array.
    """
    import gymnasium as gym
    import numpy as np
    from ray.rllib.env.env_context import EnvContext

    env = env_creator_of(config)(EnvContext(dict(config.env_config), worker_index=0))
    try:
        own = env.unwrapped
        state = getattr(own, "state", None)
        try:
            if not callable(state):
                raise ValueError("no state()")
            env.reset()
            found = np.asarray(state(), np.float32).reshape(-1)
        except Exception as error:
            raise ValueError(
                f"critic_input: got 'state', but {config.env} gives no global state ({type(error).__name__}: {error}); "
                "write critic_input: observations, or give the environment PettingZoo's state()"
            ) from error
        return gym.spaces.Box(-np.inf, np.inf, found.shape, np.float32)
    finally:
        env.close()


def given_module_spec(config: Any) -> Any:
    """Return the rl_module_spec the user gave, or None (2.60: the public property merges it with the default)."""
    return config._rl_module_spec


class ModelSettings:
    """Mixin before an AlgorithmConfig: `model_settings` reach every module's `model_config` (2.60: a property)."""

    model_config: Any

    def model_settings(self) -> dict[str, Any]:
        raise NotImplementedError

    def given_model_config(self) -> dict[str, Any]:
        """Return `model_config` without what RLlib and `model_settings` put into every module's."""
        return {k: v for k, v in self.model_config.items() if k not in self._model_config_auto_includes}

    @property
    def _model_config_auto_includes(self) -> dict[str, Any]:
        return super()._model_config_auto_includes | self.model_settings()  # type: ignore[misc]


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


class QForward:
    """Mixin before RLlib's DQN module: `q_forward` is asked for the Q-values of a batch, whichever network's."""

    def q_forward(self, batch: Any, encoder: Any, head: Any) -> dict[str, Any]:
        """RLlib's own: encoder, then heads (2.60, default_dqn_rl_module.py)."""
        out: dict[str, Any] = super()._qf_forward_helper(batch, encoder, head)  # type: ignore[misc]
        return out

    def _qf_forward_helper(self, batch: Any, encoder: Any, head: Any) -> dict[str, Any]:
        return self.q_forward(batch, encoder, head)


@contextmanager
def traceable_heads(module: Any) -> Iterator[None]:
    """Heads with a free log std of a torch module compute the same without `len(rows)` while this lasts.

    `TorchFreeLogStdMLPHead._forward` (core/models/torch/heads.py, 2.60) repeats its log std by `[len(mean), 1]`, which
    torch.export takes as a constant number of rows.
    """
    import torch
    from ray.rllib.core.models.torch.heads import TorchFreeLogStdMLPHead

    def of(head: Any) -> Callable[..., Any]:
        def compute(inputs: torch.Tensor, **_: Any) -> torch.Tensor:
            mean, bound = head.net(inputs), head.log_std_clip_param_const
            log_std = torch.clamp(head.log_std, -bound, bound) if head.clip_log_std else head.log_std
            return torch.cat([mean, log_std.expand_as(mean)], dim=1)

        return compute

    heads: list[Any] = [part for part in module.modules() if isinstance(part, TorchFreeLogStdMLPHead)]
    for head in heads:
        head._forward = of(head)
    try:
        yield
    finally:
        for head in heads:
            del head._forward


def forward(module: Any, call: str) -> Callable[..., Any]:
    """Return `module.forward_inference` or `forward_exploration`, the short way where it makes no difference.

    The public methods of a TorchRLModule set evaluation mode on every sub-module at each call and then call the
    underscored ones (torch_rl_module.py, 2.60): 412 instead of 314 us for 32 rows of DQN's default module.
    """
    from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule

    public = getattr(module, call)
    own = getattr(type(module), call, None) is getattr(TorchRLModule, call) and call not in vars(module)
    return getattr(module, f"_{call}") if own and not module.training else public


def forwards_separately(module: Any, call: str) -> bool:
    """Whether a MultiRLModule runs each of its modules by itself in `forward_exploration` or `forward_inference`.

    One of its own kind overrides the underscored methods and may let modules see each other's batches (2.60,
    core/rl_module/multi_rl_module.py).
    """
    from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule

    names = (f"_{call}", "_forward")
    return all(getattr(type(module), name) is getattr(MultiRLModule, name) for name in names)

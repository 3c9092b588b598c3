"""The config of algorithms whose critics see everybody: options, modules, and what can be combined.

What can be set, and to what, stands in `rlkit.algos.centralised.options`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, ClassVar

import gymnasium as gym
from ray.rllib.algorithms.algorithm_config import NotProvided
from ray.rllib.connectors.common import AddObservationsFromEpisodesToBatch
from ray.rllib.core import DEFAULT_AGENT_ID, DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES

from rlkit import rllib
from rlkit.algos.centralised.ensembles import Ensembles
from rlkit.algos.centralised.extension import Extension
from rlkit.algos.centralised.inferred import InferredPolicies
from rlkit.algos.centralised.module import OPTIONS
from rlkit.algos.centralised.networks import FIELDS
from rlkit.algos.centralised.options import CENTRALIZED, MADDPGOptions
from rlkit.algos.centralised.rules import OF_ALL
from rlkit.algos.centralised.spaces import Joint
from rlkit.algos.offpolicy.config import OffPolicyConfig
from rlkit.algos.options import OTHERS, documented_by, for_policy
from rlkit.algos.rules import keeps_state
from rlkit.algos.sampling.joint_runner import JointSampling
from rlkit.errors import did_you_mean

EXTENSIONS = (InferredPolicies, Ensembles)
OWN_SETTINGS = ("rlkit_model", "pi_gain", "vf_gain", "head_fcnet_hiddens", *FIELDS)


class CentralisedConfig(rllib.ModelSettings, JointSampling, OffPolicyConfig):
    """Base of `MADDPGConfig`; its attributes are the fields of `MADDPGOptions`."""

    # read by OffPolicyConfig before the instance has its own
    replay_buffer_config: dict[str, Any] = {}  # noqa: RUF012
    of_all_modules: ClassVar[tuple[str, ...]] = (*OffPolicyConfig.of_all_modules, *OF_ALL)

    def __init__(self, algo_class: type | None = None):
        super().__init__(algo_class=algo_class)
        for name, value in MADDPGOptions():
            setattr(self, name, value)
        self.replay_buffer_defaults = {**self.replay_buffer_config, "alpha": 0.6, "beta": 0.4}
        self.rollout_fragment_length = "auto"
        self.count_steps_by = "env_steps"
        self.min_sample_timesteps_per_iteration = 1000

    @documented_by(MADDPGOptions, default=NotProvided)
    def training(self, **kwargs: Any) -> CentralisedConfig:
        """Set MADDPG's options, and those of the off-policy step."""
        names = set(MADDPGOptions.model_fields) - MADDPGOptions.rllibs
        own = {name: kwargs.pop(name) for name in names & set(kwargs)}
        super().training(**kwargs)
        if isinstance(own.get("critic"), Mapping):
            before = self.critic if isinstance(self.critic, dict) else {OTHERS: self.critic}
            own["critic"] = {**before, **own["critic"]}
        for name, value in own.items():
            if value is not NotProvided:
                setattr(self, name, value)
        return self

    def critic_of(self, module_id: str) -> str:
        """Return `centralized` or `local` for a policy."""
        return str(for_policy(self.critic, module_id, CENTRALIZED))

    @property
    def extension(self) -> Extension:
        """The extension that the options ask for, or one that does nothing."""
        return next((kind(self) for kind in EXTENSIONS if kind.wanted(self)), Extension(self))

    # What is refused ----------------------------------------------------------------------------------------

    def validate(self) -> None:
        """Check MADDPG's options.

        Raises:
            ValueError: what was got, what is expected.
        """
        MADDPGOptions.check({name: getattr(self, name) for name in MADDPGOptions.model_fields})
        for name in MADDPGOptions.per_policy if self.is_multi_agent else ():
            given = getattr(self, name)
            for module_id in given if isinstance(given, dict) else ():
                if module_id not in (*self.policies, OTHERS):
                    raise ValueError(
                        f"{name}: there is no policy {module_id!r}{did_you_mean(module_id, self.policies)}; "
                        f"policies: {', '.join(sorted(self.policies))}"
                    )
        self._check_model()
        self.extension.validate()
        super().validate()

    def _check_model(self) -> None:
        """Refuse fields of DefaultModelConfig that mean nothing here, instead of ignoring them."""
        defaults = asdict(DefaultModelConfig())
        for given in self._model_configs():
            for key, value in given.items():
                # a DefaultModelConfig object holds every field
                if key not in OWN_SETTINGS and (key not in defaults or defaults[key] != value):
                    raise ValueError(
                        f"model.{key}: MADDPG has no such setting{did_you_mean(key, OWN_SETTINGS)}; it takes "
                        f"{', '.join(FIELDS)}, or a registered model"
                    )

    def _model_configs(self) -> Iterator[dict[str, Any]]:
        """Return the given model settings, of all modules and of each."""
        yield self.given_model_config()
        spec = rllib.given_module_spec(self)
        specs = list(getattr(spec, "rl_module_specs", {}).values()) or [spec]
        found = (getattr(s, "model_config", None) for s in specs)
        yield from (given for given in found if isinstance(given, dict))

    def recurrent_model(self) -> bool:
        """Whether a policy is recurrent."""
        return any(
            keeps_state({**given, **(given.get("rlkit_model") or {})}) for given in self._model_configs()
        )

    # Modules ------------------------------------------------------------------------------------------------

    def model_settings(self) -> dict[str, Any]:
        return {OPTIONS: self._module_options(DEFAULT_MODULE_ID)}

    def _module_options(self, module_id: str) -> dict[str, Any]:
        names = ("normalize_actions", "exploration_noise", "twin_q", "normalize_observations")
        return {n: getattr(self, n) for n in names} | self.extension.module_options(module_id)

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=self.extension.module_class)

    def get_multi_rl_module_spec(
        self, *, env: Any = None, spaces: Any = None, inference_only: bool = False, **kwargs: Any
    ) -> Any:
        """RLlib's, with what a centralised critic must know in each module's options: all agents and their spaces."""
        spec = super().get_multi_rl_module_spec(
            env=env, spaces=spaces, inference_only=inference_only, **kwargs
        )
        modules = spec.rl_module_specs
        joint = None
        if not inference_only:
            found = {m: (s.observation_space, s.action_space) for m, s in modules.items()}
            mapping = self.policy_mapping_fn if self.is_multi_agent else _alone
            joint = Joint.of(self.agents(env, spaces), mapping, found, self.normalize_actions)
        for module_id, module in modules.items():
            place = {"module_id": module_id, "critic": self.critic_of(module_id), "joint": joint}
            module.model_config = {**module.model_config, OPTIONS: self._module_options(module_id) | place}
        return spec

    def build_env_to_module_connector(self, env: Any = None, spaces: Any = None, device: Any = None) -> Any:
        pipeline = super().build_env_to_module_connector(env, spaces, device)
        for connector in self.extension.connectors(self.agents(env, spaces)):
            pipeline.insert_after(AddObservationsFromEpisodesToBatch, connector)
        return pipeline

    def agents(self, env: Any = None, spaces: Any = None) -> list[str]:
        """Return the agents of the environment, from whatever is at hand."""
        if not self.is_multi_agent:
            return [DEFAULT_AGENT_ID]
        single = (spaces or {}).get(INPUT_ENV_SINGLE_SPACES)
        for space in (single[0] if single else None, self.observation_space):
            if isinstance(space, gym.spaces.Dict):
                return list(space.spaces)
        known = getattr(getattr(env, "unwrapped", env), "possible_agents", None)
        return list(known) if known else list(rllib.spaces_of_env(self)[0].spaces)


def _alone(agent: str, episode: Any) -> str:
    return DEFAULT_MODULE_ID

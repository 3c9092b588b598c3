"""What a PPO config knows of critics that see the team: who is in it, and what cannot be combined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

import gymnasium as gym
from ray.rllib.algorithms.algorithm_config import NotProvided
from ray.rllib.algorithms.ppo.ppo import PPOConfig as RLlibPPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rlkit import rllib
from rlkit.algos.centralised.options import CENTRALIZED, LOCAL
from rlkit.algos.onpolicy.team_module import OPTIONS, Team, TeamPPOModule
from rlkit.algos.options import OTHERS, for_policy
from rlkit.errors import did_you_mean
from rlkit.models.catalogs import KEY as MODEL
from rlkit.models.features import ModelRef, keeps_state
from rlkit.roster import fixed_policies, split_mask

CRITICS = (CENTRALIZED, LOCAL)
INPUTS = ("observations", "state")
NORMALIZE = ("running", "popart")


class TeamCritics(RLlibPPOConfig):
    """Mixin of `PPOConfig`: its words about teams."""

    def __init__(self, algo_class: type | None = None):
        super().__init__(algo_class=algo_class)
        self.critic: str | dict[str, str] = LOCAL
        self.critic_input = "observations"
        self.normalize_values: str | None = None

    def set_critics(
        self,
        critic: Literal["centralized", "local"] | dict[str, Literal["centralized", "local"]] = NotProvided,
        critic_input: Literal["observations", "state"] = NotProvided,
        normalize_values: Literal["running", "popart"] | None = NotProvided,
    ) -> None:
        """Set what `training` was given of these."""
        if critic is not NotProvided:
            before = self.critic if isinstance(self.critic, dict) else {OTHERS: self.critic}
            self.critic = {**before, **critic} if isinstance(critic, Mapping) else critic
        if critic_input is not NotProvided:
            self.critic_input = critic_input
        if normalize_values is not NotProvided:
            self.normalize_values = normalize_values

    def critic_of(self, module_id: str) -> str:
        """Return `centralized` or `local` for a policy."""
        return str(for_policy(self.critic, module_id, LOCAL))

    @property
    def judges_team(self) -> bool:
        """Whether any policy has a centralised critic."""
        given = self.critic.values() if isinstance(self.critic, Mapping) else (self.critic,)
        return CENTRALIZED in given

    def check_critics(self) -> None:
        """Check the words about teams.

        Raises:
            ValueError: what was got, what is expected, and the fix.
        """
        words = self.critic.values() if isinstance(self.critic, Mapping) else (self.critic,)
        for word in words:
            _one_of("critic", word, CRITICS)
        _one_of("critic_input", self.critic_input, INPUTS)
        if self.normalize_values is not None:
            _one_of("normalize_values", self.normalize_values, NORMALIZE)
        if not self.judges_team:
            for name, default in (("critic_input", INPUTS[0]), ("normalize_values", None)):
                if getattr(self, name) != default:
                    raise ValueError(
                        f"{name}: got {getattr(self, name)!r} with critic: local, expected a centralised critic; write "
                        f"critic: centralized, or leave out {name}"
                    )
            return
        if not self.is_multi_agent:
            raise ValueError(
                "critic: got 'centralized' for one agent, expected several agents with policies; write critic: local, "
                "or an environment of several agents"
            )
        for name in self.critic if isinstance(self.critic, Mapping) else ():
            if name not in (*self.policies, OTHERS):
                raise ValueError(
                    f"critic: there is no policy {name!r}{did_you_mean(name, self.policies)}; policies: "
                    f"{', '.join(sorted(self.policies))}"
                )
        if self.num_learners > 1:
            raise ValueError(
                f"critic: centralized learns with one learner, got num_learners: {self.num_learners}; write 0 or 1"
            )
        if not self.use_critic:
            raise ValueError("critic: got 'centralized' with use_critic: false; remove one of them")

    # Modules ------------------------------------------------------------------------------------------------

    def get_default_rl_module_spec(self) -> Any:
        spec = super().get_default_rl_module_spec()
        return RLModuleSpec(TeamPPOModule, catalog_class=spec.catalog_class) if self.judges_team else spec

    def get_multi_rl_module_spec(
        self, *, env: Any = None, spaces: Any = None, inference_only: bool = False, **kwargs: Any
    ) -> Any:
        """RLlib's, with what a centralised critic must know: the team."""
        spec = super().get_multi_rl_module_spec(
            env=env, spaces=spaces, inference_only=inference_only, **kwargs
        )
        if not self.judges_team:
            return spec
        modules = spec.rl_module_specs
        found = {m: (s.observation_space, s.action_space) for m, s in modules.items()}
        team = None if inference_only else self.team(env, found)
        for module_id, module in modules.items():
            settings = module.model_config
            settings = asdict(settings) if isinstance(settings, DefaultModelConfig) else dict(settings or {})
            if self.critic_of(module_id) == CENTRALIZED:
                self._check_module(module_id, module, settings)
                settings[OPTIONS] = {
                    "team": team,
                    "module_id": module_id,
                    "normalize": self.normalize_values,
                }
            module.model_config = settings
        return spec

    def _check_module(self, module_id: str, spec: RLModuleSpec, settings: Mapping[str, Any]) -> None:
        if not issubclass(spec.module_class, TeamPPOModule):
            raise ValueError(
                f"policy {module_id!r} is {spec.module_class.__name__}, which brings its own value function; a "
                "centralised critic needs PPO's own module: leave out module_class, or write critic: local"
            )
        for name, word in (("vf_share_layers", "share"), ("use_lstm", "use_lstm")):
            if settings.get(name):
                raise ValueError(
                    f"model.{word} is true for policy {module_id!r}: a centralised critic reads other inputs than the "
                    f"policy and shares no layers with it, and no sequences; write {word}: false, or critic: local"
                )
        given = settings.get(MODEL)
        if given and keeps_state(ModelRef(**given), split_mask(spec.observation_space, spec.action_space)[0]):
            raise ValueError(
                f"policy {module_id!r} has the recurrent model {given['name']!r}, and a centralised critic reads no "
                "sequences, expected a model without a state; write name: mlp, or critic: local"
            )

    def team(self, env: Any, modules: Mapping[str, tuple[gym.Space, gym.Space]]) -> Team:
        """Return the agents and the module that plays each.

        Args:
            env: one that is at hand, or None.
            modules: module -> (observation space, action space).

        Raises:
            ValueError: the environment has no fixed roster, an agent no policy, or no state where critics read it.
        """
        module_of = fixed_policies(self._agents(env), self.policy_mapping_fn, modules)
        spaces = {agent: modules[module] for agent, module in module_of.items()}
        return Team(module_of, spaces, self.state_space() if self.critic_input == "state" else None)

    def _agents(self, env: Any) -> list[Any]:
        known = getattr(getattr(env, "unwrapped", env), "possible_agents", None)
        if not known and isinstance(self.observation_space, gym.spaces.Dict):
            known = list(self.observation_space.spaces)
        if not known:
            known = list(rllib.spaces_of_env(self)[0].spaces)
        return list(known)

    def state_space(self) -> gym.Space:
        """Return the space of the environment's global state (PettingZoo's `state_space`), or of one it gave.

        Raises:
            ValueError: it has none.
        """
        return rllib.state_space_of_env(self)


def _one_of(name: str, value: Any, words: tuple[str, ...]) -> None:
    if value not in words:
        raise ValueError(f"{name}: got {value!r}{did_you_mean(value, words)}; expected {' or '.join(words)}")

"""Configuration of MADDPG and MATD3.

Defaults are those of the paper and its code where these still learn: γ .95, τ .01, batch 1024, two layers of 64 ReLU
units, gradients clipped at .5 per variable, logits regularised by 1e-3. Learning rates are 1e-3 (actors) and 2e-3
(critics), an update every 50 env steps, and Box actions get Gaussian noise from .5 down to .05, as in the
reimplementations that learn fastest on today's environments; the paper has .01, 100 and a sampled Gaussian.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

import gymnasium as gym
from ray.rllib.algorithms.algorithm_config import NotProvided
from ray.rllib.connectors.common import AddObservationsFromEpisodesToBatch
from ray.rllib.core import DEFAULT_AGENT_ID, DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES

from rlkit import rllib
from rlkit.algos.centralised.ensembles import DrawSubPolicies, TeamIndex, team_sizes
from rlkit.algos.centralised.joint import CENTRALIZED, LOCAL, Joint, teams_of
from rlkit.algos.centralised.module import OPTIONS, MADDPGModule
from rlkit.algos.centralised.networks import FIELDS
from rlkit.algos.offpolicy.config import BUFFER_TYPES, OffPolicyConfig
from rlkit.algos.sampling.joint_config import JointSampling
from rlkit.callbacks.base import Bound
from rlkit.errors import did_you_mean
from rlkit.exploration.schedule import Schedule

# in options given per policy: all policies that are not named
OTHERS = "*"
CRITICS = (CENTRALIZED, LOCAL)
GUMBEL = ("hard", "soft")
CLIPS = ("norm", "global_norm", "value")
OWN_SETTINGS = ("rlkit_model", "pi_gain", "vf_gain", "head_fcnet_hiddens", *FIELDS)

Numbers = float | list[list[float]]


class MADDPGConfig(JointSampling, OffPolicyConfig):
    """Configuration of MADDPG: see `training`, and docs/maddpg.md."""

    # read by OffPolicyConfig before the instance has its own
    replay_buffer_config: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, algo_class: type | None = None):
        super().__init__(algo_class=algo_class or _algorithm("MADDPG"))
        self.gamma = 0.95
        self.lr = None
        self.actor_lr: Numbers = 1e-3
        self.critic_lr: Numbers = 2e-3
        self.tau = 0.01
        self.grad_clip = 0.5
        self.grad_clip_by = "norm"
        self.train_batch_size_per_learner = 1024
        self.training_intensity = 20.48
        self.num_steps_sampled_before_learning_starts = 2_000
        self.n_step: int | list[int] = 1
        self.replay_buffer_config = {"type": "EpisodeReplayBuffer", "capacity": 1_000_000}
        self.replay_buffer_defaults = {**self.replay_buffer_config, "alpha": 0.6, "beta": 0.4}
        self.critic: str | dict[str, str] = CENTRALIZED
        self.twin_q = False
        self.policy_delay = 1
        self.target_noise = 0.0
        self.target_noise_clip = 0.5
        self.exploration_noise: Numbers = [[0, 0.5], [150_000, 0.05]]
        self.gumbel = "hard"
        self.temperature: Numbers = 1.0
        self.logit_regularisation = 1e-3
        self.infer_policies = False
        self.infer_entropy_coeff = 1e-3
        self.infer_batch_size = 100
        self.ensemble_size: int | dict[str, int] = 1
        self.teams: dict[str, list[str]] | None = None
        self.standardize_rewards = False
        self.normalize_observations = False
        self.burn_in_len = 0
        self.stack_agents = True
        self.rollout_fragment_length = "auto"
        self.count_steps_by = "env_steps"
        self.min_sample_timesteps_per_iteration = 1000

    def training(
        self,
        *,
        actor_lr: float | list[list[float]] = NotProvided,
        critic_lr: float | list[list[float]] = NotProvided,
        tau: float = NotProvided,
        n_step: int | list[int] = NotProvided,
        training_intensity: float | None = NotProvided,
        num_steps_sampled_before_learning_starts: int = NotProvided,
        replay_buffer_config: dict = NotProvided,
        store_buffer_in_checkpoints: bool = NotProvided,
        critic: Literal["centralized", "local"] | dict[str, str] = NotProvided,
        twin_q: bool = NotProvided,
        policy_delay: int = NotProvided,
        target_noise: float = NotProvided,
        target_noise_clip: float = NotProvided,
        exploration_noise: float | list[list[float]] = NotProvided,
        gumbel: Literal["hard", "soft"] = NotProvided,
        temperature: float | list[list[float]] = NotProvided,
        logit_regularisation: float = NotProvided,
        infer_policies: bool = NotProvided,
        infer_entropy_coeff: float = NotProvided,
        infer_batch_size: int = NotProvided,
        ensemble_size: int | dict[str, int] = NotProvided,
        teams: dict[str, list[str]] | None = NotProvided,
        standardize_rewards: bool = NotProvided,
        normalize_observations: bool = NotProvided,
        burn_in_len: int = NotProvided,
        stack_agents: bool = NotProvided,
        **kwargs: Any,
    ) -> MADDPGConfig:
        """Set MADDPG's options, and those of the off-policy step.

        Args:
            actor_lr: learning rate of the actors, or a schedule [[env step, value], ...].
            critic_lr: learning rate of the critics.
            tau: share of the new weights in the targets at each update.
            n_step: steps to the bootstrap, or a range to draw from.
            training_intensity: rows drawn per env step; 20.48 is a batch of 1024 every 50 env steps.
            num_steps_sampled_before_learning_starts: env steps before the first update.
            replay_buffer_config: type, capacity (joint rows), alpha, beta.
            store_buffer_in_checkpoints: keep the buffer in checkpoints.
            critic: what critics see: `centralized`, everybody's observations and actions, or `local`, their own
                agent's (independent DDPG); or one word per policy, `"*"` for all others.
            twin_q: two critics, and the smaller value as target (TD3).
            policy_delay: critic updates per update of actors and targets (TD3: 2).
            target_noise: standard deviation of noise on the target actors' Box actions, in half ranges (TD3: .2).
            target_noise_clip: bound of that noise.
            exploration_noise: standard deviation of the Gaussian noise on Box actions, in half ranges; a number or a
                schedule in env steps. An `exploration` of its own takes its place.
            gumbel: `hard` gives the critics straight-through one-hot actions of Discrete policies, `soft` relaxed ones.
            temperature: of the Gumbel-softmax; a number or a schedule in env steps.
            logit_regularisation: weight of the mean squared logits in the actors' loss.
            infer_policies: every agent models the others, and its critic's targets use the models (paper, 4.2).
            infer_entropy_coeff: weight of the models' entropy.
            infer_batch_size: latest rows that a model learns from in each update.
            ensemble_size: sub-policies per agent, one of them drawn per team and episode (paper, 4.3); or one number
                per policy, `"*"` for all others.
            teams: {team: [globs of agents]} that draw together; default: agents whose names differ in their number.
            standardize_rewards: learn from (reward - mean) / deviation, running statistics of each agent.
            normalize_observations: the same for observations; the statistics are part of the policy.
            burn_in_len: with `use_lstm`, first steps of a sequence that only warm the state up.
            stack_agents: compute policies of equal shape as one; false: one after the other.
        """
        super().training(**kwargs)
        given = {
            "actor_lr": actor_lr, "critic_lr": critic_lr, "tau": tau, "n_step": n_step,
            "training_intensity": training_intensity,
            "num_steps_sampled_before_learning_starts": num_steps_sampled_before_learning_starts,
            "replay_buffer_config": replay_buffer_config,
            "store_buffer_in_checkpoints": store_buffer_in_checkpoints, "twin_q": twin_q,
            "policy_delay": policy_delay, "target_noise": target_noise, "target_noise_clip": target_noise_clip,
            "exploration_noise": exploration_noise, "gumbel": gumbel, "temperature": temperature,
            "logit_regularisation": logit_regularisation, "infer_policies": infer_policies,
            "infer_entropy_coeff": infer_entropy_coeff, "infer_batch_size": infer_batch_size, "teams": teams,
            "ensemble_size": ensemble_size, "standardize_rewards": standardize_rewards,
            "normalize_observations": normalize_observations, "burn_in_len": burn_in_len,
            "stack_agents": stack_agents,
        }  # fmt: skip
        for name, value in given.items():
            if value is not NotProvided:
                setattr(self, name, value)
        if critic is not NotProvided:
            if isinstance(critic, Mapping):
                before = self.critic if isinstance(self.critic, dict) else {OTHERS: self.critic}
                critic = {**before, **critic}
            self.critic = critic
        return self

    def critic_of(self, module_id: str) -> str:
        """Return `centralized` or `local` for a policy."""
        if isinstance(self.critic, str):
            return self.critic
        return self.critic.get(module_id, self.critic.get(OTHERS, CENTRALIZED))

    def ensemble_of(self, module_id: str) -> int:
        """Return the number of sub-policies of a policy."""
        if isinstance(self.ensemble_size, int):
            return self.ensemble_size
        return self.ensemble_size.get(module_id, self.ensemble_size.get(OTHERS, 1))

    @property
    def has_ensembles(self) -> bool:
        """Whether any policy has more than one sub-policy."""
        sizes = [self.ensemble_size] if isinstance(self.ensemble_size, int) else self.ensemble_size.values()
        return any(size > 1 for size in sizes)

    def validate(self) -> None:
        """Check MADDPG's options.

        Raises:
            ValueError: what was got, what is expected.
        """
        if self.lr is not None:
            raise ValueError(
                f"lr: got {self.lr}; MADDPG has two learning rates, write actor_lr and critic_lr"
            )
        words = [("gumbel", self.gumbel, GUMBEL), ("grad_clip_by", self.grad_clip_by, CLIPS)]
        critics = self.critic.items() if isinstance(self.critic, dict) else [("", self.critic)]
        words += [(f"critic{'.' + m if m else ''}", kind, CRITICS) for m, kind in critics]
        for name, value, known in words:
            if value not in known:
                raise ValueError(
                    f"{name}: got {value!r}{did_you_mean(value, known)}; expected one of {', '.join(known)}"
                )
        sizes = self.ensemble_size.values() if isinstance(self.ensemble_size, dict) else [self.ensemble_size]
        for size in sizes:
            if size < 1:
                raise ValueError(
                    f"ensemble_size: got {self.ensemble_size}, expected at least 1 for every policy"
                )
        per_policy = {"critic": self.critic, "ensemble_size": self.ensemble_size}
        for name, given in per_policy.items():
            for module_id in given if isinstance(given, dict) and self.is_multi_agent else ():
                if module_id not in (*self.policies, OTHERS):
                    raise ValueError(
                        f"{name}: there is no policy {module_id!r}{did_you_mean(module_id, self.policies)}; "
                        f"policies: {', '.join(sorted(self.policies))}"
                    )
        for name, lowest in (
            ("policy_delay", 1),
            ("target_noise", 0),
            ("target_noise_clip", 0),
            ("logit_regularisation", 0),
            ("infer_entropy_coeff", 0),
            ("infer_batch_size", 1),
            ("burn_in_len", 0),
        ):
            if getattr(self, name) < lowest:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected at least {lowest}")
        if not 0 < self.tau <= 1:
            raise ValueError(
                f"tau: got {self.tau}, expected above 0 and at most 1; critics need targets that move"
            )
        if self.twin_q and self.tau == 1.0:
            raise ValueError(
                "twin_q: got twin_q True with tau 1.0, where targets are the critics themselves and the smaller of two "
                "values means nothing; write a tau below 1, or twin_q: false"
            )
        for name, least in (("exploration_noise", 0.0), ("temperature", 1e-6)):
            values = [v for _, v in Schedule(getattr(self, name)).points]
            if min(values) < least:
                raise ValueError(
                    f"{name}: got {min(values)}, expected {'above 0' if least else 'at least 0'}"
                )
        self._check_model()
        if self.infer_policies:
            self._check_inference()
        if self.has_ensembles:
            self._prepare_ensembles()
        super().validate()

    def _check_inference(self) -> None:
        if self._recurrent():
            raise ValueError(
                "infer_policies: got true together with use_lstm; models learn from single steps, choose one of them"
            )
        policies = list(self.policies) if self.is_multi_agent else []
        if all(self.critic_of(module_id) == LOCAL for module_id in policies):
            raise ValueError(
                f"infer_policies: got true with critics {self.critic!r}; only centralized critics of several agents "
                "look at the others, so there is nothing to infer"
            )

    def _recurrent(self) -> bool:
        spec = rllib.given_module_spec(self)
        specs = list(getattr(spec, "rl_module_specs", {}).values()) or [spec]
        given = [self.model_config, *(getattr(s, "model_config", None) for s in specs)]
        return any(isinstance(entry, dict) and bool(entry.get("use_lstm")) for entry in given)

    def _prepare_ensembles(self) -> None:
        """Check what ensembles can be combined with, and add the callback that draws sub-policies."""
        for name, given in (
            ("infer_policies", self.infer_policies),
            ("use_lstm", self._recurrent()),
            ("prioritized replay", BUFFER_TYPES.get(str(self.replay_buffer_config.get("type")))),
        ):
            if given:
                raise ValueError(
                    f"ensemble_size: got {self.ensemble_size} together with {name}; choose one of them"
                )
        if not self.is_multi_agent:
            raise ValueError(
                f"ensemble_size: got {self.ensemble_size} in an environment with one agent; leave it out"
            )
        _, sizes = self.teams_and_sizes(self._agents(None, None))
        known = self.callbacks_class if isinstance(self.callbacks_class, list | tuple) else []
        if not any(isinstance(c, Bound) and c.cls is DrawSubPolicies for c in known):
            rllib.add_callbacks(self, [DrawSubPolicies.bind(sizes=sizes)])

    def teams_and_sizes(self, agents: list[str]) -> tuple[dict[str, str], dict[str, int]]:
        """Return agent -> team, and team -> number of sub-policies.

        Raises:
            ValueError: members of a team differ, an agent is in no team, or a policy plays for two teams.
        """
        agents = sorted(map(str, agents))
        teams = teams_of(agents, self.teams)
        sizes = team_sizes(teams, {a: self.ensemble_of(self.policy_mapping_fn(a, None)) for a in agents})
        plays: dict[str, str] = {}
        for agent in agents:
            module = self.policy_mapping_fn(agent, None)
            other = plays.setdefault(module, agent)
            if sizes[teams[agent]] > 1 and teams[other] != teams[agent]:
                raise ValueError(
                    f"ensemble_size: policy {module!r} plays {other!r} of team {teams[other]!r} and {agent!r} of team "
                    f"{teams[agent]!r}; a sub-policy is drawn per team, give them a policy each"
                )
        return teams, sizes

    def _check_model(self) -> None:
        """Refuse fields of DefaultModelConfig that mean nothing here, instead of ignoring them."""
        spec = rllib.given_module_spec(self)
        specs = list(getattr(spec, "rl_module_specs", {}).values()) or [spec]
        own = {k: v for k, v in self.model_config.items() if k not in self._model_config_auto_includes}
        defaults = asdict(DefaultModelConfig())
        for given in (own, *(getattr(s, "model_config", None) for s in specs)):
            for key, value in given.items() if isinstance(given, dict) else ():
                # a DefaultModelConfig object holds every field
                if key not in OWN_SETTINGS and (key not in defaults or defaults[key] != value):
                    raise ValueError(
                        f"model.{key}: MADDPG has no such setting{did_you_mean(key, OWN_SETTINGS)}; it takes "
                        f"{', '.join(FIELDS)}, or a registered model"
                    )

    # Modules
    # ------------------------------------------------------------------------------------------------------

    @property
    def _model_config_auto_includes(self) -> dict[str, Any]:
        return super()._model_config_auto_includes | {OPTIONS: self._options()}

    def _options(self) -> dict[str, Any]:
        return {
            "normalize_actions": self.normalize_actions,
            "exploration_noise": self.exploration_noise,
            "ensemble_size": 1,
            "twin_q": self.twin_q,
            "infer_policies": self.infer_policies,
            "normalize_observations": self.normalize_observations,
        }

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=MADDPGModule)

    def get_default_learner_class(self) -> Any:
        from rlkit.algos.centralised.learner import MADDPGLearner

        return MADDPGLearner

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
            joint = self.joint(self._agents(env, spaces), found)
        for module_id, module in modules.items():
            options = {
                **self._options(),
                "ensemble_size": self.ensemble_of(module_id),
                "module_id": module_id,
                "critic": self.critic_of(module_id),
                "joint": joint,
            }
            module.model_config = {**module.model_config, OPTIONS: options}
        return spec

    def build_env_to_module_connector(self, env: Any = None, spaces: Any = None, device: Any = None) -> Any:
        """RLlib's pipeline; with ensembles, modules are told which sub-policy plays."""
        pipeline = super().build_env_to_module_connector(env, spaces, device)
        if self.has_ensembles:
            teams, sizes = self.teams_and_sizes(self._agents(env, spaces))
            pipeline.insert_after(AddObservationsFromEpisodesToBatch, TeamIndex(teams=teams, sizes=sizes))
        return pipeline

    def joint(self, agents: list[str], spaces: Mapping[str, Any]) -> Joint:
        """Return who plays whom.

        Raises:
            ValueError: an agent without a policy, or a space that no actor serves.
        """
        mapping = self.policy_mapping_fn if self.is_multi_agent else _alone
        joint = Joint.of(agents, mapping, spaces)
        joint.check(self.normalize_actions)
        return joint

    def _agents(self, env: Any, spaces: Any) -> list[str]:
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


def _algorithm(name: str) -> type[Any]:
    from rlkit.algos import maddpg

    return getattr(maddpg, name)


class MATD3Config(MADDPGConfig):
    """MADDPG with TD3's three changes: twin critics, delayed policies, smoothed targets (arXiv 1910.01465)."""

    def __init__(self, algo_class: type | None = None):
        super().__init__(algo_class=algo_class or _algorithm("MATD3"))
        self.twin_q = True
        self.policy_delay = 2
        self.target_noise = 0.2

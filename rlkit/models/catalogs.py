"""RLlib catalogs that build their encoders from a custom model, one per family of RLlib's modules.

RLlib's modules, heads and losses stay as they are. A catalog tells them which encoder to build:

    PPO, APPO, IMPALA, MARWIL   the model for the actor and again for the critic, or one for both (`share`)
    DQN                         the model, then the (dueling) heads; RLlib copies both for the target network
    SAC, CQL, IQL, TQC          the model for the policy; for each Q function the model again, its features
                                next to the action, then `fusionnet_hiddens`, or, where that is empty, the model
                                on both; discrete SAC: as DQN; recurrent ones in rlkit's SAC alone
    BC                          the model and the policy head

With an action mask the encoder hands the mask on behind the features, (B, F + A), and the head takes it off
again, so that it works in all of RLlib's modules without changing them. A module with a true attribute `masks` (rlkit's
DQN) masks its outputs itself; its heads only take the mask off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import gymnasium as gym
import torch
from ray.rllib.algorithms.bc.bc_catalog import BCCatalog
from ray.rllib.algorithms.dqn.dqn_catalog import DQNCatalog
from ray.rllib.algorithms.ppo.ppo_catalog import PPOCatalog
from ray.rllib.algorithms.sac.sac_catalog import SACCatalog
from ray.rllib.algorithms.tqc.tqc_catalog import TQCCatalog
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT, Encoder
from ray.rllib.core.models.catalog import Catalog
from ray.rllib.core.models.configs import ModelConfig, RecurrentEncoderConfig
from ray.rllib.core.models.torch.base import TorchModel
from ray.rllib.core.models.torch.primitives import TorchMLP
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.models.utils import get_initializer_fn
from torch import nn

from rlkit.errors import UsageError
from rlkit.models.features import ModelRef, as_float, measure
from rlkit.models.masks import ILLEGAL_LOGIT, ILLEGAL_Q, legal, masked
from rlkit.rllib import EncoderHook
from rlkit.roster import MASK_KEY, split_mask

ACTION, OBSERVATION = "action", "observation"  # the parts of what a model sees that reads both
KEY = "rlkit_model"  # where a module's `model_config` holds `ModelRef.to_dict()`


@dataclass
class FeaturesConfig(ModelConfig):
    """How to build the encoder around a custom model. `size` is F, `masked` the actions of each choice, or ()."""

    model: ModelRef = None  # type: ignore[assignment]  # dataclass inheritance demands a default
    space: gym.Space = None
    key: str | None = None
    masked: tuple[int, ...] = ()
    size: int = 0

    @property
    def output_dims(self) -> tuple[int]:
        return (self.size,)

    def build(self, framework: str = "torch") -> FeaturesEncoder:
        return FeaturesEncoder(self)


@dataclass
class RecurrentFeaturesConfig(RecurrentEncoderConfig):
    """The same for a recurrent model; RLlib treats a module as stateful by this base class."""

    features: FeaturesConfig = field(default_factory=FeaturesConfig)

    @property
    def output_dims(self) -> tuple[int]:
        return self.features.output_dims

    def build(self, framework: str = "torch") -> RecurrentFeaturesEncoder:
        return RecurrentFeaturesEncoder(self)


class FeaturesEncoder(TorchModel, Encoder):
    """`net` is the user's module: observations in, {ENCODER_OUT: features (B, F [+ A])} out."""

    def __init__(self, config: FeaturesConfig):
        TorchModel.__init__(self, config)
        Encoder.__init__(self, config)
        self.net = config.model.build(config.space)

    def _forward(self, inputs: dict, **kwargs: Any) -> dict:
        observation, mask = _observation(inputs[Columns.OBS], self.config)
        return {ENCODER_OUT: _with_mask(self.net(observation), mask)}


class RecurrentFeaturesEncoder(TorchModel, Encoder):
    """`net` is the user's recurrent module: (B, T, …) and state in, features (B, T, F [+ A]) and state out."""

    def __init__(self, config: RecurrentFeaturesConfig):
        TorchModel.__init__(self, config)
        Encoder.__init__(self, config)
        self.net = config.features.model.build(config.features.space)

    def get_initial_state(self) -> dict[str, torch.Tensor]:
        return dict(self.net.initial_state())

    def _forward(self, inputs: dict, **kwargs: Any) -> dict:
        observation, mask = _observation(inputs[Columns.OBS], self.config.features)
        features, state = self.net(observation, inputs[Columns.STATE_IN])
        return {ENCODER_OUT: _with_mask(features, mask), Columns.STATE_OUT: state}


def _observation(raw: Any, config: FeaturesConfig) -> tuple[Any, torch.Tensor | None]:
    if config.key is None:
        return as_float(raw, config.space), None
    return as_float(raw[config.key], config.space), legal(raw[MASK_KEY]).float()


def _with_mask(features: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    return features if mask is None else torch.cat([features, mask], dim=-1)


class MaskedHead(nn.Module):
    """A head behind a masked encoder. `illegal` replaces the outputs of illegal actions; None: the mask is dropped.

    Args:
        size: F.
        choices: actions of each choice.
    """

    def __init__(self, head: nn.Module, size: int, choices: tuple[int, ...], illegal: float | None):
        super().__init__()
        self.head, self.size, self.choices, self.illegal = head, size, choices, illegal

    def forward(self, inputs: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        outputs = self.head(inputs[..., : self.size])
        if self.illegal is None:
            return outputs
        return masked(outputs, inputs[..., self.size :] > 0.5, self.choices, self.illegal)


class QEncoder(TorchModel, Encoder):
    """Encoder of Q(s, a) for continuous actions: features (B, F) next to the action (B, A), then an MLP.

    A recurrent model sees observations (B, T, ...) alone; its features stand next to the actions (B, T, A).
    """

    def __init__(self, config: QEncoderConfig):
        TorchModel.__init__(self, config)
        Encoder.__init__(self, config)
        self.observation_encoder = config.features.build()
        self.fusion = TorchMLP(
            input_dim=config.features.output_dims[0] + config.action_size,
            hidden_layer_dims=config.hiddens,
            hidden_layer_activation=config.activation,
        )

    def fused(self, features: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Return what the Q head reads, from features (..., F) and actions (..., A)."""
        fused: torch.Tensor = self.fusion(torch.cat([features, actions], dim=-1))
        return fused

    def _forward(self, inputs: dict, **kwargs: Any) -> dict:
        features = self.observation_encoder({Columns.OBS: inputs[Columns.OBS]})[ENCODER_OUT]
        return {ENCODER_OUT: self.fused(features, inputs[Columns.ACTIONS])}


class JointQEncoder(TorchModel, Encoder):
    """Encoder of Q(s, a) for continuous actions: one model on both, as in SAC's own code (arXiv 1812.05905)."""

    def __init__(self, config: JointQEncoderConfig):
        TorchModel.__init__(self, config)
        Encoder.__init__(self, config)
        self.net = config.model.build(config.space)

    def _forward(self, inputs: dict, **kwargs: Any) -> dict:
        both = {ACTION: inputs[Columns.ACTIONS], OBSERVATION: inputs[Columns.OBS]}
        return {ENCODER_OUT: self.net(as_float(both, self.config.space))}


@dataclass
class JointQEncoderConfig(ModelConfig):
    """`space` holds action and observation, `size` is F."""

    model: ModelRef = None  # type: ignore[assignment]  # dataclass inheritance demands a default
    space: gym.spaces.Dict = None
    size: int = 0

    @property
    def output_dims(self) -> tuple[int]:
        return (self.size,)

    def build(self, framework: str = "torch") -> JointQEncoder:
        return JointQEncoder(self)


@dataclass
class QEncoderConfig(ModelConfig):
    features: FeaturesConfig | RecurrentFeaturesConfig = field(default_factory=FeaturesConfig)
    action_size: int = 0
    hiddens: list[int] = field(default_factory=list)
    activation: str = "relu"

    @property
    def output_dims(self) -> tuple[int]:
        return (self.hiddens[-1],)

    def build(self, framework: str = "torch") -> QEncoder:
        return QEncoder(self)


class _Custom(EncoderHook):
    """What the catalogs share; stands before RLlib's catalog in the bases. `family` is how messages call it."""

    family = ""
    illegal: float | None = None  # what an illegal action's output becomes; None: this family takes no mask
    recurrent = True  # whether the family's module keeps the state of a recurrent model
    wraps_lstm = True  # and of RLlib's LSTM behind another model
    # what the encoders are built from, where they are recurrent
    memory: RecurrentFeaturesConfig | None = None

    def __init__(
        self, observation_space: gym.Space, action_space: gym.Space, model_config_dict: Mapping, **kwargs: Any
    ):
        self.settings = asdict(DefaultModelConfig()) | dict(model_config_dict)
        super().__init__(observation_space, action_space, self.settings, **kwargs)  # type: ignore[call-arg]

    def encoder_config(self, observation_space: gym.Space, action_space: gym.Space) -> ModelConfig:
        settings, given = self.settings, self.settings[KEY]
        model = ModelRef(given["name"], given["target"], given["options"])
        space, key, choices = split_mask(observation_space, action_space)
        size, recurrent = measure(model, space)
        features = FeaturesConfig(model=model, space=space, key=key, masked=choices, size=size)
        self.features = features
        if choices and self.illegal is None:
            raise UsageError(
                f"RLlib's {self.family} does not take action masks, its loss takes logarithms of all probabilities; "
                f"use rlkit's {self.family}, PPO or DQN, or drop {MASK_KEY!r}"
            )
        if recurrent and not self.recurrent:
            raise UsageError(f"{self.family} takes no recurrent model here: RLlib's module keeps no state")
        if recurrent and settings["use_lstm"]:
            raise UsageError(f"the model {model.name!r} is recurrent itself; leave out model.use_lstm")
        if recurrent:
            self.memory = RecurrentFeaturesConfig(
                features=features, input_dims=None, hidden_dim=size, num_layers=1
            )
            return self.memory
        if settings["use_lstm"]:
            if not self.wraps_lstm:
                raise UsageError(
                    f"{self.family} does not put RLlib's LSTM behind a model (use_lstm); write model: {{name: lstm}}"
                )
            if not isinstance(space, gym.spaces.Box | gym.spaces.Discrete) or choices:
                raise UsageError(
                    f"model.use_lstm: RLlib's LSTM takes plain observations, got {observation_space}; write "
                    "model: {name: lstm}, which takes any, masked ones too"
                )
            return RecurrentEncoderConfig(
                recurrent_layer_type="lstm",
                hidden_dim=settings["lstm_cell_size"],
                num_layers=1,
                batch_major=True,
                tokenizer_config=features,
                hidden_weights_initializer=settings["lstm_kernel_initializer"],
                hidden_weights_initializer_config=settings["lstm_kernel_initializer_kwargs"],
                hidden_bias_initializer=settings["lstm_bias_initializer"],
                hidden_bias_initializer_config=settings["lstm_bias_initializer_kwargs"],
            )
        return features

    def _finish(self, head: nn.Module, gain: str | None = None, masks: bool = False) -> nn.Module:
        """Initialise a head that RLlib built, and put it behind the mask; `gain` names its last layer's setting."""
        layers = [layer for layer in head.modules() if isinstance(layer, nn.Linear)]
        weights = get_initializer_fn(self.settings["head_fcnet_kernel_initializer"], framework="torch")
        biases = get_initializer_fn(self.settings["head_fcnet_bias_initializer"], framework="torch")
        for layer in layers:  # RLlib's PPO and SAC catalogs leave these two settings out
            if weights:
                weights(layer.weight, **(self.settings["head_fcnet_kernel_initializer_kwargs"] or {}))
            if biases:
                biases(layer.bias, **(self.settings["head_fcnet_bias_initializer_kwargs"] or {}))
        if gain is not None and self.settings.get(gain) is not None:
            nn.init.orthogonal_(layers[-1].weight, self.settings[gain])
            nn.init.zeros_(layers[-1].bias)
        if not self.features.masked:
            return head
        illegal = self.illegal if masks else None
        return MaskedHead(head, self.features.output_dims[0], self.features.masked, illegal)


class CustomPPOCatalog(_Custom, PPOCatalog):
    """PPO, APPO, IMPALA, MARWIL."""

    family, illegal = "PPO", ILLEGAL_LOGIT

    def build_pi_head(self, framework: str) -> nn.Module:
        head, first = super().build_pi_head(framework), self.settings.get("log_std_init")
        if first is not None:
            if not hasattr(head, "log_std"):
                raise UsageError(
                    "model.log_std_init: this policy has no deviations beside its network; it takes free_log_std: true "
                    f"and Box actions, got free_log_std {self.settings['free_log_std']}, {self.action_space}"
                )
            nn.init.constant_(head.log_std, first)
        return self._finish(head, "pi_gain", masks=True)

    def build_vf_head(self, framework: str) -> nn.Module:
        return self._finish(super().build_vf_head(framework), "vf_gain")


class CustomBCCatalog(_Custom, BCCatalog):
    """BC."""

    family, illegal = "BC", ILLEGAL_LOGIT

    def build_pi_head(self, framework: str) -> nn.Module:
        return self._finish(super().build_pi_head(framework), "pi_gain", masks=True)


class CustomDQNCatalog(_Custom, DQNCatalog):
    """DQN and its descendants."""

    family, illegal = "DQN", ILLEGAL_Q

    def build_af_head(self, framework: str) -> nn.Module:
        head = self._finish(super().build_af_head(framework), masks=True)
        if isinstance(head, MaskedHead) and self.num_atoms > 1:
            raise UsageError(
                f"training.num_atoms is {self.num_atoms}: RLlib's DQN takes an action mask with 1 alone; rlkit's DQN "
                "takes any"
            )
        return head

    def build_vf_head(self, framework: str) -> nn.Module:
        return self._finish(super().build_vf_head(framework))


class MaskingDQNCatalog(CustomDQNCatalog):
    """DQN whose module masks the Q-values itself, those of distributions too."""

    def build_af_head(self, framework: str) -> nn.Module:
        return self._finish(super(CustomDQNCatalog, self).build_af_head(framework))


class CustomSACCatalog(_Custom, SACCatalog):
    """SAC, CQL, IQL."""

    family, recurrent, wraps_lstm = "SAC", False, False

    def __init__(
        self, observation_space: gym.Space, action_space: gym.Space, model_config_dict: Mapping, **kwargs: Any
    ):
        super().__init__(observation_space, action_space, model_config_dict, **kwargs)
        if isinstance(action_space, gym.spaces.Box):
            self.critic = self._critic(action_space)
            self.qf_head_config.input_dims = self.critic.output_dims

    def _critic(self, action_space: gym.spaces.Box) -> QEncoderConfig | JointQEncoderConfig:
        hiddens, features = list(self.settings["fusionnet_hiddens"]), self.features
        if hiddens:
            return QEncoderConfig(
                features=self.memory or features,
                action_size=int(action_space.shape[0]),
                hiddens=hiddens,
                activation=self.settings["fusionnet_activation"],
            )
        if self.memory:
            raise UsageError(
                f"model.fusionnet_hiddens is empty: the model {features.model.name!r} would see actions too, and a "
                "recurrent one sees observations alone; expected the sizes of the layers behind it, e.g. [64]"
            )
        # modules act in -1 to 1, whatever the environment's bounds
        actions = gym.spaces.Box(-1.0, 1.0, action_space.shape)
        space = gym.spaces.Dict({ACTION: actions, OBSERVATION: features.space})
        try:
            size, _ = measure(features.model, space)
        except UsageError as error:
            raise UsageError(
                f"model.fusionnet_hiddens is empty, so critics give the model action and observation together: {error}"
            ) from None
        return JointQEncoderConfig(model=features.model, space=space, size=size)

    def build_qf_encoder(self, framework: str) -> Encoder:
        if not isinstance(self.action_space, gym.spaces.Box):
            return self.build_encoder(framework)
        return self.critic.build()

    def build_pi_head(self, framework: str) -> nn.Module:
        return self._finish(super().build_pi_head(framework), "pi_gain", masks=True)

    def build_qf_head(self, framework: str) -> nn.Module:
        return self._finish(super().build_qf_head(framework))


class CustomTQCCatalog(CustomSACCatalog, TQCCatalog):
    """TQC: SAC with a head of quantiles."""

    family = "TQC"


class MaskingSACCatalog(CustomSACCatalog):
    """SAC whose module keeps a state, and logarithms of impossible actions out of its losses."""

    illegal, recurrent = ILLEGAL_LOGIT, True


# what takes a catalog's place for a module with a true attribute `masks`
MASKING: dict[type[Catalog], type[Catalog]] = {
    CustomDQNCatalog: MaskingDQNCatalog,
    CustomSACCatalog: MaskingSACCatalog,
}

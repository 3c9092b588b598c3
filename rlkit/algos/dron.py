"""DRON: a Q-network that models its opponents.

Paper: He, Boyd-Graber, Kwok, Daumé III, "Opponent Modeling in Deep Reinforcement Learning", ICML 2016
(arXiv 1609.05559). Reference code: github.com/hhexiy/opponent (Lua/Torch). Networks: `rlkit.algos.opponents.networks`;
features: `rlkit.algos.opponents.history`; how they reach runner and learner: `rlkit.algos.opponents.features`.
Everything else is this package's DQN: double, dueling, distributional, n-step and prioritized replay work.

    Q(s, o) = sum_k w_k(s, o) Q_k(s)        moe: K experts on the state, a gate on state and opponent
    Q(s, o) = Q([h_s(s), h_o(o)])           concat
    loss    = TD loss + weight * CE(head(hidden of the opponent layer), opponent's action or type)

Defaults are those of the reference code: discount .9, 100k uniform replay, 16 replayed steps per env step in
batches of 64, targets copied every 10k steps, learning from step 1,000, epsilon .3 -> .1 over 500k steps, no
double and no dueling Q, TD error clipped at 1 (Huber).

Deviations from the reference code:
1. Opponent features are repaired (`rlkit.algos.opponents.history`) and include action frequencies.
2. Adam in place of centred RMSProp (the paper says AdaGrad).
3. The supervised loss has an explicit weight; 1/64 equals the reference's effective one.
4. Several opponents: the layer that reads an opponent is shared and averaged over them.
5. `model: {name: …}` reads the state before the network does; a recurrent one remembers the states before.
6. `history` > 0 adds a learned code: a GRU over the last steps of each opponent (after DRPIQN, Hong et al. 2018,
   and LIAM, Papoudakis et al. 2021). It reads a window that is part of the observation, from a zero state, so
   that replayed rows need no stored state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import gymnasium as gym
import torch
from ray.rllib.algorithms.algorithm_config import NotProvided
from ray.rllib.algorithms.dqn.dqn_learner import QF_NEXT_PREDS, QF_PREDS
from ray.rllib.connectors.common import AddObservationsFromEpisodesToBatch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rlkit.algos.dqn import DQN, DQNConfig, DQNLearner, DQNModule
from rlkit.algos.dron_rules import FEATURES, OF_ALL
from rlkit.algos.offpolicy.sequences import learned_steps, steps_at
from rlkit.algos.opponents.catalog import DRONCatalog
from rlkit.algos.opponents.features import OpponentFeatures, Opponents
from rlkit.algos.opponents.history import FeatureOptions
from rlkit.algos.opponents.inputs import ACTION_LABEL, TYPE_LABEL
from rlkit.algos.opponents.losses import gate_use, supervised_loss
from rlkit.algos.opponents.networks import GATE, GATE_INPUTS, HISTORY, NETWORKS, OPPONENT
from rlkit.errors import did_you_mean
from rlkit.rllib import ModelSettings

SUPERVISE = ("none", "action", "type")
LABELS = {"action": ACTION_LABEL, "type": TYPE_LABEL}
OPPONENT_LOGITS = "opponent_logits"


class DRONModule(DQNModule):
    """The DQN module with DRON's encoder and heads. `compute_q_values` also returns `gate` (B, K)."""

    uses_double_q: bool
    splits_masks = True  # without a registered model too

    @property
    def named_outputs(self) -> dict[str, int]:
        """`gate` (B, K) of a module with K experts and no memory: see `rlkit.play.answers.named_outputs`."""
        return {GATE: self.encoder.experts} if self.encoder.experts and not self.is_stateful() else {}

    def named_output(self, name: str, observations: Any) -> torch.Tensor:
        """Return the output of that name, (B, K)."""
        return self.gate(observations)

    def __init__(self, *args: Any, **kwargs: Any):
        kwargs["catalog_class"] = DRONCatalog
        super().__init__(*args, **kwargs)

    def q_forward(self, batch: Any, encoder: Any, head: Any) -> dict[str, Any]:
        encoded = encoder(batch)
        out = super().q_forward(batch, lambda _: encoded, head)
        if GATE in encoded:
            out[GATE] = encoded[GATE]
            if encoder is self.encoder:
                self.weights = encoded[GATE]
        return out

    def _forward_train(self, batch: dict[str, Any]) -> dict[str, Any]:
        """RLlib's, except that double Q-learning looks at the next observation without a gradient.

        RLlib sends both observations through the network as one batch, although the loss only reads which of
        the next actions is best; the backward pass then covers rows that have no gradient.
        """
        double, self.uses_double_q = self.uses_double_q, False
        try:
            out = super()._forward_train(batch)
        finally:
            self.uses_double_q = double
        if self.encoder.experts:
            out[GATE] = self.weights.detach()
        if double:
            following = {Columns.OBS: batch[Columns.NEXT_OBS]}
            if Columns.NEXT_STATE_IN in batch:
                following[Columns.STATE_IN] = batch[Columns.NEXT_STATE_IN]
            with torch.no_grad():
                out[QF_NEXT_PREDS] = self.compute_q_values(following)[QF_PREDS]
        if self.encoder.head is not None:
            state = [batch[Columns.STATE_IN]] if Columns.STATE_IN in batch else []
            out[OPPONENT_LOGITS] = self.encoder.predict(batch[Columns.OBS], *state)
        return out

    def gate(self, observations: Any) -> torch.Tensor:
        """Return the weight of each expert, (B, K), for observations as the module sees them.

        Raises:
            ValueError: this network has no experts, or a memory.
        """
        if not self.encoder.experts:
            raise ValueError("this DRON has no experts and so no gate; use training(network='moe')")
        if self.is_stateful():
            raise ValueError(
                "the gate of a recurrent DRON depends on the observations before, got single ones"
            )
        with torch.no_grad():
            return self.encoder({Columns.OBS: observations})[GATE]


class DRONLearner(DQNLearner):
    """The DQN learner, with the supervised loss on the opponent."""

    def compute_loss_for_module(  # type: ignore[override]  # ColumnLearner hands all on
        self, *, module_id: str, config: Any, batch: Any, fwd_out: Any
    ) -> torch.Tensor:
        loss = super().compute_loss_for_module(
            module_id=module_id, config=config, batch=batch, fwd_out=fwd_out
        )
        if Columns.LOSS_MASK in batch:  # sequences
            learned = learned_steps(batch[Columns.LOSS_MASK], config.burn_in_len)
            beside = {name: fwd_out[name] for name in (GATE, OPPONENT_LOGITS) if name in fwd_out}
            batch, fwd_out = steps_at(batch, learned), steps_at(beside, learned)
        if GATE in fwd_out:
            chosen, used = gate_use(fwd_out[GATE])
            self.metrics.log_dict({"experts_per_row": chosen, "experts_used": used}, key=module_id, window=1)
        if OPPONENT_LOGITS not in fwd_out:
            return loss
        labels = batch[f"infos/{LABELS[config.supervise]}"]
        extra, accuracy = supervised_loss(fwd_out[OPPONENT_LOGITS], labels)
        self.metrics.log_dict(
            {"opponent_loss": extra, "opponent_accuracy": accuracy}, key=module_id, window=1
        )
        return loss + config.supervise_weight * extra


class DRONConfig(ModelSettings, DQNConfig):
    """Configuration of DRON: DQN's, and what the opponents are and how they are modelled."""

    of_all_modules: ClassVar[tuple[str, ...]] = (*DQNConfig.of_all_modules, *OF_ALL)

    def __init__(self, algo_class: type | None = None):
        super().__init__(algo_class=algo_class or DRON)
        # Actions are Discrete; RLlib copies and walks them in every step otherwise.
        self.normalize_actions = False
        self.gamma = 0.9
        self.lr = 5e-4
        self.train_batch_size_per_learner = 64
        self.training_intensity = 16
        self.target_network_update_freq = 10_000
        self.num_steps_sampled_before_learning_starts = 1_000
        self.replay_buffer_config = {"type": "EpisodeReplayBuffer", "capacity": 100_000}
        self.epsilon = [(0, 0.3), (500_000, 0.1)]
        self.double_q = False
        self.dueling = False
        self.network: str = "moe"
        self.hidden: int = 50
        self.experts: int = 3
        self.gate_inputs: str = "state_and_opponent"
        self.opponents: Opponents = ["*"]
        self.features: Sequence[str] = list(FEATURES)
        self.clock_horizon: int = 100
        self.history: int = 0
        self.encoder_size: int = 32
        self.supervise: str = "none"
        self.supervise_weight: float = 1 / 64
        self.opponent_types: int = 2
        self.opponent_actions: int | None = None
        self.shuffle_features: bool = False
        self.normalize_state: bool = False

    def training(
        self,
        *,
        network: Literal["moe", "concat", "flat"] = NotProvided,
        hidden: int = NotProvided,
        experts: int = NotProvided,
        gate_inputs: Literal["state_and_opponent", "opponent"] = NotProvided,
        opponents: list[str] | dict[str, list[str]] = NotProvided,
        features: list[str] = NotProvided,
        clock_horizon: int = NotProvided,
        history: int = NotProvided,
        encoder_size: int = NotProvided,
        supervise: Literal["none", "action", "type"] = NotProvided,
        supervise_weight: float = NotProvided,
        opponent_types: int = NotProvided,
        opponent_actions: int | None = NotProvided,
        shuffle_features: bool = NotProvided,
        normalize_state: bool = NotProvided,
        **kwargs: Any,
    ) -> DRONConfig:
        """Set DRON's options, and DQN's.

        Args:
            network: `moe` (experts weighted by a gate), `concat` (state and opponent joined), or `flat`
                (everything in one plain network: DQN; with `features: []` it sees the state alone).
            hidden: width of every hidden layer.
            experts: K of `moe`, at least 1.
            gate_inputs: what the gate reads: `state_and_opponent` as in the authors' code, or `opponent`
                alone as in the paper's figure.
            opponents: globs of the agents that are modelled by all others, or {glob of learners: [globs of
                opponents]}. An environment with one agent has its opponents inside: leave it out.
            features: which opponent features, of moves, last_moves, last_action, lost, clock, frequencies.
                The first two and `lost` need events that the environment puts into its infos (soccer does).
            clock_horizon: step at which the clock feature reads 1.
            history: steps of each opponent's history that a recurrent encoder reads; 0: no encoder.
            encoder_size: hidden size of that encoder.
            supervise: also predict the opponents' `action` or `type`.
            supervise_weight: weight of that loss.
            opponent_types: number of types.
            opponent_actions: number of the opponents' actions, if not as many as the learner's own.
            shuffle_features: a placebo: every game gets the opponent features of another one, or zeros while there is
                none.
            normalize_state: bring the bounded parts of the state to mean 0 and deviation 1, as if they were uniform
                between their bounds.
        """
        super().training(**kwargs)
        given = {
            "network": network, "hidden": hidden, "experts": experts, "gate_inputs": gate_inputs,
            "opponents": opponents, "features": features, "clock_horizon": clock_horizon, "history": history,
            "encoder_size": encoder_size, "supervise": supervise, "supervise_weight": supervise_weight,
            "opponent_types": opponent_types, "opponent_actions": opponent_actions,
            "shuffle_features": shuffle_features, "normalize_state": normalize_state,
        }  # fmt: skip
        for name, value in given.items():
            if value is not NotProvided:
                setattr(self, name, value)
        return self

    def validate(self) -> None:
        """Check DRON's options.

        Raises:
            ValueError: what was got, what is expected.
        """
        choices = {"network": NETWORKS, "gate_inputs": GATE_INPUTS, "supervise": SUPERVISE}
        for name, known in choices.items():
            value = getattr(self, name)
            if value not in known:
                raise ValueError(
                    f"{name}: got {value!r}{did_you_mean(value, known)}; expected one of {', '.join(known)}"
                )
        for name in ("hidden", "experts", "encoder_size", "opponent_types"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(
                    f"{name}: got {getattr(self, name)!r}, expected a whole number of at least 1"
                )
        if self.supervise_weight < 0:
            raise ValueError(f"supervise_weight: got {self.supervise_weight}, expected at least 0")
        if not self.opponents:
            raise ValueError(f"opponents: got {self.opponents!r}, expected at least one glob, such as ['*']")
        options = FeatureOptions(tuple(self.features), self.history, self.clock_horizon)
        if not self.observes_opponents and (self.network != "flat" or self.supervise != "none"):
            what = f"network: {self.network}" if self.network != "flat" else f"supervise: {self.supervise}"
            raise ValueError(
                f"{what} reads opponents, got features {list(options.features)} and history {options.window}; "
                "switch some on, or use network: flat without supervise"
            )
        if self.supervise != "none" and self.network == "flat":
            raise ValueError(
                f"supervise: {self.supervise} trains the layer that reads the opponents, and network: flat has none; "
                "use concat or moe"
            )
        if self.supervise != "none":
            column = f"infos/{LABELS[self.supervise]}"
            columns = list(self.replay_buffer_config.get("columns") or ())
            if column not in columns:
                self.replay_buffer_config = {**self.replay_buffer_config, "columns": [*columns, column]}
        super().validate()

    @property
    def observes_opponents(self) -> bool:
        """Whether there are any opponent features."""
        return bool(self.features) or self.history > 0

    def model_settings(self) -> dict[str, Any]:
        return {
            "dron": {
                "network": self.network,
                "hidden": self.hidden,
                "experts": self.experts,
                "gate_inputs": self.gate_inputs,
                "encoder_size": self.encoder_size,
                "supervise": self.supervise,
                "opponent_types": self.opponent_types,
                "opponent_actions": self.opponent_actions,
                "normalize_state": self.normalize_state,
                "some_learn": isinstance(self.opponents, Mapping),
            }
        }

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=DRONModule, catalog_class=DRONCatalog)

    def get_default_learner_class(self) -> Any:
        return DRONLearner

    def build_env_to_module_connector(self, env: Any = None, spaces: Any = None, device: Any = None) -> Any:
        """RLlib's pipeline with `OpponentFeatures` as its last step before observations become batches."""
        pipeline = super().build_env_to_module_connector(env, spaces, device)
        if self.observes_opponents:
            pipeline.insert_before(
                AddObservationsFromEpisodesToBatch,
                OpponentFeatures(
                    opponents=_plain(self.opponents),
                    features=tuple(self.features),
                    window=self.history,
                    clock_horizon=self.clock_horizon,
                    opponent_actions=self.opponent_actions,
                    label_actions=self.supervise == "action",
                    label_types=self.supervise == "type",
                    shuffle=self.shuffle_features,
                ),
            )
        return pipeline


def _plain(opponents: Opponents) -> Opponents:
    if isinstance(opponents, Mapping):
        return {learner: list(globs) for learner, globs in opponents.items()}
    return list(opponents)


class DRON(DQN):
    """DQN that models its opponents."""

    @classmethod
    def get_default_config(cls) -> DRONConfig:
        return DRONConfig()

    def columns_of(self, module_id: str) -> tuple[str, ...]:
        """Labels are columns of the modules that model opponents."""
        space, labels = self.spaces[module_id][0], {f"infos/{label}" for label in LABELS.values()}
        models = isinstance(space, gym.spaces.Dict) and {OPPONENT, HISTORY} & set(space.spaces)
        return tuple(c for c in super().columns_of(module_id) if models or c not in labels)

"""`model:` of a recipe -> RLlib's RLModuleSpec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from rlkit.errors import UsageError, did_you_mean
from rlkit.models.features import ModelRef, check_options, measure
from rlkit.roster import split_mask

if TYPE_CHECKING:
    import gymnasium as gym
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
    from ray.rllib.core.models.catalog import Catalog
    from ray.rllib.core.rl_module.rl_module import RLModuleSpec

# Settings beside a custom model's own options. The rest of DefaultModelConfig configures RLlib's own encoders.
REPLACED = ("fcnet_", "conv_")
# DefaultModelConfig's; a stateful module whose model_config dict lacks the key fails in the learner (2.60).
DEFAULT_SEQUENCE = 20
OWN = ("share", "pi_gain", "vf_gain", "log_std_init")
# Options of mlp and cnn, which somebody may give without `name`.
SHIPPED = ("hiddens", "activation", "layer_norm", "orthogonal", "gain", "scale", "filters", "hidden")


def module_spec(config: AlgorithmConfig, model: Mapping[str, Any] | None) -> RLModuleSpec:
    """Turn the `model` section of a recipe into the spec of one module.

    Args:
        config: the algorithm's config; decides which catalog wraps the model.
        model: with `name`, a registered model, its options, and settings of its surroundings: share (bool): one
            encoder for actor and critic (PPO's family); pi_gain, vf_gain (float): orthogonal last layer of the policy
            and value head, with that gain; log_std_init (float): with free_log_std, what the logarithm of the standard
            deviation of actions starts at, for each action (RLlib: 0); use_lstm, max_seq_len, lstm_*: RLlib's LSTM
            behind the model; head_fcnet_*, fusionnet_*, free_log_std, log_std_clip_param, vf_share_layers: RLlib's
            DefaultModelConfig. Without `name`: fields of DefaultModelConfig, for RLlib's own networks.

    Raises:
        UsageError: an unknown model, option or field, or an algorithm whose modules take no custom model.
    """
    from ray.rllib.core.rl_module.rl_module import RLModuleSpec

    options = dict(model or {})
    name = options.pop("name", None)
    if name is None:
        _check_defaults(options)
        if options.get("use_lstm"):
            options = {"max_seq_len": DEFAULT_SEQUENCE} | options
        return RLModuleSpec(model_config=options) if options else RLModuleSpec()
    chosen, settings = _split(name, options)
    config_of_module = {"max_seq_len": DEFAULT_SEQUENCE, **settings, "rlkit_model": chosen.to_dict()}
    return RLModuleSpec(catalog_class=_catalog(config, settings), model_config=config_of_module)


def check_model(
    model: Mapping[str, Any] | None, observation_space: gym.Space, action_space: gym.Space
) -> int | None:
    """Build a custom model once for these spaces and return its number of features; None without a `name`.

    Raises:
        UsageError: what the module would otherwise raise inside an actor.
    """
    options = dict(model or {})
    name = options.pop("name", None)
    if name is None:
        return None
    chosen, _ = _split(name, options)
    space, _, _ = split_mask(observation_space, action_space)
    return measure(chosen, space)[0]


def _split(name: str, options: Mapping[str, Any]) -> tuple[ModelRef, dict[str, Any]]:
    """Separate a model's own options from the settings around it."""
    from rlkit import registry

    build = registry.resolve("models", name)
    kept = [field for field in _default_fields() if not field.startswith(REPLACED)]
    around = (*OWN, *kept)
    mine = {key: value for key, value in options.items() if key not in around}
    for key in mine:
        if key.startswith(REPLACED) and key in _default_fields():
            raise UsageError(
                f"model.{key} configures RLlib's own encoder, which {name!r} replaces; use the options of {name!r}, "
                "or leave out model.name"
            )
    check_options(name, build, mine, around)
    settings = {key: value for key, value in options.items() if key in around}
    if settings.get("fusionnet_hiddens") == []:
        for key in settings:
            if key.startswith("fusionnet_") and key != "fusionnet_hiddens":
                raise UsageError(
                    f"model.{key}: fusionnet_hiddens is empty, so nothing reads it; remove one of them"
                )
    if "share" in settings:
        shared = settings.pop("share")
        if settings.setdefault("vf_share_layers", shared) != shared:
            raise UsageError(
                f"model.share is {shared} and model.vf_share_layers is {settings['vf_share_layers']}; give one"
            )
    return ModelRef.of(name, build, mine), settings


def _default_fields() -> list[str]:
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

    return [field.name for field in fields(DefaultModelConfig)]


def _check_defaults(options: Mapping[str, Any]) -> None:
    from rlkit import registry

    known = _default_fields()
    for key in options:
        if key in known:
            continue
        hint = did_you_mean(key, known)
        if key in (*OWN, *SHIPPED):
            models = ", ".join(sorted(registry.TABLES["models"]))
            hint = f"; it is an option of a registered model: add `name:` ({models})"
        raise UsageError(f"model.{key}: RLlib's DefaultModelConfig has no such field{hint}")


def _catalog(config: AlgorithmConfig, settings: Mapping[str, Any]) -> type[Catalog] | None:
    """Pick the catalog by the module class that the algorithm would build by default."""
    from ray.rllib.algorithms.bc.torch.default_bc_torch_rl_module import DefaultBCTorchRLModule
    from ray.rllib.algorithms.dqn.default_dqn_rl_module import DefaultDQNRLModule
    from ray.rllib.algorithms.ppo.default_ppo_rl_module import DefaultPPORLModule
    from ray.rllib.algorithms.sac.default_sac_rl_module import DefaultSACRLModule
    from ray.rllib.algorithms.tqc.default_tqc_rl_module import DefaultTQCRLModule

    from rlkit.models import catalogs

    families: list[tuple[type, type[Catalog], tuple[str, ...]]] = [
        (
            DefaultPPORLModule,
            catalogs.CustomPPOCatalog,
            ("pi_gain", "vf_gain", "log_std_init", "vf_share_layers"),
        ),
        (DefaultDQNRLModule, catalogs.CustomDQNCatalog, ()),
        (DefaultTQCRLModule, catalogs.CustomTQCCatalog, ("pi_gain",)),
        (DefaultSACRLModule, catalogs.CustomSACCatalog, ("pi_gain",)),
        (DefaultBCTorchRLModule, catalogs.CustomBCCatalog, ("pi_gain",)),
    ]
    algorithm = type(config).__name__.removesuffix("Config")
    module_class = getattr(config.get_default_rl_module_spec(), "module_class", None)
    for base, catalog, takes in families:
        if isinstance(module_class, type) and issubclass(module_class, base):
            for key in ("pi_gain", "vf_gain", "log_std_init", "vf_share_layers"):
                if key in settings and key not in takes:
                    given = "share" if key == "vf_share_layers" else key
                    raise UsageError(f"model.{given}: {algorithm} has no such part; leave it out")
            masks = getattr(module_class, "masks", False)
            return catalogs.MASKING.get(catalog, catalog) if masks else catalog
    # Such a module builds them from model_config itself.
    if getattr(module_class, "takes_registered_models", False):
        return None
    raise UsageError(
        f"{algorithm} builds its own networks ({module_class}); a registered model cannot replace them"
    )

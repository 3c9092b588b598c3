"""Custom torch models for RLlib's algorithms: the contract, the wrapping, and the models that come with rlkit.

`register_model("mine", build)` makes `model: {name: mine, …}` work for PPO, APPO, IMPALA, DQN, SAC, TQC and BC,
single- and multi-agent. What `build` gets and returns is in `rlkit.models.features`; docs/models.md is the manual.
"""

from rlkit import lazy_names

__getattr__, __all__ = lazy_names(
    __name__,
    {
        "ModelRef": "models.features",
        "as_float": "models.features",
        "check_model": "models.spec",
        "cnn": "models.conv",
        "measure": "models.features",
        "mlp": "models.dense",
        "multi_input": "models.inputs",
        "lstm": "models.recurrent",
        "gru": "models.recurrent",
        "entities": "models.sets",
        "attention": "models.transformer",
        "module_spec": "models.spec",
        "register_model": "registry",
    },
)

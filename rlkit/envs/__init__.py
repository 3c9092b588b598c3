"""Environments by name, and adapters to RLlib that are useful on their own.

    make_env("CartPole-v1")                        a Gymnasium id
    make_env("pettingzoo/mpe2.simple_spread_v3")   pettingzoo/<module>.<env>: mpe2, or a family of PettingZoo
    make_env("vmas/balance")                       vmas/<scenario>, with the extra `vmas`

Importing this package imports neither ray nor torch nor an environment library.
"""

from rlkit import lazy_names

__getattr__, __all__ = lazy_names(
    __name__,
    {
        "PettingZooEnv": "envs.pettingzoo",
        "VmasBatch": "envs.vmas",
        "VmasEnv": "envs.vmas",
        "adapt": "envs.names",
        "available": "envs.names",
        "check_name": "envs.names",
        "checked": "envs.checked_env",
        "is_multi_agent": "envs.names",
        "make_env": "envs.names",
        "natural_order": "envs.pettingzoo",
        "register_soccer_style": "envs.soccer_styles",
    },
)

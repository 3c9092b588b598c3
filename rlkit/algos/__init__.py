"""Algorithms: RLlib's own configuration classes, with rlkit's training step behind them.

    from rlkit.algos import DQNConfig
    algorithm = DQNConfig().environment("CartPole-v1").training(training_intensity=32).build_algo()

Names are imported on first use.
"""

from rlkit import lazy_names

__getattr__, __all__ = lazy_names(
    __name__,
    {
        "BC": "algos.offline",
        "BCConfig": "algos.offline",
        "CQL": "algos.offline",
        "CQLConfig": "algos.offline",
        "IQL": "algos.offline",
        "IQLConfig": "algos.offline",
        "MARWIL": "algos.offline",
        "MARWILConfig": "algos.offline",
        "DQN": "algos.dqn",
        "DQNConfig": "algos.dqn",
        "DRON": "algos.dron",
        "DRONConfig": "algos.dron",
        "MADDPG": "algos.maddpg",
        "MADDPGConfig": "algos.maddpg",
        "MATD3": "algos.maddpg",
        "MATD3Config": "algos.maddpg",
        "PPO": "algos.ppo",
        "PPOConfig": "algos.ppo",
        "SAC": "algos.sac",
        "SACConfig": "algos.sac",
    },
)

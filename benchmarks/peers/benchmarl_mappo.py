"""BenchMARL's MAPPO on mpe2 simple_spread with its own experiment and collector: see ../team_throughput.py.

    python benchmarl_mappo.py [--seconds 30]

Runs in a virtual environment of its own (see ../peer_env.py). Prints env steps per second and per CPU second, from the
second iteration on. BenchMARL imports `pettingzoo.mpe`, which is mpe2 today.
"""

# ruff: noqa: E402 - pettingzoo.mpe has to be there before BenchMARL looks for it
import argparse
import json
import os
import sys
import tempfile
import time

import mpe2
import torch
import torchrl.collectors

# BenchMARL 1.5.2 imports the name this class had before torchrl 0.13
torchrl.collectors.SyncDataCollector = torchrl.collectors.Collector
sys.modules["pettingzoo.mpe"] = mpe2
for name in ("simple_spread_v3",):
    __import__(f"mpe2.{name}")
    sys.modules[f"pettingzoo.mpe.{name}"] = sys.modules[f"mpe2.{name}"]

from benchmarl.algorithms import MappoConfig
from benchmarl.environments import PettingZooTask
from benchmarl.experiment import Callback, Experiment, ExperimentConfig
from benchmarl.models.mlp import MlpConfig

torch.set_num_threads(1)
parser = argparse.ArgumentParser()
parser.add_argument("--seconds", type=float, default=30.0)
options = parser.parse_args()
os.chdir(tempfile.mkdtemp(prefix="benchmarl-"))


class Watch(Callback):
    """Prints a line once the time is over, and ends the process."""

    begun = None

    def on_train_end(self, training_td, group):
        now = time.monotonic(), time.process_time(), self.experiment.total_frames
        if self.begun is None:
            self.begun = now
        elif now[0] - self.begun[0] >= options.seconds:
            wall, cpu, frames = (b - a for a, b in zip(self.begun, now, strict=True))
            print(json.dumps({"steps_per_s": frames / wall, "steps_per_cpu_s": frames / cpu}), flush=True)
            os._exit(0)


config = ExperimentConfig.get_from_yaml()
config.loggers, config.evaluation, config.render, config.create_json = [], False, False, False
config.sampling_device = config.train_device = config.buffer_device = "cpu"
config.on_policy_n_envs_per_worker, config.on_policy_collected_frames_per_batch = 16, 800
config.on_policy_minibatch_size, config.on_policy_n_minibatch_iters = 200, 10
config.lr, config.gamma, config.clip_grad_norm, config.clip_grad_val = 1e-3, 0.95, True, 0.5
config.max_n_frames, config.max_n_iters = 100_000_000, None
config.parallel_collection = False
config.prefer_continuous_actions = False
model = MlpConfig(
    num_cells=[64, 64],
    layer_class=torch.nn.Linear,
    activation_class=torch.nn.Tanh,
    norm_class=None,
    norm_kwargs=None,
)
task = PettingZooTask.SIMPLE_SPREAD.get_from_yaml()
task.config["max_cycles"] = 25
algorithm = MappoConfig.get_from_yaml()
algorithm.lmbda, algorithm.entropy_coef = 0.9, 0.0
Experiment(task, algorithm, model, 0, config, model, [Watch()]).run()

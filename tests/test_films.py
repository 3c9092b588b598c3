"""`rlkit report` of a trained run: the films in the page are those of the episodes that their captions name."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import imageio.v3
import numpy as np
import pytest

import rlkit
from rlkit.report import report
from rlkit.report.films import EPISODES

RECIPE = {
    "name": "short",
    "algorithm": "PPO",
    "env": "CartPole-v1",
    "seed": 0,
    "config": {
        "training": {"train_batch_size_per_learner": 512, "minibatch_size": 128, "num_epochs": 4, "lr": 1e-3},
        "env_runners": {"num_env_runners": 0, "num_envs_per_env_runner": 4},
    },
    "model": {"name": "mlp", "hiddens": [16]},
    "stop": {"iterations": 2},
    "evaluation": {"every": 1, "episodes": 2},
}
FIGURE = re.compile(
    r'<video [^>]*poster="data:image/jpeg;base64,([^"]+)" src="data:video/mp4;base64,([^"]+)"></video>'
    r"<figcaption>([^<]+)</figcaption>"
)


@pytest.fixture(scope="module")
def run(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> rlkit.Run:
    return rlkit.train(RECIPE, out=tmp_path_factory.mktemp("runs"))


def test_the_page_has_films_of_a_median_and_of_the_worst_episode(run: rlkit.Run, tmp_path: Path) -> None:
    notes = report([run], tmp_path / "report.html")
    found = FIGURE.findall((tmp_path / "report.html").read_text())
    assert len(found) == 2, notes
    rows = sorted(rlkit.evaluate(run.path, episodes=EPISODES).rows, key=lambda row: (row.ret, row.seed))
    assert rows[0].ret < rows[EPISODES // 2].ret  # else one film would be enough
    for (poster, film, caption), what, row in zip(
        found, ("median", "worst"), (rows[EPISODES // 2], rows[0]), strict=True
    ):
        assert caption == f"{what} of {EPISODES} episodes: seed {row.seed}, return {row.ret:,.1f}"
        frames = imageio.v3.imread(base64.b64decode(film), extension=".mp4")
        assert len(frames) == 1 + row.length // 3  # CartPole's 50 frames per second, every third one
        assert len(frames) > 1
        assert np.abs(frames[0].astype(float) - frames[-1]).max() > 100  # the pole moves
        assert imageio.v3.imread(base64.b64decode(poster)).shape == frames.shape[1:]


def test_without_films_the_page_is_smaller(run: rlkit.Run, tmp_path: Path) -> None:
    report([run], tmp_path / "plain.html", videos=False)
    assert "<video" not in (tmp_path / "plain.html").read_text().split("</style>")[1]

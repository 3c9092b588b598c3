"""The command line: exit codes, messages on stderr, results on stdout, names that lists and registry share."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import rlkit
from rlkit import registry
from rlkit.cli import process
from rlkit.cli.common import stdout_for_results

ROOT = Path(__file__).parents[1]
TINY = """\
name: tiny
algorithm: PPO
env: CartPole-v1
config:
  training: {train_batch_size_per_learner: 128, minibatch_size: 64, num_epochs: 1}
  env_runners: {num_env_runners: 0, num_envs_per_env_runner: 4}
model: {name: mlp, hiddens: [16]}
stop: {iterations: 2}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


class Result:
    def __init__(self, code: int, out: str, err: str):
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def run(*words: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["rlkit", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            process.main()
        said = capsys.readouterr()
        return Result(int(stop.value.code or 0), said.out, said.err)

    return run


def test_check_names_file_line_column_path_and_fix(call, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(TINY.replace("num_epochs: 1", "num_epohcs: 1"))
    result = call("check", bad)
    assert result.code == 2
    assert result.out == ""
    assert f"{bad}:5:69: config.training.num_epohcs" in result.err
    assert "num_epochs" in result.err
    as_json = json.loads(call("check", bad, "--json").out)
    assert as_json[0]["line"] == 5
    assert as_json[0]["path"] == "config.training.num_epohcs"


def test_check_takes_overrides(call, recipe: Path) -> None:
    assert call("check", recipe, "seed=3").code == 0
    result = call("check", recipe, "config.training.gamma=5")
    assert result.code == 2
    assert "command line: config.training.gamma: gamma is out of range" in result.err
    (problem,) = json.loads(call("check", recipe, "config.training.gamma=5", "--json").out)
    assert (problem["file"], problem["got"]) == ("command line", "5")
    assert "give a recipe file" in call("check", "seed=3").err


def test_check_of_a_good_recipe(call, recipe: Path) -> None:
    result = call("check", recipe)
    assert (result.code, result.err) == (0, "")
    assert "ok" in result.out


def test_train_refuses_a_bad_recipe_before_it_makes_a_folder(call, recipe: Path, tmp_path: Path) -> None:
    result = call("train", recipe, "config.training.gamma=5", "--out", tmp_path / "runs")
    assert result.code == 2
    assert "command line" in result.err
    assert "gamma" in result.err
    assert not (tmp_path / "runs").exists()
    result = call("train", recipe, "config.training.gamma=5", "config.training.lambda_=7")
    assert [line.startswith("error: ") for line in result.err.splitlines()] == [True, True]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train"], "give one of"),
        (["train", "a.yaml", "b.yaml"], "neither KEY=VALUE nor the recipe"),
        (["train", "--algorithm", "DQN"], "--env"),
        (["train", "nowhere.yaml"], "nowhere.yaml"),
        (["train", "--resume", "nowhere"], "nowhere"),
        (["evaluate", "nowhere"], "nowhere"),
        (["list", "algoritms"], "did you mean 'algorithms'"),
        (["plot", "nowhere"], "nowhere"),
        (["compare", "nowhere"], "nowhere"),
        (["check", "x.yaml", "--import", "no_such_module"], "no_such_module"),
    ],
)
def test_wrong_usage_is_one_message_and_exit_2(call, words: list[str], message: str) -> None:
    result = call(*words)
    assert result.code == 2
    assert result.out == ""
    assert message in result.err
    assert "Traceback" not in result.err


def test_a_bug_leaves_3_and_names_its_log(call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "load_plugins", lambda imports=(): 1 / 0)
    result = call("check", "a.yaml", "--import", os.fsdecode(b"bad\xff"))
    assert result.code == 3
    log = Path(result.err.rpartition("log: ")[2].strip())
    assert "ZeroDivisionError" in log.read_text()
    assert r"bad\udcff" in log.read_text()
    log.unlink()


def test_show_prints_a_recipe_that_reads_back_the_same(call, recipe: Path, tmp_path: Path) -> None:
    first = call("show", recipe, "seed=7").out
    again = tmp_path / "again.yaml"
    again.write_text(first)
    assert call("show", again).out == first
    assert "seed: 7" in first


@pytest.mark.parametrize("kind", registry.KINDS)
def test_list_shows_what_the_registry_holds(call, kind: str) -> None:
    assert set(json.loads(call("list", kind, "--json").out)) == set(registry.TABLES[kind])


def test_shipped_recipes_have_their_name_in_any_folder(
    call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = list((ROOT / "configs").rglob("*.yaml"))
    monkeypatch.chdir(tmp_path)
    listed = json.loads(call("list", "recipes", "--json").out)
    assert list(listed) == sorted(file.stem for file in files), "each name stands for one file"
    assert all(listed.values()), "each recipe begins with a comment that says what it is"
    assert call("show", "dqn_cartpole").out == call("show", ROOT / "configs" / "dqn_cartpole.yaml").out
    assert "did you mean dqn_cartpole?" in call("check", "dqn_cartpol").err
    Path("dqn_cartpole").mkdir()  # a run folder of that name
    assert call("check", "dqn_cartpole").code == 0
    Path("ppo_cartpole").write_text(TINY)
    assert "name: tiny" in call("show", "ppo_cartpole").out, "a file of one's own comes first"


def test_version_names_the_installed_one(call) -> None:
    assert call("--version").out == f"rlkit {rlkit.__version__}\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [("train dqn_c", "dqn_cartpole"), ("check matri", "matrix_game"), ("ev", "evaluate")],
)
def test_the_shell_completes_commands_and_recipes(words: str, expected: str) -> None:
    env = {
        "_RLKIT_COMPLETE": "complete_bash",
        "COMP_WORDS": f"rlkit {words}",
        "COMP_CWORD": str(len(words.split())),
    }
    code = "import sys; sys.argv = ['rlkit']; from rlkit.cli.process import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **env}, capture_output=True, text=True
    )
    assert done.stdout.split() == [expected]


def test_ctrl_c_while_modules_are_imported_leaves_no_traceback() -> None:
    code = (
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer': os.kill(os.getpid(), signal.SIGINT)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from rlkit.__main__ import run; run()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


@pytest.mark.parametrize(("kind", "name"), [(k, n) for k in registry.KINDS for n in registry.TABLES[k]])
def test_every_registered_name_can_be_imported(kind: str, name: str) -> None:
    assert callable(registry.resolve(kind, name))


def test_help_and_check_import_neither_ray_nor_torch(recipe: Path) -> None:
    code = (
        "import sys; sys.argv = ['rlkit', 'check', sys.argv[1]]\n"
        "from rlkit.cli import app\n"
        "app(standalone_mode=False)\n"
        "print([m for m in ('ray', 'torch', 'pandas', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(recipe)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_user_module_given_with_import_registers_its_names(call, tmp_path: Path, recipe: Path) -> None:
    (tmp_path / "my_plugin_module.py").write_text(
        "import rlkit\nrlkit.register_env('my_env', lambda **options: None, 'Mine')\n"
    )
    try:
        listed = json.loads(call("list", "envs", "--json", "--import", tmp_path / "my_plugin_module.py").out)
        assert listed["my_env"] == "Mine"
    finally:
        registry.TABLES["envs"].pop("my_env", None)


def test_train_prints_one_json_line_and_evaluate_reads_the_run(
    call, recipe: Path, tmp_path: Path, ray_local: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = call("train", recipe, "--out", tmp_path / "runs", "--json", "--quiet")
    assert result.code == 0, result.err
    (line,) = result.out.splitlines()
    summary = json.loads(line)
    assert list(summary) == [
        "run", "status", "best_checkpoint", "last_checkpoint", "trials", "env_steps", "iterations",
        "episode_return", "time_s",
    ]  # fmt: skip
    assert summary["status"] == "done"
    assert summary["iterations"] == 2
    assert rlkit.open_run(summary["run"]).info.command.startswith("rlkit train")
    monkeypatch.chdir(tmp_path)  # a relative path too
    rows = json.loads(call("evaluate", "runs/tiny", "--episodes", 3, "--json").out)
    said = call("evaluate", tmp_path / "runs/tiny", "--episodes", 1, "--trace", "t.csv").out.splitlines()
    assert said[0].endswith(rows["checkpoint"])  # whole, however long, without a terminal
    assert len(said[0]) > 80
    assert said[-1].split() == ["trace", "t.csv"]
    assert Path(rows["checkpoint"]).resolve() == Path(summary["best_checkpoint"]).resolve()
    assert [row["seed"] for row in rows["per_episode"]] == [0, 1, 2]


def _wait_for_a_row(runs: Path, alive: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not list(runs.glob("tiny/*/metrics.csv")):
        assert alive()
        assert time.monotonic() < deadline
        threading.Event().wait(0.1)


def _check_interrupted(out: str, status: str) -> None:
    summary = json.loads(out.splitlines()[-1])
    assert summary["status"] == status
    run = rlkit.open_run(summary["run"])
    assert run.last_checkpoint is not None
    assert run.last_checkpoint.name == f"checkpoint_{summary['iterations']:06d}"


def test_control_c_leaves_a_checkpoint_and_a_run_that_goes_on(recipe: Path, tmp_path: Path) -> None:
    """As in a terminal: a process of its own, with the Ray it starts."""
    words = ["train", recipe, "stop.iterations=100000", "--out", tmp_path / "runs", "--json"]
    command = [sys.executable, "-m", "rlkit", *map(str, words)]
    env = {**os.environ, "RAY_ADDRESS": ""}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    _wait_for_a_row(tmp_path / "runs", lambda: process.poll() is None)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    _check_interrupted(out, "interrupted")


def test_sigterm_leaves_a_checkpoint_and_a_run_that_goes_on(
    call, recipe: Path, tmp_path: Path, ray_local: None
) -> None:
    def terminate() -> None:
        _wait_for_a_row(tmp_path / "runs", lambda: True)
        os.kill(os.getpid(), signal.SIGTERM)

    sender = threading.Thread(target=terminate, daemon=True)
    sender.start()
    result = call("train", recipe, "stop.iterations=100000", "--out", tmp_path / "runs", "--json", "--quiet")
    assert result.code == 143
    _check_interrupted(result.out, "terminated")


def test_a_signal_ends_a_script_that_trains_and_leaves_the_run_to_it(
    recipe: Path, tmp_path: Path, ray_local: None
) -> None:
    def interrupt() -> None:
        _wait_for_a_row(tmp_path / "runs", lambda: True)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt, match="SIGINT") as caught:
        rlkit.train(recipe, ["stop.iterations=100000"], out=tmp_path / "runs")
    assert caught.value.run.info.status == "interrupted"
    assert caught.value.run.last_checkpoint is not None


def test_the_schema_needs_no_recipe(call) -> None:
    assert json.loads(call("show", "--schema").out)["properties"]["algorithm"]
    assert "give a recipe" in call("show").err


@pytest.mark.parametrize("command", ["check", "show"])
def test_a_long_override_is_no_file(call, recipe: Path, command: str) -> None:
    result = call(command, recipe, "stop={iterations: 2" + " " * 300 + "}")
    assert (result.code, result.err) == (0, "")


def test_json_of_a_seed_s_check_is_alone_on_stdout(
    call, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlkit.launch.seed_check.check_seed", lambda *_: "equal bit by bit")
    result = call("check", recipe, "--seed", "--json")
    assert json.loads(result.out) == []
    assert "equal bit by bit" in result.err
    assert "equal bit by bit" in call("check", recipe, "--seed").out


@pytest.mark.parametrize("words", [["list", "envs"], ["show", "dqn_cartpole"], ["--version"]])
def test_a_reader_that_leaves_is_no_error(words: list[str]) -> None:
    command = [sys.executable, "-m", "rlkit", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (0, b"")


def test_prints_of_a_report_and_of_a_dry_run_are_no_results(
    call, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noisy(*_: object, trust: bool, **__: object) -> list[str]:
        print("from an environment")
        return [f"trust={trust}"]

    monkeypatch.setattr("rlkit.report.report", noisy)
    monkeypatch.setattr("rlkit.launch.rehearsal.dry_run", noisy)
    result = call("report", tmp_path, "-o", tmp_path / "x.html")
    assert result.out == f"{tmp_path / 'x.html'}\n"
    assert "from an environment" in result.err
    result = call("train", recipe, "--dry-run", "--trust")
    assert result.out == "['trust=True']\n"
    assert "from an environment" in result.err
    assert json.loads(call("train", recipe, "--dry-run", "--json").out) == {"can_train": ["trust=False"]}


def test_options_that_would_do_nothing_are_refused(call, recipe: Path, tmp_path: Path) -> None:
    result = call("train", "--resume", tmp_path, "--out", tmp_path / "runs")
    assert (result.code, "a run that is resumed stays in its folder" in result.err) == (2, True)
    result = call("train", recipe, "--dry-run", "--trust")
    assert (result.code, "trust goes with init_from" in result.err) == (2, True)


def test_what_an_environment_prints_is_no_result(capfd: pytest.CaptureFixture[str]) -> None:
    with stdout_for_results():
        print("from Python")
        os.system("echo from a child")
    print("{}")
    out, err = capfd.readouterr()
    assert out == "{}\n"
    assert "from Python" in err
    assert "from a child" in err

"""What `curriculum:` of a recipe may say."""

from __future__ import annotations

import subprocess
import sys

import pytest
from curriculum_samples import LESSONS, SPACE

from rlkit.curriculum import validate


def problems(**section: object) -> dict:
    return {".".join(map(str, path)): message for path, message in validate(section)}


def test_every_shipped_form_is_accepted():
    assert not problems(lessons=LESSONS)
    assert not problems(type="random", space=SPACE)
    assert not problems(type="annealing", start={"x": 1}, end={"x": 2}, over=10)
    assert not problems(
        type="expanding_box", start={"x": {"uniform": [1, 2]}}, space={"x": {"uniform": [0, 3]}}
    )
    assert not problems(type="learning_progress", tasks=[{"x": 1}], success={"info": "won"})
    assert not problems(type="plr", space=SPACE, task={"via": "set_task", "key": "x"})
    assert not problems(type="alp_gmm", space=SPACE, evaluate_on="final")
    assert not problems(type="self_play", policy="main", opponents=["b"], snapshot={"win_rate": 0.6})


@pytest.mark.parametrize(
    ("section", "path", "message"),
    [
        ({"lessons": []}, "lessons", "the list is empty"),
        ({"type": "lesons", "lessons": LESSONS}, "type", "did you mean 'lessons'"),
        (
            {"lessons": [*LESSONS[:2], {**LESSONS[2], "until": LESSONS[0]["until"]}]},
            "lessons.2.until",
            "is the last one",
        ),
        ({"lessons": [{"name": "a", "task": {}}, LESSONS[2]]}, "lessons.0", "no `until`"),
        (
            {"lessons": [LESSONS[0], {**LESSONS[2], "name": "a"}]},
            "lessons.1.name",
            "has the name 'a' already",
        ),
        (
            {"lessons": [{**LESSONS[2], "back": LESSONS[1]["back"]}]},
            "lessons.0.back",
            "nothing to go back to",
        ),
        ({"lessons": [{"name": "a", "task": {"x": {"uniform": [2, 1]}}}]}, "lessons.0.task.x", "lo 2 > hi 1"),
        (
            {"lessons": [{**LESSONS[0], "until": {"measure": "retrun", "threshold": 1}}, LESSONS[2]]},
            "lessons.0.until.measure",
            "did you mean 'return'",
        ),
        (
            {"lessons": [{**LESSONS[0], "until": {"measure": "episode_return", "threshold": 1}}, LESSONS[2]]},
            "lessons.0.until.measure",
            "use measure: return",
        ),
        (
            {"lessons": [{**LESSONS[0], "until": {"measure": "success", "threshold": 80}}, LESSONS[2]]},
            "lessons.0.until",
            "share in [0, 1]",
        ),
        (
            {"lessons": [{**LESSONS[0], "until": {"measure": "progress", "threshold": 0.5}}, LESSONS[2]]},
            "lessons.0.until.measure",
            "total_steps",
        ),
        (
            {"lessons": [{**LESSONS[0], "until": {"measure": "return", "treshold": 1}}, LESSONS[2]]},
            "lessons.0.until.treshold",
            "did you mean 'threshold'",
        ),
        ({"lessons": LESSONS, "task": {"via": "atribute"}}, "task.via", "did you mean 'attribute'"),
        ({"lessons": LESSONS, "task": {"method": "go"}}, "task.method", "belongs to via: set_task"),
        ({"lessons": LESSONS, "evaluate_on": "last"}, "evaluate_on", "expected one of current, final, each"),
        ({"lessons": LESSONS, "seed": "1"}, "seed", "valid integer"),
        ({"type": "random", "space": {}}, "space", "at least 1"),
        ({"type": "plr"}, "", "one of `tasks`"),
        ({"type": "learning_progress", "tasks": []}, "tasks", "the list is empty"),
        ({"type": "annealing", "start": {"x": 1}, "end": {"y": 1}, "over": 5}, "end", "start has ['x']"),
        (
            {
                "type": "expanding_box",
                "start": {"x": {"uniform": [0, 9]}},
                "space": {"x": {"uniform": [0, 3]}},
            },
            "start.x",
            "not inside the space",
        ),
        (
            {"type": "self_play", "policy": "a", "opponents": "b", "snapshot": {"episodes": 3}},
            "snapshot",
            "one of",
        ),
    ],
)
def test_bad_sections_are_reported_with_their_path(section, path, message):
    found = problems(**section)
    assert path in found, found
    assert message in found[path]


def test_the_schema_imports_neither_ray_nor_torch_nor_numpy():
    code = (
        "import sys; from rlkit.curriculum import validate; validate({'lessons': []});"
        "print([m for m in ('ray', 'torch', 'numpy', 'gymnasium') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""Curriculum learning for RLlib's new API stack: lessons, automatic curricula, self-play.

    from rlkit.curriculum import CurriculumCallback          # in anyone's own RLlib script
    config.callbacks([CurriculumCallback.bind(task={"via": "attribute"}, lessons=[...])])

`configure(config, section)` does the same from a recipe's section `curriculum`, `validate(section)` checks it without
importing ray. `train_phases` is the same curriculum as a training function. docs/curriculum.md explains the options.
"""

from rlkit import lazy_names

__getattr__, __all__ = lazy_names(
    __name__,
    {
        "Clock": "curriculum.base",
        "Condition": "curriculum.conditions",
        "Curriculum": "curriculum.base",
        "CurriculumCallback": "curriculum.callback",
        "Lesson": "curriculum.lessons",
        "Lessons": "curriculum.lessons",
        "Outcome": "curriculum.base",
        "Route": "curriculum.route",
        "TYPES": "curriculum.schema",
        "TaskEnv": "curriculum.task_env",
        "TaskEnvCreator": "curriculum.task_env",
        "active": "curriculum.section",
        "configure": "curriculum.section",
        "train_phases": "curriculum.phases",
        "validate": "curriculum.schema",
    },
)

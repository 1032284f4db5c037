"""Recipes: named schedules, for users who do not want to set each option. One line each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tttab.errors import check_name
from tttab.training.config import RACED, Schedule


@dataclass(frozen=True)
class Recipe:
    """How far the weights move where nothing else is asked."""

    about: str
    schedule: Schedule


RECIPES = {
    "default": Recipe(
        "learning rates and lengths compete on the held-out rows, on the members' own losses",
        Schedule(steps=120, loss="members", optimizer="race", rates=RACED),
    ),
    "single": Recipe("50 steps at 3e-4 on the loss of the averaged prediction", Schedule()),
    "fast": Recipe("the same, one ensemble member a step", Schedule(step_members=1)),
    "thorough": Recipe(
        "the default, every rate also on soft targets of boosted trees and the pretrained model",
        Schedule(steps=144, loss="members", optimizer="race", rates=RACED, taught=True),
    ),
}


def schedule_of(recipe: str, **overrides: Any) -> Schedule:
    """Return a recipe's schedule with single settings replaced; None: as the recipe has it.

    A learning rate of one's own does not race. Another optimiser takes its own usual number of steps.

    Raises:
        RequestError: there is no such recipe.
    """
    check_name("recipe", recipe, RECIPES, "--recipe")
    settings = {name: value for name, value in overrides.items() if value is not None}
    schedule = RECIPES[recipe].schedule
    if schedule.rates and settings.get("optimizer", schedule.optimizer) != schedule.optimizer:
        schedule = replace(schedule, rates=(), taught=False, steps=Schedule.steps)
    if "lr" in settings:
        schedule = replace(schedule, rates=())
    return replace(schedule, **settings)

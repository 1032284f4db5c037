"""Rules: which weights may move. One file and one line here each.

What does not belong here: how they move (`tttab.adapt`).
"""

from __future__ import annotations

from difflib import get_close_matches

from tttab.core import Rule
from tttab.errors import RuleError
from tttab.rules.full import Full
from tttab.rules.head import Head
from tttab.rules.none import Untouched
from tttab.rules.temperature import Temperature

RULES: dict[str, Rule] = {rule.name: rule for rule in (Full(), Head(), Temperature(), Untouched())}


def get_rule(name: str) -> Rule:
    """Return the rule called `name`.

    Raises:
        RuleError: there is no such rule.
    """
    if name in RULES:
        return RULES[name]
    close = get_close_matches(name, RULES, n=1)
    raise RuleError(f"no rule is called {name!r}", f"--rule {close[0] if close else 'full'}")

"""Rules: which weights may move. Each has a line in `RULES`."""

from __future__ import annotations

from difflib import get_close_matches

from tttab.contracts import Rule
from tttab.errors import RuleError
from tttab.rules.groups import Attention, Full, Head, Temperature
from tttab.rules.last_layers import LastLayers
from tttab.rules.lora import Lora
from tttab.rules.none import Untouched

RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (Full(), Head(), Attention(), LastLayers(), Lora(), Temperature(), Untouched())
}


def get_rule(name: str) -> Rule:
    """Return the rule called `name`; `last-layers:3` is the rule `last-layers` with a count of 3.

    Raises:
        RuleError: there is no such rule, or what follows the colon is none of its own.
    """
    if name in RULES:
        return RULES[name]
    base, _, argument = name.partition(":")
    if argument and base in RULES:
        return type(RULES[base]).parse(argument)
    close = get_close_matches(base, RULES, n=1)
    raise RuleError(f"no rule is called {name!r}", f"--rule {close[0] if close else 'full'}")

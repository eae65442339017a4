"""How a fault ended, as one row of the table."""

from dataclasses import dataclass
from typing import Literal

Ending = Literal["repaired", "repaired when read", "told", "made nothing of it", "FAULT"]
"""What a fault led to.

repaired: the same command left what an undisturbed run leaves. repaired when read: it left the damage alone, since it
read nothing of it; the first one that did repaired it. told: one error that names the file. made nothing of it: nothing
is made from this file, and all others are right. FAULT: anything else.
"""


@dataclass(frozen=True)
class Outcome:
    """What a fault did."""

    what: str
    """What ran, or the kind of file."""
    fault: str
    """What was done to it."""
    moment: str
    """When."""
    seed: int
    """Makes the same fault again."""
    ending: Ending
    """How it ended."""
    told: str = ""
    """The error or what is wrong, in a line."""

"""What all settings share: frozen dataclasses that refuse unknown keys and bad values.

The settings of a room stand in its ``config.py``; ``run_config.py`` nests them in `RunConfig`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, dataclass_transform

from pydantic import ConfigDict

from qaclims_ray.errors import ConfigError

Threshold = float | Literal["auto"]
"""Background score: a number, or the one that is chosen of the CAMs without masks (`evaluation.threshold`)."""

_Config = TypeVar("_Config")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def settings(cls: type[_Config]) -> type[_Config]:
    """A frozen, keyword-only dataclass in which pydantic refuses unknown keys and infinite numbers."""
    cls.__pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)  # type: ignore[attr-defined]
    return dataclass(frozen=True, kw_only=True)(cls)


def require(claim: bool, message: str) -> None:
    """Raise a `ConfigError` unless the claim holds."""
    if not claim:
        raise ConfigError(message)


def require_at_least(config: Any, section: str, least: float, *names: str) -> None:
    """Raise a `ConfigError` naming the first field that is below `least`."""
    for name in names:
        value = getattr(config, name)
        require(value >= least, f"{section}.{name} is {value}, expected at least {least}")


def require_text(config: Any, section: str, *names: str) -> None:
    """Raise a `ConfigError` naming the first field that is empty."""
    for name in names:
        require(bool(getattr(config, name).strip()), f"{section}.{name} is empty")


@settings
class Parameter:
    """One setting and where to look for it."""

    name: str
    """Setting by dotted name, e.g. ritc.omega."""
    kind: Literal["uniform", "log", "int", "choice"] = "uniform"
    """Numbers evenly, numbers evenly on the logarithmic scale, whole numbers, or one of `choices`."""
    low: float = 0.0
    """Smallest number."""
    high: float = 0.0
    """Largest number."""
    choices: tuple[Any, ...] = ()
    """Values for kind choice."""

    def __post_init__(self) -> None:
        require_text(self, "space", "name")
        where = f"space: {self.name}"
        if self.kind == "choice":
            require(len(self.choices) >= 2, f"{where} has {len(self.choices)} choices, expected at least 2")
            return
        require(not self.choices, f"{where} is {self.kind}, but has choices; set kind to choice")
        require(self.low < self.high, f"{where}: low is {self.low:g} and high {self.high:g}, expected low below high")
        require(self.kind != "log" or self.low > 0, f"{where} is log: low is {self.low:g}, expected more than 0")

    def holds(self, value: Any) -> bool:
        """Whether a value lies where the search looks."""
        if self.kind == "choice":
            return value in self.choices
        return isinstance(value, int | float) and self.low <= value <= self.high

    def ends(self) -> tuple[Any, Any]:
        """Return two values at the borders."""
        if self.kind == "choice":
            return self.choices[0], self.choices[-1]
        if self.kind == "int":
            return int(self.low), int(self.high)
        return self.low, self.high


def dotted(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by dotted name; lists and empty mappings stay whole."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= dotted(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found

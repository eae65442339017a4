"""What all settings share: frozen dataclasses that refuse unknown keys and bad values.

The settings of a room stand in its ``config.py``; ``run_config.py`` nests them in `RunConfig`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, dataclass_transform

from pydantic import ConfigDict

from qaclims_ray.errors import ConfigError

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


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings by dotted name; lists and empty mappings stay whole."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        nested = isinstance(value, Mapping) and value
        found |= flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return found

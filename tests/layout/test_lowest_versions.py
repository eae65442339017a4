"""``constraints-lowest.txt`` has the lowest versions that ``pyproject.toml`` allows: its bounds are what was tested."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
NOT_INSTALLED = {"pydensecrf2": "a compiler builds it", "gcsfs": "no test reaches Google's storage"}
"""Dependencies of extras that tests do not take -> why."""


def _required() -> dict[str, Version]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    listed = [*project["dependencies"], *(one for extra in extras for one in extra)]
    bounds = {}
    for requirement in map(Requirement, listed):
        lowest = [part.version for part in requirement.specifier if part.operator == ">="]
        if lowest:
            bounds[canonicalize_name(requirement.name)] = Version(lowest[0])
    return bounds


def _pinned(name: str) -> dict[str, Version]:
    lines = [line for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    pairs = [line.partition("==") for line in lines if line.strip()]
    return {canonicalize_name(name): Version(version) for name, _, version in pairs}


def test_each_bound_is_the_version_that_is_tested():
    pinned = _pinned("constraints-lowest.txt")
    wrong = [
        f"{name} >= {bound}, tested with {pinned.get(name, 'none')}"
        for name, bound in _required().items()
        if name not in NOT_INSTALLED and pinned.get(name) != bound
    ]
    assert not wrong, "raise the bound to what was tested, or test the bound:\n" + "\n".join(wrong)


def test_the_usual_versions_keep_to_the_bounds():
    usual = _pinned("constraints.txt")
    below = [name for name, bound in _required().items() if name in usual and usual[name] < bound]
    assert len(usual) > 200 and not below

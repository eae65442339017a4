"""The table of methods, and how little is loaded to read it."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from qaclims_ray.errors import ConfigError
from qaclims_ray.methods.table import METHODS, MethodSettings, method_of
from qaclims_ray.systems.known import SYSTEMS

ROOT = Path(__file__).resolve().parents[3]

HEAVY = ("torch", "ray", "mlflow", "transformers", "open_clip", "timm")
"""Packages that take seconds to load."""


def test_every_settings_field_has_a_method_whose_section_is_its_name() -> None:
    for one in dataclasses.fields(MethodSettings):
        method = one.metadata["method"]
        assert method.section == one.name and METHODS[method.name] is method


def test_every_method_with_settings_has_a_field_and_borrows_from_fields_alone() -> None:
    sections = {one.name for one in dataclasses.fields(MethodSettings)}
    assert {method.section for method in METHODS.values() if method.section} == sections
    for method in METHODS.values():
        assert set(method.borrows) <= sections - {method.section}


def test_artifacts_keep_the_names_they_have_on_disk() -> None:
    kinds = {name: method.kind for name, method in METHODS.items()}
    assert kinds == {
        "classifier": "classifier",
        "qa_clims": "ritc",
        "clims": "clims",
        "semples": "semples",
        "given": "given",
        "patch_text": "patch_text",
        "sam3_names": "sam3_names",
        "online": "online",
        "online_classifier": "online_classifier",
        "given_masks": "given_masks",
        "supervised": "supervised",
    }


def test_methods_have_the_names_of_their_folders() -> None:
    folder = ROOT / "qaclims_ray" / "methods"
    folders = {path.parent.name for path in folder.glob("*/method.py")}
    others = {"given_masks", "supervised", "online_classifier"}
    assert folders == set(METHODS) - others, "two have nothing of their own, one lies beside online"


def test_every_known_system_has_a_method() -> None:
    assert {system.method for system in SYSTEMS.values()} == set(METHODS)


def test_one_method_alone_is_the_run_s_classifier() -> None:
    assert [method.name for method in METHODS.values() if method.is_classifier] == ["classifier"]


@pytest.mark.parametrize(
    ("name", "rates_epochs", "has_network"),
    [
        ("classifier", False, True),
        ("qa_clims", True, True),
        ("clims", True, True),
        ("semples", True, True),
        ("given", False, False),
        ("sam3_names", False, False),
        ("online", False, False),
        ("online_classifier", False, False),
        ("given_masks", False, False),
        ("supervised", False, False),
    ],
)
def test_what_is_rated_and_whose_network_gives_cams(name, rates_epochs, has_network) -> None:
    assert (METHODS[name].rates_epochs, METHODS[name].has_network) == (rates_epochs, has_network)


def test_one_method_alone_learns_from_true_masks() -> None:
    assert [method.name for method in METHODS.values() if method.learns_from_truth] == ["supervised"]


def test_what_a_search_varies_are_settings_of_the_method() -> None:
    for method in METHODS.values():
        assert all(parameter.name.startswith(f"{method.section}.") for parameter in method.search_space)


def test_an_unknown_method_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="there is no method 'clim'; known: classifier, qa_clims, clims"):
        method_of("clim")


def test_settings_are_read_without_loading_networks_or_clusters() -> None:
    code = (
        "import sys, qaclims_ray.run_config, qaclims_ray.methods.table\n"
        f"print(*(name for name in {HEAVY!r} if name in sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == [], "import it where it is used"

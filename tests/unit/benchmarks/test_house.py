"""The numbers of the house, on a package of ten lines a file."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import house

LOSSES = '''"""FRC, of clims fame."""
import torch


# Why the next function is here.
def foreground_contrast(x):
    """FRC."""
    return x  # semples
'''
STEP = '''"""A step."""
from qaclims_ray.methods import losses
from qaclims_ray.data import manifest


def ritc_step(job):
    import ray

    names = {"ritc": "all of clims", "semples.match": 1}
    match job.kind:
        case "classifier":
            return losses.foreground_contrast(names)
    return job.kind == "given"
'''
COPIED = """
def {name}(a):
    # {name}
    b = a + 1
    c = b + 1
    d = c + 1
    import os
    e = d + 1

    f = e + 1
    g = f + 1
    h = g + 1
    return {name}, h
"""
FILES = {
    "__init__.py": '"""Made up."""\n',
    "cli.py": "from qaclims_ray.stages.train import train\n",
    "config.py": "",
    "stages/train.py": "from qaclims_ray.methods import step\n\n\ndef train(): ...\n",
    "methods/step.py": STEP,
    "methods/losses.py": LOSSES,
    "data/manifest.py": "import qaclims_ray.config\nfrom qaclims_ray.methods.losses import foreground_contrast\n",
    "data/voc.py": "from qaclims_ray.data.manifest import foreground_contrast\n\n\ndef read_voc(): ...\n",
    "copies/first.py": COPIED.format(name="first"),
    "copies/second.py": COPIED.format(name="second"),
    "copies/long.py": "def long():\n" + "    x = 1\n" * 41 + "\n\ndef longer():\n" + "    y = [1]\n" * 60,
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        file = tmp_path / "qaclims_ray" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


def test_lines_add_up_and_know_their_kind(root):
    losses = next(module for module in house.read_package(root) if module.path == "methods/losses.py")
    counts = house.line_counts([losses])
    assert counts == {"all": 8, "code": 3, "comment": 1, "trailing": 1, "docstring": 2, "blank": 2}


def test_modules_are_counted_by_place_and_by_what_they_import(root):
    found = house.measure(root)
    assert found["modules"] == len(FILES)
    assert found["root_modules"] == ["cli.py", "config.py"]
    assert found["ray_importers"] == {"methods/step.py": STEP.count("\n")} and not found["mlflow_importers"]


def test_long_functions_are_named_the_longest_first(root):
    found = house.measure(root)
    assert (found["functions_over_40"], found["functions_over_60"]) == (2, 1)
    assert found["longest_functions"] == [(61, "copies/long.py: longer"), (42, "copies/long.py: long")]


def test_a_copy_is_found_through_comments_blank_lines_and_imports(root):
    modules = [module for module in house.read_package(root) if module.path != "copies/long.py"]
    assert house.copies(modules) == [(7, "copies/first.py:4", "copies/second.py:4")]
    assert not house.copies([module for module in modules if module.path != "copies/second.py"])


def test_methods_are_named_in_code_and_not_in_prose(root):
    named = house.measure(root)["modules_naming"]
    assert named["ritc / qa_clims"] == named["semples"] == named["classifier"] == named["given"] == ["methods/step.py"]
    assert named["clims"] == []


def test_matches_and_comparisons_of_a_kind_are_found(root):
    found = house.measure(root)
    assert found["kind_matches"] == ["methods/step.py:10"] and found["kind_comparisons"] == ["methods/step.py:13"]


def test_rooms_in_a_circle_are_found(root):
    found = house.measure(root)
    assert found["circles"] == [["data", "methods"]]
    assert sorted(found["modules_in_circles"]) == ["qaclims_ray.data.manifest", "qaclims_ray.methods.step"]


def test_journeys_are_the_shortest_ways_between_definitions(root):
    found = house.measure(root)
    ways = {name: [step.rpartition(".")[2] for step in path] for name, path in found["journeys"].items()}
    assert ways["cli -> foreground_contrast"] == ["cli", "train", "step", "losses"]
    assert ways["read_voc - ritc_step"] == ["voc", "manifest", "step"]
    assert ways["cli -> CamActor"] == [], "it is defined nowhere"
    assert len(found["farthest"]) == 5 and found["farthest"][-1] == "qaclims_ray.config"
    assert "qaclims_ray.data.voc" in found["not_reached"]


def test_the_command_prints_a_table_and_json(root):
    script = [sys.executable, "-I", house.__file__, str(root)]
    text = subprocess.run(script, check=True, capture_output=True, text=True).stdout
    assert "4: cli > stages.train > methods.step > methods.losses" in text and "not defined" in text
    found = subprocess.run([*script, "--json"], check=True, capture_output=True, text=True).stdout
    assert json.loads(found)["modules"] == len(FILES)


def test_a_folder_without_the_package_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="found no qaclims_ray/"):
        house.measure(tmp_path)

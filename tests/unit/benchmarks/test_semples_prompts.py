"""What the second look at prompts rests on: surroundings of the miniature's classes, ways, where prompts lie."""

import json

import torch
import torch.nn.functional as F

from benchmarks.semples_prompts import (
    COLUMNS,
    Ground,
    overrides_of,
    places,
    places_table,
    points,
    refined_table,
    rows_of,
    surroundings,
)
from qaclims_ray.methods.semples.prompts import BackgroundFeatures
from qaclims_ray.miniature.vocabulary import CLASSES, NUM_CLASSES, STUFF


def test_stuff_and_things_are_around_a_class_or_not() -> None:
    for class_id in range(NUM_CLASSES):
        near, far = surroundings(class_id)
        assert sorted([class_id, *near, *far]) == list(range(len(STUFF)))
    near, _ = surroundings(CLASSES.index("train"))
    assert [STUFF[place] for place in near] == ["platform", "concrete", "hill", "flag", "fence"]


def test_a_way_is_settings_of_prompts() -> None:
    assert overrides_of("preset") == {}
    found = overrides_of("similarity=clamp text_weight=0.3 prefix= learn=false")
    assert found == {
        "semples.prompt.similarity": "clamp",
        "semples.prompt.text_weight": 0.3,
        "semples.prompt.prefix": "",
        "semples.prompt.learn": False,
    }


def ground() -> Ground:
    """Words that are orthogonal; background regions that show each class's usual stuff, and foreground the class."""
    words = torch.eye(NUM_CLASSES + len(STUFF))
    class_ids = torch.arange(NUM_CLASSES)
    cached = BackgroundFeatures(features=words[NUM_CLASSES : 2 * NUM_CLASSES], class_ids=class_ids)
    run = None  # what is looked at needs none
    return Ground(run, cached, words[:NUM_CLASSES], class_ids, words)  # type: ignore[arg-type]


def test_prompts_of_the_usual_stuff_read_as_background_and_leave_no_gradient_for_refinement() -> None:
    here = ground()
    stuff = places(here, here.words[NUM_CLASSES : 2 * NUM_CLASSES])
    assert set(COLUMNS) <= set(stuff)
    assert (stuff["stuff"], stuff["class"], stuff["reads_around"], stuff["reads_class"]) == (1, 0, 8, 0)
    assert (stuff["background"], stuff["foreground"], stuff["alive"]) == (1, 0, 0)


def test_prompts_between_class_and_stuff_are_told_by_the_nearest_word() -> None:
    here = ground()
    classes, usual = here.words[:NUM_CLASSES], here.words[NUM_CLASSES : 2 * NUM_CLASSES]
    both = places(here, F.normalize(2 * classes + usual, dim=1))
    assert (both["reads_around"], both["reads_class"], both["alive"]) == (0, 8, 1)
    assert both["class"] > both["stuff"] > both["other"] and both["text_loss"] < 0 < both["image_loss"]


def test_tables_are_means_over_seeds(tmp_path) -> None:
    path = tmp_path / "places.jsonl"
    assert rows_of(path, [10]) == [] and places_table([]) == ""
    rows = [{"seed": seed, "way": "preset", **dict.fromkeys(COLUMNS, 0.1 * seed)} for seed in (1, 3, 5)]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    assert "| preset | 0.20 |" in places_table(rows_of(path, [1, 3]))
    assert points([50.0]) == "50.0" and points([50.0, 52.0]) == "51.0 (50.0, 52.0)"
    stages = {stage: {"miou": 0.5, "best": 0.6} for stage in ("crf", "pamr")}
    seed = {"miou": 0.4, "best": 0.45, "coverage": 0.7, "context": 0.2, "elsewhere": 0.1}
    shown = refined_table([{"way": "preset", "cpu_s": 60.0, "seed": seed, **stages}])
    assert "| preset | 40.0 | 45.0 | 50.0 | 50.0 | 60.0 | 0.70 | 0.20 | 0.10 | 60 | 1 |" in shown

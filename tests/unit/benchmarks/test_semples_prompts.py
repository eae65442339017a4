"""What the second look at prompts rests on: surroundings of the miniature's classes, ways, where prompts lie."""

import json
import sys
from dataclasses import replace

import torch
import torch.nn.functional as F

from benchmarks.prompt_ground import (
    REFERENCES,
    Ground,
    free_vectors,
    learned,
    overrides_of,
    places,
    prompts_of,
    surroundings,
)
from benchmarks.semples_prompts import COLUMNS, main, places_table, points, refined_table, rows_of
from qaclims_ray.methods.semples.config import PromptConfig
from qaclims_ray.miniature.shipped import clip_dir
from qaclims_ray.miniature.vocabulary import CLASSES, NUM_CLASSES, STUFF
from qaclims_ray.models.clip.frozen import load_clip
from qaclims_ray.training.config import OptimConfig

QUICK = OptimConfig(name="adamw", lr=0.05, head_lr_factor=1.0, weight_decay=0.0, epochs=2, batch_size=16)


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
    """Background regions that show each class's usual stuff, and foreground regions that show the class; by texts."""
    clip = load_clip(str(clip_dir()), None, device="cpu", mask_adapted=False)
    with torch.no_grad():
        words = clip.encode_texts([f"a photo of {word}." for word in (*CLASSES, *STUFF)])
    class_ids = torch.arange(NUM_CLASSES)
    settings = PromptConfig(length=2, init="vocabulary", similarity="shift", steps_per_epoch=20, optim=QUICK)
    return Ground(clip, settings, 0, words[NUM_CLASSES : 2 * NUM_CLASSES], class_ids, words[:NUM_CLASSES], words)


def orthogonal() -> Ground:
    """The same with words that have nothing in common."""
    words = torch.eye(NUM_CLASSES + len(STUFF))
    return replace(
        ground(), background=words[NUM_CLASSES : 2 * NUM_CLASSES], foreground=words[:NUM_CLASSES], words=words
    )


def test_prompts_of_the_usual_stuff_read_as_background_and_leave_no_gradient_for_refinement() -> None:
    here = orthogonal()
    stuff = places(here, here.words[NUM_CLASSES : 2 * NUM_CLASSES])
    assert set(COLUMNS) <= set(stuff)
    assert (stuff["stuff"], stuff["class"], stuff["reads_around"], stuff["reads_class"]) == (1, 0, 8, 0)
    assert (stuff["background"], stuff["foreground"], stuff["alive"]) == (1, 0, 0)


def test_prompts_between_class_and_stuff_are_told_by_the_nearest_word() -> None:
    here = orthogonal()
    classes, usual = here.words[:NUM_CLASSES], here.words[NUM_CLASSES : 2 * NUM_CLASSES]
    both = places(here, F.normalize(2 * classes + usual, dim=1))
    assert (both["reads_around"], both["reads_class"], both["alive"]) == (0, 8, 1)
    assert both["class"] > both["stuff"] > both["other"] and both["text_loss"] < 0 < both["image_loss"]


def test_ways_learn_side_by_side_what_each_learns_alone() -> None:
    here = ground()
    ways = {"all": here.settings, "image": replace(here.settings, text_weight=0.0, similarity="clamp")}
    both = learned(here, ways)
    for name, settings in ways.items():
        alone = learned(here, {name: settings})[name]
        torch.testing.assert_close(both[name], alone, atol=2e-4, rtol=0)
    start = places(here, dict(prompts_of(here, ["learn=false length=2"]))["learn=false length=2"])
    assert places(here, both["all"])["background"] > start["background"] + 0.2


def test_free_vectors_leave_the_class_when_the_text_term_is_strong() -> None:
    here = ground()
    weak, strong = (free_vectors(here, replace(here.settings, text_weight=weight)) for weight in (0.0, 0.5))
    assert places(here, weak)["background"] > 0.99
    assert places(here, strong)["class"] < places(here, weak)["class"] - 0.1


def test_eq_2_asks_for_background_between_a_weak_text_term_and_one_that_only_flees(tmp_path, monkeypatch) -> None:
    weights, clamped = (
        (0, 0.02, 0.1, 0.2, 0.3, 0.5),
        [f"free similarity=clamp text_weight={w}" for w in (0.02, 0.1, 0.3)],
    )
    ways = ["learn=false", *(f"free text_weight={weight}" for weight in weights), *clamped]
    asked = ["--work", str(tmp_path), "--seeds", "10", "--regions", "true", "--images", "48", "--ways", *ways]
    monkeypatch.setattr(sys, "argv", ["semples_prompts", *asked])
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    main()
    rows = {row["way"]: row for row in rows_of(tmp_path / "places-true.jsonl", [10])}
    assert set(rows) == {*ways, *REFERENCES}
    # Without a pixel of the object a region is nearest to the name of its class: what L_I alone has to learn from.
    assert rows["mean background region"]["reads_class"] >= 6 and rows["free text_weight=0"]["reads_class"] >= 6
    falling = [rows[f"free text_weight={weight}"]["class"] for weight in (0, 0.02, 0.1, 0.2)]
    assert falling == sorted(falling, reverse=True)
    between, strong = rows["free text_weight=0.2"], rows["free text_weight=0.5"]
    assert between["reads_around"] >= 6 and between["alive"] > 0.9
    assert strong["class"] < -0.9 and strong["alive"] == 0  # as far from the class as can be, and from everything else
    assert all(rows[way]["class"] > -0.5 and rows[way]["background"] > 0.3 for way in clamped)


def test_tables_are_means_over_seeds(tmp_path) -> None:
    path = tmp_path / "places-true.jsonl"
    assert rows_of(path, [10]) == [] and places_table([]) == ""
    rows = [{"seed": seed, "way": "preset", **dict.fromkeys(COLUMNS, 0.1 * seed)} for seed in (1, 3, 5)]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    assert "| preset | 0.20 |" in places_table(rows_of(path, [1, 3]))
    assert points([50.0]) == "50.0" and points([50.0, 52.0]) == "51.0 (50.0, 52.0)"
    stages = {stage: {"miou": 0.5, "best": 0.6} for stage in ("crf", "pamr")}
    seed = {"miou": 0.4, "best": 0.45, "coverage": 0.7, "context": 0.2, "elsewhere": 0.1}
    shown = refined_table([{"way": "preset", "cpu_s": 60.0, "seed": seed, **stages}])
    assert "| preset | 40.0 | 45.0 | 50.0 | 50.0 | 60.0 | 0.70 | 0.20 | 0.10 | 60 | 1 |" in shown

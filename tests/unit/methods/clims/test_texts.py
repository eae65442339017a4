"""The texts of both forms of CLIMS, as `build_bank` would encode them."""

import pytest

from qaclims_ray.data.classes import COCO_CLASSES, VOC_CLASSES
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.methods.clims.task import class_weights
from qaclims_ray.methods.clims.texts import COCO_BACKGROUND
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import RunConfig
from qaclims_ray.systems.table import system_config
from qaclims_ray.text.prompts import pair_prompts

# Written out once more, so that a change of the table is seen. The order of texts is of no weight.
SHARED = {"tree", "river", "sea", "lake", "water", "railway", "railroad", "track", "stone", "rocks"}
CAMERA_READY = {
    "boat": {"river", "water", "lake", "sea", "building"},
    "train": {"railroad", "railway", "branches", "tree"},
}
SPELLED = {"dining table": "diningtable", "potted plant": "pottedplant", "tv monitor": "tvmonitor"}


def prompts_of(config: RunConfig, classes: tuple[str, ...]) -> dict[str, tuple[tuple[str, ...], set[str]]]:
    """Return foreground and background prompts of every class."""
    records = tuple(ImageRecord(str(i), f"{i}.png", 8, 8, (i,), splits=("train",)) for i in range(len(classes)))
    found = pair_prompts(None, Manifest(classes, records), config.text)
    return {classes[pair.class_id]: (pair.foreground, set(pair.background)) for pair in found}


def test_the_improved_version_has_ten_texts_for_all_classes_of_voc() -> None:
    found = prompts_of(system_config(preset("voc12_clims"), "clims"), VOC_CLASSES)
    for name, (foreground, background) in found.items():
        assert foreground == (f"a photo of {'player' if name == 'person' else name}.",)
        assert background == {f"a photo of {text}." for text in SHARED}


def test_the_camera_ready_version_has_texts_of_two_classes_and_calls_all_as_the_files_do() -> None:
    found = prompts_of(system_config(preset("voc12_clims"), "clims_camera_ready"), VOC_CLASSES)
    for name, (foreground, background) in found.items():
        assert foreground == (f"a photo of {SPELLED.get(name, name)}",)
        assert background == {f"a photo of {text}" for text in CAMERA_READY.get(name, ())}


def test_the_camera_ready_version_weighs_three_classes_threefold() -> None:
    weights = class_weights(VOC_CLASSES, system_config(preset("voc12_clims"), "clims_camera_ready").clims).tolist()
    assert {name: weight for name, weight in zip(VOC_CLASSES, weights, strict=True) if weight != 1} == {
        "sofa": 3.0,
        "dining table": 3.0,
        "chair": 3.0,
    }
    assert set(class_weights(VOC_CLASSES, system_config(preset("voc12_clims"), "clims").clims).tolist()) == {1.0}


def test_coco_has_88_texts_of_its_own_for_all_classes() -> None:
    config = system_config(preset("coco14_clims"), "clims")
    found = prompts_of(config, COCO_CLASSES)
    assert len(COCO_BACKGROUND) == len(set(COCO_BACKGROUND)) == 88 and "rocks" not in COCO_BACKGROUND
    for name, (foreground, background) in found.items():
        assert foreground == (f"a photo of {name}.",), "COCO keeps its own names, person included"
        assert background == {f"a photo of {text}." for text in COCO_BACKGROUND}


@pytest.mark.parametrize("name", ["clims", "fixed_clims"])
def test_the_miniature_has_the_list_in_words_that_its_clip_knows(name) -> None:
    from qaclims_ray.miniature.tokenizer import clip_vocabulary

    config = system_config(preset("miniature"), name)
    ((key, texts),) = config.text.fixed_background
    assert key == "*" and set(texts) == SHARED - {"rocks"} | {"rock"}
    assert set(texts) <= set(clip_vocabulary())

"""What a run cannot learn from is refused before anything runs; what it can is not."""

from dataclasses import replace
from typing import Any

import pytest

from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.data.validation import RawImage
from qaclims_ray.errors import DataError
from qaclims_ray.presets.miniature import miniature
from qaclims_ray.run_config import RunConfig, with_overrides
from qaclims_ray.stages.learnable import check_labels, check_masks

NAMES = ("cat", "dog")
TRAIN = ("train",)


def run(**overrides: Any) -> RunConfig:
    wanted = {"systems": ("baseline",), "goal": "seed", **{n.replace("__", "."): v for n, v in overrides.items()}}
    return with_overrides(miniature(), wanted)


def images(*labels: tuple[int, ...] | None, splits: tuple[str, ...] = TRAIN, mask: str | None = None) -> list[RawImage]:
    return [RawImage(f"i{n}", f"/i{n}.png", found, mask, None, splits) for n, found in enumerate(labels)]


def refusal(config: RunConfig, found: list[RawImage], names: tuple[str, ...] = NAMES) -> str:
    with pytest.raises(DataError) as caught:
        check_labels(config, names, found)
    return str(caught.value)


@pytest.mark.parametrize("goal", ["seed", "mask", "segmentation"])
@pytest.mark.parametrize("system", ["baseline", "qa_clims", "clims", "semples"])
def test_no_label_at_all(system: str, goal: str) -> None:
    assert "none of the 3 images of split train has a label" in refusal(
        run(systems=(system,), goal=goal), images((), (), ())
    )


def test_empty_splits() -> None:
    assert "no image belongs to split train" in refusal(run(), images((0,), (1,), splits=("val",)))
    assert "no image belongs to split val" in refusal(run(data__eval_split="val"), images((0,), (1,)))
    found = [*images((0,), (1,)), *images((), splits=("val",))]
    assert "of split val has a label: they would have no CAM" in refusal(run(data__eval_split="val"), found)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([(0,), (0,), (0,)], "every one of the 3 images of split train shows cat: the labels tell no two images apart"),
        ([(0, 1), (0, 1)], "shows cat, dog"),
        ([(0,)], "a single image"),
    ],
)
def test_labels_without_contrast(found: list[tuple[int, ...]], expected: str) -> None:
    assert expected in refusal(run(), images(*found))


@pytest.mark.parametrize("found", [[(0,), ()], [(0,), (1,)], [(0,), (0, 1)], [(0,), (1,), ()]])
def test_labels_with_contrast_are_taken(found: list[tuple[int, ...]]) -> None:
    check_labels(run(cluster__num_workers=1), NAMES, images(*found))


def test_labels_that_masks_will_tell_are_not_judged_yet() -> None:
    check_labels(run(), NAMES, images((0,), None))


def test_cams_and_networks_made_elsewhere_need_no_contrast() -> None:
    all_alike = images((0,), (0,))
    given = run(systems=("given_cams",), given__cams="/cams")
    check_labels(given, NAMES, all_alike)
    check_labels(run(classifier__network="/network", classifier__calibrate=False), NAMES, all_alike)
    # but what is learned on them needs labels
    found = [*images((), ()), *images((0,), splits=("val",))]
    check_labels(with_overrides(given, {"data.eval_split": "val"}), NAMES, found)
    segmentation = with_overrides(given, {"data.eval_split": "val", "goal": "segmentation"})
    assert "of split train has a label" in refusal(segmentation, found)


def test_more_workers_than_images() -> None:
    assert "fewer than the 3 training workers" in refusal(run(cluster__num_workers=3), images((0,), (1,)))


def manifest(*masks: str | None, splits: tuple[str, ...] = TRAIN) -> Manifest:
    records = (ImageRecord(f"i{n}", f"/i{n}.png", 8, 8, (n % 2,), mask, None, splits) for n, mask in enumerate(masks))
    return Manifest(NAMES, tuple(records))


def test_masks_that_a_system_learns_from() -> None:
    config = run(systems=("baseline", "fully_supervised"), goal="segmentation", data__test_split="train")
    with pytest.raises(DataError, match="learns from true masks, but none of the 2 images of split train has one"):
        check_masks(config, manifest(None, None))
    check_masks(config, manifest("/m.png", None))
    check_masks(replace(config, systems=("baseline",)), manifest(None, None))


def test_masks_that_rate_epochs() -> None:
    config = run(systems=("qa_clims",), selection__criterion="oracle")
    with pytest.raises(DataError, match=r"selection.criterion is oracle, .* no image of split train has one"):
        check_masks(config, manifest(None, None))
    check_masks(config, manifest("/m.png"))
    check_masks(run(selection__criterion="oracle"), manifest(None))  # the classifier's epochs are not rated
    with pytest.raises(DataError, match="no image of the manifest belongs to split 'dev'"):
        check_masks(with_overrides(config, {"selection.split": "dev"}), manifest("/m.png"))


def test_a_final_network_needs_a_test_split() -> None:
    with pytest.raises(DataError, match="no image of the manifest belongs to split 'val'"):
        check_masks(run(goal="segmentation"), manifest("/m.png"))

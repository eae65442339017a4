"""Which images each part of a run works on."""

import pytest

from qaclims_ray.data.config import DataConfig
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.data.splits import images_with_cams, scored_images, segmented_images, training_images
from qaclims_ray.errors import DataError

DATA = DataConfig(dataset="voc12", root="/data", train_split="aug", eval_split="train", test_split="val")


def _manifest(**splits: tuple[str, ...]) -> Manifest:
    records = tuple(ImageRecord(name, "x", 4, 4, (0,), splits=own) for name, own in splits.items())
    return Manifest(("a",), records, ("a note",))


WHOLE = _manifest(v=("val",), both=("aug", "train"), extra=("aug",), scored=("train",), other=("spare",))


def _names(manifest: Manifest) -> list[str]:
    return [record.image_id for record in manifest.records]


def test_training_and_scoring_have_their_own_split() -> None:
    assert _names(training_images(WHOLE, DATA)) == ["both", "extra"]
    assert _names(scored_images(WHOLE, DATA)) == ["both", "scored"]


def test_cams_are_of_scored_images_and_of_training_images_where_masks_follow() -> None:
    assert _names(images_with_cams(WHOLE, DATA, with_training=False)) == ["both", "scored"]
    assert _names(images_with_cams(WHOLE, DATA, with_training=True)) == ["both", "extra", "scored"]


def test_final_networks_segment_test_images_and_those_whose_seeds_are_scored() -> None:
    assert _names(segmented_images(WHOLE, DATA)) == ["v", "both", "scored"]


def test_images_stay_in_the_order_of_the_manifest_and_each_is_there_once() -> None:
    same = DataConfig(dataset="voc12", root="/data", train_split="train", eval_split="train")
    assert _names(images_with_cams(WHOLE, same, with_training=True)) == ["both", "scored"]


def test_classes_and_notes_stay() -> None:
    for found in (images_with_cams(WHOLE, DATA, with_training=True), segmented_images(WHOLE, DATA)):
        assert (found.class_names, found.notes) == (WHOLE.class_names, WHOLE.notes)


@pytest.mark.parametrize("work_on", [training_images, scored_images, segmented_images])
def test_a_split_without_images_is_named(work_on) -> None:
    with pytest.raises(DataError, match=r"no image of the manifest belongs to split .*; its splits are \['spare'\]"):
        work_on(_manifest(other=("spare",)), DATA)

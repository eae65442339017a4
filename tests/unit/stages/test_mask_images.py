"""Which images a final network may learn from."""

import pytest

from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.errors import DataError
from qaclims_ray.stages.mask_images import require_truth, truth_images, truth_share


def manifest_of(*masks: str | None) -> Manifest:
    records = tuple(
        ImageRecord(
            image_id=str(i), image_uri=f"{i}.jpg", mask_uri=mask, width=8, height=8, labels=(0,), splits=("train",)
        )
        for i, mask in enumerate(masks)
    )
    return Manifest(("cat",), records)


def test_a_bound_without_any_true_mask_is_refused_with_both_ways_to_ask_for_it() -> None:
    with pytest.raises(DataError, match=r"no image of split train has a true mask.*supervised_bound.*systems"):
        require_truth(manifest_of(None, None), "train")
    with pytest.raises(DataError, match="no image of split val"):
        require_truth(manifest_of("a.png"), "val")


def test_some_true_masks_are_enough_and_their_share_is_said() -> None:
    some = manifest_of("a.png", None)
    require_truth(some, "train")
    assert [image.image_id for image in truth_images(some, "train")] == ["0"]
    assert truth_share(some, "train").startswith("1 of 2 training images")

"""What a stage of label maps makes of its shards' parts, and what label maps depend on; no Ray is started."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch

from qaclims_ray.data import artifacts
from qaclims_ray.data.artifacts import Artifact
from qaclims_ray.data.images import save_label_map
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.data.shards import IMAGES_PER_SHARD
from qaclims_ray.errors import ArtifactError, DataError
from qaclims_ray.refine.config import MaskConfig
from qaclims_ray.stages import image_stage
from qaclims_ray.stages.image_stage import Part, part_name, run_image_stage, write_part
from qaclims_ray.stages.refine import content_fingerprint, mask_settings
from qaclims_ray.stages.stage import Stage
from tests.cluster.small_run import small_config

pytestmark = pytest.mark.ray


def _run(uri: Path, *, max_failed_fraction: float) -> Part:
    records = tuple(ImageRecord(f"{i:03d}", f"{i}.jpg", 8, 8, (0,)) for i in range(2 * IMAGES_PER_SHARD))
    config = small_config(cams__max_failed_fraction=max_failed_fraction)
    return run_image_stage(
        Stage(config, None),  # type: ignore[arg-type]
        _artifact(uri),
        Manifest(("dog",), records),
        actor=object,
        actor_kwargs={},
        write=dict,
        num_actors=1,
        gpus_per_actor=0,
    )


def _artifact(uri: Path) -> Artifact:
    return Artifact(uri=str(uri), kind="masks", settings={}, verb="refine")


def _write_parts(uri: Path, error: str) -> None:
    workshop = _artifact(uri).workshop
    for i in range(2 * IMAGES_PER_SHARD):
        save_label_map(torch.zeros(8, 8, dtype=torch.uint8), f"{workshop}/{i:03d}.png")
    write_part(workshop, 0, [{"image_id": "000", "error": ""}], {"sweep": np.array([1, 2])})
    write_part(workshop, 1, [{"image_id": "064", "error": error}], {"sweep": np.array([10, 20])})


def test_rows_follow_each_other_and_counts_add_up(tmp_path) -> None:
    _write_parts(tmp_path / "masks", "")
    whole = _run(tmp_path / "masks", max_failed_fraction=0.0)
    assert [row["image_id"] for row in whole.rows] == ["000", "064"]
    assert whole.counts["sweep"].tolist() == [11, 22]


@pytest.mark.parametrize("name", ["064.png", part_name(1)])
def test_a_label_map_or_part_that_was_damaged_since_is_made_again(tmp_path, monkeypatch, name: str) -> None:
    _write_parts(tmp_path / "masks", "")
    asked: list[set[int]] = []
    monkeypatch.setattr(image_stage, "run_shards", lambda shards, *, finished, **_: asked.append(set(finished)))
    _run(tmp_path / "masks", max_failed_fraction=0.0)
    path = Path(_artifact(tmp_path / "masks").workshop, name)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with contextlib.suppress(ArtifactError):  # nobody makes the part again here
        _run(tmp_path / "masks", max_failed_fraction=0.0)
    assert asked == [{0, 1}, {0}]


def test_too_many_failures_forget_their_shards_alone(tmp_path) -> None:
    uri = tmp_path / "masks"
    _write_parts(uri, "064.jpg is broken")
    assert _run(uri, max_failed_fraction=0.5).counts["sweep"].tolist() == [11, 22]
    with pytest.raises(DataError, match=r"1 of 128 images cannot be read: 064.jpg is broken"):
        _run(uri, max_failed_fraction=0.0)
    workshop = Path(_artifact(uri).workshop)
    assert (workshop / part_name(0)).exists() and not (workshop / part_name(1)).exists()


def test_a_final_network_does_not_depend_on_how_its_masks_were_scored_nor_on_which_others_there_are(tmp_path) -> None:
    def content(sweep: list[float], scored: str, cams: str, images: str = "m") -> str:
        settings = {"masks": artifacts.plain(mask_settings(MaskConfig())), "sweep": sweep}
        inputs = {"cams": cams, "manifest": images, "scored": scored}
        made = Artifact(uri=str(tmp_path / "masks"), kind="masks", settings=settings, inputs=inputs, verb="refine")
        return content_fingerprint(made.complete())

    assert content([0.1], "one", "c") == content([0.1, 0.2], "other", "c")
    assert content([0.1], "one", "c") == content([0.1], "one", "c", images="more")
    assert content([0.1], "one", "c") != content([0.1], "one", "d")

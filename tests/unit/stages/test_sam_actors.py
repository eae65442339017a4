"""What the actors of two stages load of Segment Anything and hand on, without a Ray."""

import dataclasses

import pytest
import torch

from qaclims_ray.cams.config import CamConfig
from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.cams.store import write_cam_shard
from qaclims_ray.data.classes import Classes
from qaclims_ray.data.manifest import ImageRecord
from qaclims_ray.data.shards import shard_name
from qaclims_ray.errors import DataError
from qaclims_ray.methods.method import FrozenNetwork, Recipe, Sources
from qaclims_ray.methods.table import METHODS
from qaclims_ray.presets.table import preset
from qaclims_ray.refine.config import MaskConfig, SamConfig
from qaclims_ray.run_config import with_overrides
from qaclims_ray.stages.cams import CamActor, settings_of_maps
from qaclims_ray.stages.image_stage import ReadImage, ReadShard
from qaclims_ray.stages.refine import RefineActor
from qaclims_ray.systems.recipe import recipe_of
from tests.unit.refine import tiny_sams
from tests.unit.refine.test_sam_masks import image

CLASSES = Classes(tiny_sams.WORDS)
RECORD = ImageRecord("one", "one.png", width=50, height=40, labels=(1, 3))


def frozen_of(folder: str, *names: str, **overrides: object) -> FrozenNetwork:
    method = METHODS["sam3_names"]
    recipe: Recipe = recipe_of(with_overrides(preset("voc12"), {"sam3_names.model": folder, **overrides}), method)
    assert method.frozen is not None
    return method.frozen(recipe, Sources(manifest="", class_names=names))


def test_sam_3_makes_the_maps_of_a_shard_and_a_bad_image_is_its_error(tmp_path) -> None:
    source = frozen_of(tiny_sams.save_sam3_detector(tmp_path), *tiny_sams.WORDS)
    actor = CamActor(source.load, CamConfig(grid_stride=4))
    bad = dataclasses.replace(RECORD, image_id="bad")
    found = actor((7, [(RECORD, image()), (bad, DataError("bad.png is no picture"))]))
    (cam,) = found.cams
    assert (found.index, found.errors) == (7, ["bad.png is no picture"])
    assert cam.class_ids == (1, 3) and cam.full is not None and tuple(cam.full.shape) == (2, 40, 50)
    assert cam.full.dtype == torch.float16, "as they are stored"


def test_its_maps_depend_on_model_words_and_least_score_and_not_on_scales(tmp_path) -> None:
    folder = tiny_sams.save_sam3_detector(tmp_path)
    source = frozen_of(folder, "cat", "dog")
    assert source.settings == {"least_score": 0.5, "words": ["cat", "dog"]}
    assert frozen_of(folder, "cat", "dog", **{"text.class_words": [["dog", "bird"]]}).settings["words"] == [
        "cat",
        "bird",
    ]
    assert set(settings_of_maps(CamConfig(scales=(1.0,)), source)) == {"store", "grid_stride", "dtype"}
    assert source.inputs != frozen_of(tiny_sams.save_sam3(tmp_path / "other"), "cat", "dog").inputs


@pytest.mark.parametrize("prompts", ["grid", "seeds"])
def test_the_refining_actor_asks_in_the_way_of_the_settings(prompts, tmp_path) -> None:
    maps = torch.zeros(2, 40, 50)
    maps[0, 4:22, 6:24], maps[1, 20:36, 28:46] = 0.9, 0.8
    cam = ImageCam("one", (1, 3), maps, None, 40, 50)
    write_cam_shard(str(tmp_path / "cams" / shard_name(0)), [cam], "float32")
    sam = SamConfig(
        model=tiny_sams.save_sam2(tmp_path / "sam"), prompts=prompts, points_per_side=4, min_predicted_iou=0.0,
        min_stability=0.0, max_overlap=1.0,
    )  # fmt: skip
    actor = RefineActor(MaskConfig(steps=("sam",), sam=sam), str(tmp_path / "cams"), "", CLASSES, ("none", None), [])
    assert (actor.refiners.segments is not None, actor.refiners.parts is not None) == (
        prompts == "grid",
        prompts == "seeds",
    )
    shard = ReadShard(0, [ReadImage(RECORD, image(), None)], {}, {"one": cam})
    ((record, refined, _),) = actor(shard).cams
    assert record is RECORD and refined.full is not None and set(refined.full.unique().tolist()) <= {0.0, 1.0}
    assert float(refined.full.sum()) > 0

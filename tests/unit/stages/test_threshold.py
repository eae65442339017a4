"""The threshold that is chosen without masks: on which images, how it is summed, where it is taken."""

from pathlib import Path
from typing import Any

import pytest
import torch

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.cams.store import write_cam_shard
from qaclims_ray.data.artifacts import Artifact
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.data.shards import shard_name
from qaclims_ray.errors import ArtifactError
from qaclims_ray.evaluation.threshold import LEVELS, middle_of_top
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import with_overrides
from qaclims_ray.stages import threshold
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.predict import _threshold
from qaclims_ray.stages.threshold import CHOICE_NAME, ThresholdActor, at_chosen_threshold, read_threshold
from qaclims_ray.systems.table import system_config
from tests.finished_artifacts import finished

CHOICE = '{"threshold": 0.24, "thresholds": [0.2, 0.24], "figures": [0.1, 0.3], "num_images": 7}'


def record(name: str, *, labels: tuple[int, ...] = (0,), splits: tuple[str, ...] = ("train",)) -> ImageRecord:
    return ImageRecord(name, f"{name}.png", 8, 8, labels, splits=splits)


def keep_choice(folder: Path, content: str = CHOICE) -> RunLayout:
    layout = RunLayout(str(folder))
    place = Path(layout.threshold("baseline"))
    place.mkdir(parents=True)
    (place / CHOICE_NAME).write_text(content)
    finished(Artifact(uri=str(place), kind="threshold", settings={}, inputs={}, verb="evaluate"))
    return layout


def auto(**overrides: Any) -> Any:
    config = with_overrides(preset("miniature"), {"masks.seed_threshold": "auto", "variants": [], **overrides})
    return system_config(config, "baseline")


def test_the_sample_is_spread_over_shards_and_takes_labelled_images_of_the_split():
    shards = [[record(f"{shard}-{i}", labels=(0,) if i % 2 else ()) for i in range(64)] for shard in range(40)]
    shards[0] = [record("val", splits=("val",))]
    sample = threshold._sample(shards, "train")
    assert len(sample) == 16 and all(index for index, _ in sample)
    assert [len(records) for _, records in sample] == [16] * 16
    assert all(one.labels and one.image_id.startswith(f"{index}-") for index, records in sample for one in records)
    assert threshold._sample(shards, "train") == sample and threshold._sample(shards, "test") == []


def test_shards_add_up_however_they_are_parted(tmp_path: Path):
    generator = torch.Generator().manual_seed(3)
    images = {f"i{i}": (torch.rand(3, 12, 12, generator=generator) * 255).to(torch.uint8) for i in range(4)}
    cams = [ImageCam(name, (0,), torch.rand(1, 12, 12, generator=generator), None, 12, 12) for name in images]
    parts = {"one": [cams], "two": [cams[:1], cams[1:]]}
    chosen = []
    for name, shards in parts.items():
        for index, shard in enumerate(shards):
            write_cam_shard(str(tmp_path / name / shard_name(index)), shard, "float32")
        actor = ThresholdActor(LEVELS, str(tmp_path / name))
        found = [{cam.image_id: images[cam.image_id] for cam in shard} for shard in shards]
        chosen.append(threshold._chosen([actor(shard) for shard in enumerate(found)], LEVELS))
    assert chosen[0].figures == pytest.approx(chosen[1].figures) and chosen[0].num_images == 4
    assert (
        chosen[0].threshold
        == chosen[1].threshold
        == LEVELS[middle_of_top(torch.tensor(chosen[0].figures, dtype=torch.float64))]
    )


def test_a_threshold_is_chosen_where_there_is_something_to_choose_by():
    given = with_overrides(auto(), {"masks.seed_threshold": 0.3})
    labelled, bare = (Manifest(("bird",), (record("a", labels=labels),)) for labels in ((0,), ()))
    assert threshold.wants_threshold(given, labelled) and not threshold.wants_threshold(given, bare)
    assert threshold.wants_threshold(auto(), bare), "and is refused with what is missing"
    tissue = Manifest(("tumor",), (record("a"),), has_background=False)
    assert not threshold.wants_threshold(given, tissue)


def test_images_without_stored_cams_are_no_choice():
    with pytest.raises(ArtifactError, match="none of the sampled images has stored CAMs"):
        threshold._chosen([{"figures": [0.0, 0.0], "images": 0}], (0.2, 0.4))


def test_auto_becomes_the_number_that_was_chosen(tmp_path: Path):
    layout = keep_choice(tmp_path)
    config = at_chosen_threshold(auto(), layout, "baseline")
    assert config.masks.threshold == config.fixed_threshold == config.scoring.threshold == 0.24
    pinned = at_chosen_threshold(auto(**{"evaluation.fixed_threshold": 0.5}), layout, "baseline")
    assert (pinned.masks.threshold, pinned.fixed_threshold) == (0.24, 0.5)
    given = with_overrides(auto(), {"masks.seed_threshold": 0.3})
    assert at_chosen_threshold(given, RunLayout(str(tmp_path / "none")), "baseline") == given


def test_no_choice_and_a_damaged_one_are_told(tmp_path: Path):
    with pytest.raises(ArtifactError, match="qaclims evaluate"):
        at_chosen_threshold(auto(), RunLayout(str(tmp_path)), "baseline")
    with pytest.raises(ArtifactError, match=r"Remove .*thresholds/baseline"):
        read_threshold(keep_choice(tmp_path, CHOICE[:20]), "baseline")


@pytest.mark.parametrize(("asked", "expected"), [(None, 0.6), (0.35, 0.35), ("auto", 0.24)])
def test_predict_takes_what_is_asked_for(tmp_path: Path, asked: Any, expected: float):
    config = with_overrides(auto(), {"masks.seed_threshold": 0.3, "evaluation.fixed_threshold": 0.6})
    assert _threshold(config, keep_choice(tmp_path), "baseline", asked) == expected

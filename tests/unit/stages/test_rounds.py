"""Final networks that are trained in rounds, in this process: what each learns from, and what counts as made."""

import json
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from qaclims_ray.data.artifacts import Artifact, ArtifactMeta, read_meta
from qaclims_ray.data.images import save_label_map
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.data.mask_files import load_mask
from qaclims_ray.data.splits import training_images
from qaclims_ray.errors import ConfigError
from qaclims_ray.presets.table import preset
from qaclims_ray.refine.mask_index import mask_row, read_mask_index, write_mask_index
from qaclims_ray.run_config import RunConfig, to_dict, with_overrides
from qaclims_ray.stages import image_stage
from qaclims_ray.stages.data import run_data
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.refine import read_pseudo_masks
from qaclims_ray.stages.resources import Room
from qaclims_ray.stages.segment import train_final_networks
from qaclims_ray.stages.stage import Stage
from qaclims_ray.systems.needs import rounds_of
from qaclims_ray.systems.table import SUPERVISED, system_config, with_systems
from tests.finished_artifacts import finished
from tests.unit.stages.told import Told

SYSTEM = "qa_clims"
SMALL = {
    "data.num_images": 12,
    "segmentation.net.weights": "random",
    "segmentation.steps_per_epoch": 2,
    "segmentation.optim.epochs": 1,
    "segmentation.optim.batch_size": 4,
    "segmentation.rounds": 3,
    "cluster.num_workers": 0,
    "tracking.enabled": False,
}


def shards_here(
    shards: Sequence[Any],
    *,
    finished: Collection[int] = (),
    decode: Callable[[Any], Any],
    actor: type,
    actor_kwargs: Mapping[str, Any],
    write: Callable[[Any], dict[str, Any]],
    **_: Any,
) -> list[dict[str, Any]]:
    """What `run_shards` does, without Ray."""
    work = actor(**actor_kwargs)
    return [write(work(decode(shard))) for index, shard in enumerate(shards) if index not in finished]


def stage_of(config: RunConfig, folder: Path, system: str = SYSTEM, told: Told | None = None) -> Stage:
    layout = RunLayout(str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    Path(layout.config).write_text(json.dumps(to_dict(config)))
    return Stage(system_config(config, system), layout, opening=Room, progress=told or Told())


def write_masks(stage: Stage, manifest: Manifest, shift: int = 0) -> None:
    """Pseudo masks of a system, a box of each image's first class."""
    config, uri, rows = stage.config, stage.layout.masks(SYSTEM), []
    for record in training_images(manifest, config.data).records:
        labels = torch.zeros(record.height, record.width, dtype=torch.uint8)
        labels[20:40, 20 + shift : 44] = record.labels[0] + 1
        rows.append(mask_row(record.image_id, labels, record.labels))
        save_label_map(labels, f"{uri}/{rows[-1].mask}")
    write_mask_index(uri, rows, manifest.class_names)
    finished(Artifact(uri=uri, kind="masks", settings={"masks": {"shift": shift}}, verb="refine"))


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    monkeypatch.setattr(image_stage, "run_shards", shards_here)
    return with_overrides(with_systems(preset("miniature"), [SYSTEM]), SMALL)


def meta_at(uri: str) -> ArtifactMeta:
    meta = read_meta(uri)
    assert meta is not None, uri
    return meta


def test_each_round_learns_from_what_the_one_before_says_within_the_tags(config: RunConfig, tmp_path: Path) -> None:
    told = Told()
    stage = stage_of(config, tmp_path, told=told)
    manifest = run_data(stage)
    write_masks(stage, manifest)
    stages = {SYSTEM: stage, SUPERVISED: stage_of(config, tmp_path, SUPERVISED, told)}
    trained = train_final_networks(stages, manifest)
    layout = stage.layout
    last, masks = meta_at(layout.segmentation(SYSTEM)), [meta_at(layout.round_masks(SYSTEM, n)) for n in (2, 3)]
    assert trained[SYSTEM] == last and "truth" in trained[SUPERVISED].inputs
    before = [meta_at(layout.round_network(SYSTEM, number)) for number in (1, 2)]
    assert [one.inputs["network"] for one in masks] == [one.fingerprint for one in before]
    assert len({one.fingerprint for one in (*before, last)}) == 3
    assert len({one.inputs["masks"] for one in (*before, last)}) == 1, "all stand on the first masks"
    assert "round_masks" not in before[0].inputs and last.inputs["round_masks"] != before[1].inputs["round_masks"]
    rows, _ = read_mask_index(layout.round_masks(SYSTEM, 3))
    labels = {record.image_id: record.labels for record in training_images(manifest, config.data).records}
    assert {row.image_id for row in rows} == set(labels) and any(row.coverage > 0 for row in rows)
    for row in rows:
        shown = set(load_mask(f"{layout.round_masks(SYSTEM, 3)}/{row.mask}").unique().tolist())
        assert shown <= {0, *(label + 1 for label in labels[row.image_id])}
    scores = read_pseudo_masks(layout.round_masks(SYSTEM, 2), masks[0]).scores
    assert scores is not None and 0 < scores.miou_fixed < 1, "scored where there are true masks"
    started = [text for what, text in told.lines if what == "start"]
    expected = [f"train {SYSTEM}: segmentation, round 1 of 3", f"masks of {SYSTEM} for round 2"]
    assert [text for text in started if SYSTEM in text][:2] == expected
    assert not any("round" in text for text in started if SUPERVISED in text), "true masks are drawn once"
    assert train_final_networks(stages, manifest) == trained, "what is there is not made again"


def test_other_masks_or_another_number_of_rounds_train_what_depends_on_them(config: RunConfig, tmp_path: Path) -> None:
    once = with_overrides(config, {"segmentation.rounds": 1})
    stage = stage_of(once, tmp_path)
    manifest = run_data(stage)
    write_masks(stage, manifest)
    alone = train_final_networks({SYSTEM: stage}, manifest)[SYSTEM]
    assert "rounds" not in alone.settings["segmentation"], "networks of before the setting stay what they are"
    told = Told()
    twice = stage_of(with_overrides(config, {"segmentation.rounds": 2}), tmp_path, told=told)
    last = train_final_networks({SYSTEM: twice}, manifest)[SYSTEM]
    first = meta_at(stage.layout.round_network(SYSTEM, 1))
    assert first == alone and first.fingerprint != last.fingerprint, "the first round is there"
    assert any(what == "there" for what, _ in told.lines), "and was not trained again"
    assert last.settings["segmentation"]["rounds"] == 2
    assert train_final_networks({SYSTEM: stage}, manifest)[SYSTEM] == alone, "and again the last of one"
    weights = Path(stage.layout.segmentation(SYSTEM), "network.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    shutil.rmtree(stage.layout.round_network(SYSTEM, 1))
    train_final_networks({SYSTEM: twice}, manifest)
    again = Path(stage.layout.round_network(SYSTEM, 1), weights.name)
    assert again.read_bytes() != bytes(content), "a damaged one is trained again, not taken over"
    write_masks(stage, manifest, shift=8)
    anew = train_final_networks({SYSTEM: twice}, manifest)[SYSTEM]
    assert anew.inputs["masks"] != last.inputs["masks"] and anew.inputs["round_masks"] != last.inputs["round_masks"]


def test_rounds_are_for_masks_that_a_run_made_of_its_own_maps() -> None:
    three = {"segmentation.rounds": 3}
    config = with_overrides(with_systems(preset("miniature"), [SYSTEM, "given_masks", "online", SUPERVISED]), three)
    assert [rounds_of(config, name) for name in config.systems] == [3, 1, 1, 1]
    with pytest.raises(ConfigError, match=r"segmentation.rounds is 0"):
        with_overrides(config, {"segmentation.rounds": 0})

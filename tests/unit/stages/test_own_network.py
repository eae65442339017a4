"""Systems that make their own masks, from tags to a network that predicts, in this process and without Ray."""

import json
from pathlib import Path

import pytest

from qaclims_ray import load
from qaclims_ray.data.splits import training_images
from qaclims_ray.models.clip.frozen import load_clip
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import RunConfig, to_dict, with_overrides
from qaclims_ray.stages.data import run_data
from qaclims_ray.stages.export_network import final_facts
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.resources import Room
from qaclims_ray.stages.segment import train_final_networks
from qaclims_ray.stages.stage import Stage
from qaclims_ray.stages.text import bank_of
from qaclims_ray.systems.recipe import clip_files
from qaclims_ray.systems.table import system_config, with_systems
from qaclims_ray.text.bank import build_bank, write_bank

SMALL = {
    "data.num_images": 16,
    "online.steps_per_epoch": 2,
    "online.optim.batch_size": 4,
    "supervised_bound": False,
    "cluster.num_workers": 0,
    "tracking.enabled": False,
}


def write_texts(stage: Stage, name: str, config: RunConfig, manifest) -> None:
    """What the stage does in a task of Ray."""
    model, weights = clip_files(config)
    clip = load_clip(model, weights, device="cpu", mask_adapted=False)
    bank = build_bank(None, manifest, stage.config.text, clip.encode_texts, tokenize=clip.tokenize)
    artifact = bank_of(stage, name, manifest)
    artifact.begin()
    write_bank(bank, artifact)
    artifact.complete(bank.summary())


@pytest.mark.parametrize(
    ("name", "architecture", "inputs"),
    [
        ("online", "clip_decoder over miniature", {"manifest", "clip", "texts"}),
        ("online_classifier", "encoder over miniature", {"manifest", "weights"}),
    ],
)
def test_one_training_gives_a_network_that_predicts(
    name: str, architecture: str, inputs: set[str], tmp_path: Path
) -> None:
    config = with_overrides(with_systems(preset("miniature"), [name]), SMALL)
    layout = RunLayout(str(tmp_path))
    Path(layout.config).write_text(json.dumps(to_dict(config)))
    stage = Stage(system_config(config, name), layout, opening=Room)
    manifest = run_data(stage)
    if "texts" in inputs:
        write_texts(stage, name, config, training_images(manifest, config.data))
    meta = train_final_networks({name: stage}, manifest)[name]
    assert (meta.kind, set(meta.inputs)) == ("segmentation", inputs)
    assert meta.settings["segmentation"]["net"]["architecture"] == architecture.split()[0]
    assert train_final_networks({name: stage}, manifest)[name] == meta, "what is there is not trained again"
    found = load(str(tmp_path)).predict(manifest.records[0].image_uri)
    assert found.labels.shape == (64, 64) and found.scores.shape == (9, 64, 64)
    facts = final_facts(config, layout, name, manifest)
    assert facts.architecture == architecture
    assert facts.data["learned from"].startswith("image-level tags, turned into masks by the network itself")

"""What the presets say of pseudo masks and final networks."""

import json
from dataclasses import replace

import pytest

from qaclims_ray.data.classes import has_background
from qaclims_ray.errors import ConfigError
from qaclims_ray.methods.clims.config import ClimsConfig
from qaclims_ray.presets.table import PRESETS, check_run, preset
from qaclims_ray.run_config import RunConfig, from_dict, to_dict, with_overrides
from qaclims_ray.stages.run_folder import PATH_FIELDS, with_absolute_paths
from qaclims_ray.systems.needs import systems_with_cams
from qaclims_ray.systems.table import system_config


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_can_run_and_survives_its_file(name) -> None:
    config = preset(name)
    assert config.name == name and PRESETS[name].about
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config
    check_run(config if config.data.dataset == "miniature" else with_overrides(config, {"data.root": "/data"}))


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_goes_to_the_final_network_and_names_what_it_starts_from(name) -> None:
    config = preset(name)
    assert config.goal == "segmentation" and config.segmentation.net.weights
    for system in systems_with_cams(config):
        steps = system_config(config, system).masks.steps
        assert steps or not has_background(config.data.dataset)
        assert config.cams.store == "both" or ("irn" in steps) == (config.cams.store == "grid")


def test_presets_of_the_papers_take_the_papers_masks_and_networks() -> None:
    assert preset("voc12").masks.steps == ("irn",) == preset("voc12_clims").masks.steps
    assert preset("voc12").segmentation.net.architecture == "deeplab_v2"
    assert preset("voc12_deeplab_v1").segmentation.net.architecture == "deeplab_v1"
    weaktr = preset("voc12_weaktr")
    assert weaktr.masks.steps == ("crf",) and weaktr.masks.crf.bilateral_sxy == 83
    assert weaktr.masks.seed_threshold == weaktr.fixed_threshold == 0.4
    assert weaktr.segmentation.net.architecture == "segmenter"
    sam = preset("voc12_mask2former")
    assert sam.masks.steps == ("sam",) and sam.segmentation.net.architecture == "mask2former"


@pytest.mark.parametrize("name", [name for name in PRESETS if name.startswith("voc12")])
def test_final_networks_on_voc_are_tested_on_val(name) -> None:
    assert preset(name).data.test_split == "val"


def test_coco_has_both_learning_rates_and_the_papers_weights() -> None:
    official, paper = preset("coco14"), preset("coco14_paper")
    assert (official.ritc.optim.lr, paper.ritc.optim.lr) == (1e-5, 3.5e-4)
    assert (official.profile, paper.profile, paper.ritc.region_mode) == ("official", "paper", "pixel_mask")
    for config in (official, paper, preset("coco14_plain_clip"), preset("coco14_weaktr")):
        assert (config.data.dataset, config.data.eval_split, config.data.test_split) == ("coco14", "train", "val")
        final = config.segmentation
        assert (final.optim.epochs * final.steps_per_epoch, config.ritc.area_weight) == (100_000, 0.2)
    weights = (official.ritc.foreground_weight, official.ritc.background_weight)
    assert weights == (paper.ritc.foreground_weight, paper.ritc.background_weight) == (30, 24)


def test_semples_on_coco_learns_at_the_effective_rates() -> None:
    semples = preset("coco14_weaktr").semples
    assert semples.match.lr == pytest.approx(5.12e-6 * semples.match.batch_size / 512)
    assert semples.refine.lr == pytest.approx(5.12e-6 * semples.refine.batch_size / 512)
    assert semples.prompt.optim.lr == pytest.approx(0.01 * semples.prompt.optim.batch_size / 512)
    assert (semples.background_weight, semples.prompt.text_weight, semples.refine_weight) == (0.75, 0.01, 0.2)
    assert preset("coco14_weaktr").masks.crf.bilateral_sxy == 50


def test_the_camera_ready_clims_departs_from_the_improved_one_as_its_authors_say() -> None:
    """Rows C2 to C6; texts are in tests/unit/methods/clims/test_texts.py."""
    run = preset("voc12_clims")
    first, improved = (system_config(run, name).clims for name in ("clims_camera_ready", "clims"))
    assert improved == ClimsConfig()
    assert first == replace(
        ClimsConfig(),
        background_weight=25.0,
        suppression_weight=29.5,
        area_weight=1.15,
        optim=replace(improved.optim, epochs=10),
        class_weights=(("sofa", 3.0), ("dining table", 3.0), ("chair", 3.0)),
        clamp=False,
        suppression_threshold=None,
        text_reduction="mean",
    )
    assert (first.pair_reduction, first.matching_weight, first.optim.lr) == ("official", 10.0, 2.5e-4)


def test_clims_on_coco_is_the_released_run() -> None:
    """Rows C2, C8 and E9; a base of another system too."""
    run = preset("coco14_clims")
    own, final = system_config(run, "clims").clims, preset("coco14")
    assert (own.matching_weight, own.background_weight, own.suppression_weight, own.area_weight) == (2, 14, 1.25, 0.2)
    assert (own.suppression_threshold, own.published_ranks, own.clamp) == (0.285, 2, True)
    assert (own.optim.lr, own.optim.batch_size, own.optim.epochs, own.optim.momentum) == (5e-4, 32, 8, 1e-4)
    assert (run.systems, run.fixed_threshold) == (("baseline", "clims"), 0.15)
    assert (run.masks.irn.walk_threshold, preset("voc12_clims").masks.irn.walk_threshold) == (0.25, 0.2)
    assert run.segmentation == final.segmentation and run.data == final.data


@pytest.mark.parametrize("name", ["bcss_wsss", "luad_histoseg"])
def test_tissue_is_scored_where_it_has_masks_and_asked_of_as_tissue(name) -> None:
    config = preset(name)
    assert (config.data.dataset, config.data.eval_split, config.data.test_split) == (name, "val", "test")
    assert config.corpus.questions == "histology" and config.text.template == "a histopathology image of {}."
    assert config.masks.white_above == (200 if name == "luad_histoseg" else None)
    with pytest.raises(ConfigError, match=r"data.root is empty"):
        check_run(config)


def test_a_run_without_its_data_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data.root is empty: .*--data-root"):
        check_run(preset("voc12"))
    with pytest.raises(ConfigError, match="no preset 'voc13'; did you mean 'voc12'"):
        preset("voc13")


def test_local_paths_are_made_absolute_also_deep_in_the_settings(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sam").mkdir()
    for name in ("irn.pth", "final.pth"):
        (tmp_path / name).write_bytes(b"")
    own = {"masks.irn.weights": "irn.pth", "masks.sam.model": "sam", "segmentation.net.weights": "final.pth"}
    assert set(own) <= set(PATH_FIELDS)
    config: RunConfig = with_absolute_paths(with_overrides(preset("miniature"), own))
    assert config.masks.irn.weights == str(tmp_path / "irn.pth")
    assert config.masks.sam.model == str(tmp_path / "sam")
    assert config.segmentation.net.weights == str(tmp_path / "final.pth")
    names = {"masks.irn.weights": "timm", "masks.sam.model": "facebook/sam-vit-base"}
    config = with_absolute_paths(with_overrides(config, {**names, "segmentation.net.weights": "random"}))
    assert (config.masks.irn.weights, config.masks.sam.model) == ("timm", "facebook/sam-vit-base")
    assert config.segmentation.net.weights == "random"


def test_a_folder_called_like_a_shipped_model_is_not_taken_for_it(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "miniature").mkdir()
    config = preset("miniature")
    assert with_absolute_paths(config) == config
    photographs = with_overrides(config, {"data.dataset": "folder", "data.root": "miniature"})
    assert with_absolute_paths(photographs).data.root == str(tmp_path / "miniature")

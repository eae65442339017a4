"""Final networks that make their own masks: what a run needs for them, and the settings that they have."""

from typing import Any

import pytest

from qaclims_ray.data import artifacts
from qaclims_ray.errors import ConfigError
from qaclims_ray.methods.method import Sources, Trained
from qaclims_ray.methods.table import METHODS
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import with_overrides
from qaclims_ray.stages.preflight import batch_sizes
from qaclims_ray.systems.checks import check_systems
from qaclims_ray.systems.licences import weights_used
from qaclims_ray.systems.needs import (
    needs_backbone,
    needs_classifier,
    needs_clip,
    needs_corpus,
    systems_with_cams,
    systems_with_masks,
    systems_with_networks,
)
from qaclims_ray.systems.recipe import recipe_of
from qaclims_ray.systems.table import system_config, with_systems
from tests.unit.systems.runs import FINAL, run_of


@pytest.mark.parametrize(
    ("name", "clip", "corpus"),
    [("online", True, False), ("online_answers", True, True), ("online_classifier", False, False)],
)
def test_they_need_no_classifier_no_cams_and_no_masks(name: str, clip: bool, corpus: bool) -> None:
    overrides: dict[str, Any] = {**FINAL, "segmentation.net.weights": "classifier"}
    config = run_of(name, **overrides)
    check_systems(config)
    assert (needs_clip(config), needs_corpus(config)) == (clip, corpus)
    assert not needs_classifier(config) and not systems_with_cams(config) and not systems_with_masks(config)
    assert systems_with_networks(config) == [name]
    with_bound = with_overrides(config, {"supervised_bound": True})
    assert needs_classifier(with_bound), "the bound starts from its backbone"


def test_the_backbone_s_weights_are_asked_for_where_something_learns_from_them() -> None:
    def needs(*systems: str, **overrides: Any) -> bool:
        own = {"supervised_bound": False, **overrides}
        return needs_backbone(with_overrides(with_systems(preset("miniature"), systems), own))

    assert not needs("online") and not needs("patch_text", goal="seed")
    assert needs("online_classifier") and needs("baseline", goal="seed") and needs("qa_clims", "online")


def test_a_batch_is_known_by_the_setting_that_says_it() -> None:
    config = with_overrides(with_systems(preset("voc12"), ["baseline", "online"]), {"supervised_bound": False})
    config = with_overrides(config, {"online.optim.batch_size": 3})
    sizes = batch_sizes(config)
    assert sizes["online.optim.batch_size"] == 3
    assert sizes["segmentation.optim.batch_size"] == config.segmentation.optim.batch_size


@pytest.mark.parametrize(
    "wrong", [{"segmentation.net.weights": "clip"}, {"segmentation.net.architecture": "clip_decoder"}]
)
def test_their_network_is_not_for_systems_that_learn_from_masks(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"baseline learns from masks: .* take the system online"):
        check_systems(run_of("baseline", **{**FINAL, **wrong}))


def test_they_are_final_networks() -> None:
    with pytest.raises(ConfigError, match="online is a final network; set goal to segmentation"):
        check_systems(run_of("online"))


def test_they_have_their_own_network_and_training_and_the_run_s_test_time() -> None:
    config = with_overrides(preset("miniature"), {"online.width": 40, "segmentation.test.flip": False})
    on_clip, on_tags = (system_config(config, name).segmentation for name in ("online", "online_classifier"))
    assert (on_clip.net.architecture, on_clip.net.backbone, on_clip.net.weights, on_clip.net.width) == (
        "clip_decoder",
        "miniature",
        "clip",
        40,
    )
    assert (on_tags.net.architecture, on_tags.net.backbone, on_tags.net.weights) == ("encoder", "miniature", "random")
    longer = system_config(config, "online_classifier").online
    assert longer.optim.epochs > longer.tag_epochs > config.online.optim.epochs, "it starts from random weights here"
    for final, own in ((on_clip, config.online), (on_tags, longer)):
        assert final.optim == own.optim and final.crop == own.crop
        assert final.steps_per_epoch == config.online.steps_per_epoch
        assert final.test == config.segmentation.test
    assert system_config(config, "baseline").segmentation == config.segmentation


def test_batch_norm_stays_fixed_where_the_classifier_s_does() -> None:
    config = with_overrides(preset("voc12"), {"segmentation.net.decoder_norm": "batch"} | _NOT_FROZEN)
    final = system_config(config, "online_classifier").segmentation
    assert config.classifier.freeze_batch_norm and final.freeze_batch_norm and final.net.decoder_norm == "group"
    assert final.net.weights == "timm" and final.net.backbone == "resnet50"


_NOT_FROZEN = {"segmentation.freeze_batch_norm": False, "segmentation.net.architecture": "encoder"}


def test_the_frozen_clip_is_named_once_among_the_weights() -> None:
    config = with_systems(preset("miniature"), ["online"])
    config = with_overrides(config, {"supervised_bound": False})
    assert [used.settings for used in weights_used(config)] == [("clip.weights",)]


def test_data_without_a_background_and_weaktr_are_refused() -> None:
    tissue = with_overrides(
        with_systems(preset("bcss_wsss"), ["online_classifier"]),
        {"goal": "segmentation", "segmentation.net.weights": "random"},
    )
    with pytest.raises(ConfigError, match="online_classifier cuts its maps into objects and background"):
        check_systems(tissue)
    with pytest.raises(ConfigError, match=r"online_classifier decodes the stages .* weaktr"):
        check_systems(with_systems(preset("miniature_weaktr"), ["online_classifier"]))
    tags_alone = with_overrides(preset("voc12"), {"goal": "segmentation", "online.tag_epochs": 30})
    with pytest.raises(ConfigError, match=r"tags alone in the first 30 of 30 epochs, which leaves none for masks"):
        check_systems(with_systems(tags_alone, ["online_classifier"]))


def test_every_setting_of_theirs_counts_in_the_network_s_fingerprint() -> None:
    base = with_systems(preset("miniature"), ["online", "online_classifier"])
    sources = Sources(manifest="m", clip="c", texts=Trained("", "t"))

    def fingerprint(name: str, **overrides: object) -> str:
        config = system_config(with_overrides(base, overrides), name)
        method = METHODS[name]
        assert method.own_network is not None
        phase = method.own_network.phase(recipe_of(config, method), sources, config.segmentation)
        return artifacts.fingerprint_of([phase.settings, phase.inputs])

    for name in ("online", "online_classifier"):
        before = fingerprint(name)
        for setting in ("online.object_above", "online.optim.lr", "online.affinity_weight"):
            assert fingerprint(name, **{setting: 0.5}) != before, (name, setting)
        assert fingerprint(name, **{"seed": 7}) != before
        assert fingerprint(name, **{"segmentation.test.flip": False}) == before, "test time is no part of it"
    assert fingerprint("online", **{"patch_text.num_blocks": 3}) != fingerprint("online")

"""SAM 3 by class names as a system: what it is called, what it asks for, and who may use it."""

import pytest

from qaclims_ray.data.classes import Classes
from qaclims_ray.deployment.model_card import model_card
from qaclims_ray.deployment.network_facts import NetworkFacts
from qaclims_ray.errors import ConfigError, ModelError
from qaclims_ray.presets.table import preset
from qaclims_ray.report.contents import ReportData, SystemReport, ranking_figure, winner
from qaclims_ray.run_config import System, with_overrides
from qaclims_ray.stages.export_network import has_tags_alone, taught_by
from qaclims_ray.stages.preflight import preflight
from qaclims_ray.stages.report_contents import supervision
from qaclims_ray.systems.checks import check_named_classes, check_systems
from qaclims_ray.systems.licences import check_licences, weights_used
from qaclims_ray.systems.needs import (
    is_mask_trained,
    needs_classifier,
    needs_clip,
    needs_corpus,
    systems_with_cams,
    trains_nothing,
)
from qaclims_ray.systems.table import system_config, system_of, with_systems
from tests.unit.report.test_headlines import scores
from tests.unit.systems.runs import FINAL, run_of


def test_nothing_else_is_needed() -> None:
    config = run_of("sam3_names", goal="mask")
    check_systems(config)
    assert not (needs_classifier(config) or needs_clip(config) or needs_corpus(config))
    assert systems_with_cams(config) == ["sam3_names"] and trains_nothing(config, "sam3_names")
    # The preset's masks are refined by IRN from the classifier; this system's are not refined.
    folder = with_overrides(with_systems(preset("folder"), ["sam3_names"]), {"goal": "mask"})
    assert folder.masks.irn.weights == "classifier" and "irn" in folder.masks.steps
    assert not needs_classifier(folder)


def test_words_for_classes_that_there_are_not_are_told_before_any_work() -> None:
    config = with_overrides(run_of("sam3_names", goal="mask"), {"text.class_words": [["unicorn", "horse"]]})
    with pytest.raises(ConfigError, match="unicorn"):
        check_named_classes(config, ("cat", "dog"))


def test_its_maps_are_cut_at_a_half_and_not_refined_in_whatever_run() -> None:
    for config in (run_of("baseline", "sam3_names", goal="mask"), preset("voc12"), preset("miniature")):
        own = system_config(config, "sam3_names")
        assert own.masks.steps == () and own.fixed_threshold == own.masks.threshold == 0.5


def test_every_name_of_it_says_that_it_was_trained_on_masks() -> None:
    config = run_of("baseline", "sam3_names")
    assert system_of(config, "sam3_names").label == "SAM 3 by class names (mask-trained)"
    own = System(name="mine", like="sam3_names", label="SAM 3, other words")
    assert system_of(run_of("mine", variants=(own,)), "mine").label == "SAM 3, other words (mask-trained)"
    assert "mask-trained" not in system_of(config, "baseline").label
    assert is_mask_trained(config, "sam3_names") and not is_mask_trained(config, "baseline")


def test_the_report_says_what_labels_stand_behind_it() -> None:
    said = supervision(run_of("baseline", "sam3_names"))
    assert "sam3_names: SAM 3, trained on masks, asked by image-level labels" in said
    assert "trained on masks" not in supervision(run_of("baseline"))


def test_its_weights_are_told_and_refused_where_only_permissive_ones_may_be_used() -> None:
    config = run_of("sam3_names")
    (used,) = weights_used(config)
    assert used.title == "Segment Anything 3" and used.settings == ("sam3_names.model",)
    assert "SAM License" in used.line and "military" in used.line
    check_licences(config)
    with pytest.raises(ConfigError, match=r"Segment Anything 3 .*\n.*instead: .*leave out system sam3_names"):
        check_licences(with_overrides(config, {"licences": "permissive"}))
    assert not any(one.settings == ("sam3_names.model",) for one in weights_used(run_of("baseline")))


def test_the_step_s_replacement_is_accepted() -> None:
    step = {"goal": "mask", "masks.steps": ["sam"], "licences": "permissive", "cam_net.weights": "timm"}
    refused = run_of("baseline", **step, **{"masks.sam.model": "facebook/sam3"})
    with pytest.raises(ConfigError, match=r"--masks.sam.model facebook/sam2.1-hiera-large"):
        check_licences(refused)
    check_licences(with_overrides(refused, {"masks.sam.model": "facebook/sam2.1-hiera-large"}))


def test_absent_weights_are_told_before_any_work(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("QACLIMS_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    config = run_of("sam3_names")
    with pytest.raises(ModelError, match=r"sam3_names.model: Segment Anything 3 is not on this machine"):
        preflight(config, str(tmp_path / "out"))
    step = run_of("sam3_names", goal="mask", **{"sam3_names.model": str(tmp_path)})
    with pytest.raises(ModelError, match=r"there is no config.json"):
        preflight(step, str(tmp_path / "out"))


def test_a_reference_is_never_named_the_best_of_those_with_tags_alone() -> None:
    best = SystemReport(label="SAM 3 (mask-trained)", is_reference=True, seed=scores(0.8, 0.9), mask=scores(0.9))
    other = SystemReport(label="QA-CLIMS", seed=scores(0.5, 0.6))
    beside = ReportData(title="", systems={"sam3_names": best, "qa_clims": other})
    assert winner(beside) == "qa_clims" and (ranking_figure(beside) or "").startswith("seed")
    assert winner(ReportData(title="", systems={"sam3_names": best})) == "sam3_names"


def test_the_card_of_a_final_network_says_what_stands_behind_it() -> None:
    config = run_of("baseline", "sam3_names", "fully_supervised", **FINAL, **{"masks.steps": ["crf"]})
    assert taught_by(config, "sam3_names") == (
        "image-level tags, turned into masks by SAM 3, which was trained on masks"
    )
    assert taught_by(config, "baseline") == "image-level tags, turned into masks by this run"
    in_rounds = with_overrides(config, {"segmentation.rounds": 2})
    assert taught_by(in_rounds, "baseline").endswith("by this run, which its networks drew again 1 time")
    assert taught_by(in_rounds, "fully_supervised") == "true masks"
    by_sam = with_overrides(config, {"masks.steps": ["sam"]})
    assert "Segment Anything, which was trained on masks" in taught_by(by_sam, "baseline")
    assert [has_tags_alone(config, name) for name in config.systems] == [True, False, False]
    assert not has_tags_alone(by_sam, "baseline")


@pytest.mark.parametrize("alone", [True, False])
def test_a_card_calls_weakly_supervised_only_what_is(alone: bool) -> None:
    facts = NetworkFacts(
        name="one",
        kind="final",
        architecture="encoder",
        classes=Classes(("cat",)),
        normalisation=((0.5, 0.5, 0.5), (0.2, 0.2, 0.2)),
        threshold=0.5,
        mirrored=False,
        example_size=(33, 34),
        with_tags_alone=alone,
        data={},
        metrics={},
        licence="other",
        version="1",
    )
    assert ("weakly-supervised" in model_card(facts)) == alone

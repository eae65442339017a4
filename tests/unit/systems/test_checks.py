"""Systems and settings that do not go together are refused before any work."""

import pytest

from qaclims_ray.data.classes import COCO_CLASSES, VOC_CLASSES, has_background
from qaclims_ray.errors import ConfigError
from qaclims_ray.methods.table import method_of
from qaclims_ray.presets.table import PRESETS, preset
from qaclims_ray.run_config import System, with_overrides
from qaclims_ray.systems.checks import check_named_classes, check_systems, threshold_remarks
from qaclims_ray.systems.known import SYSTEMS
from qaclims_ray.systems.needs import systems_with_cams
from qaclims_ray.systems.table import system_config
from tests.unit.systems.runs import FINAL, adjusted_run, run_of

_TISSUE = {**FINAL, "data.dataset": "bcss_wsss"}


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_resolves_in_a_run_of_its_own(name) -> None:
    overrides = {"data.dataset": "miniature", "data.root": "", "given.cams": "/cams", "masks.given": "/masks"}
    if not method_of(SYSTEMS[name].method).has_cams:
        overrides |= FINAL
    check_systems(run_of(name, **overrides))
    assert SYSTEMS[name].label and SYSTEMS[name].description.endswith(".")


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        (System(name="x", like="semple"), "no system 'semple'"),
        (System(name="x", like="semples", overrides={"semples.round": 1}), "no setting 'semples.round'"),
        (System(name="x", like="semples", overrides={"semples.omega": 2.0}), "semples.omega is 2.0"),
        (System(name="x", like="semples_joint", overrides={"semples.rounds": 2}), "joint training has no rounds"),
        (System(name="x", like="qa_clims", overrides={"ritc.prompt_weight": 0.1}), "system x: ritc.prompt_weight"),
        (System(name="x", like="qa_clims_prompts", overrides={"ritc.prompt_weight": 0}), "x: ritc.prompt_weight"),
        (System(name="x", like="clims", overrides={"text.source": "class_names"}), "system x: CLIMS has fixed"),
    ],
)
def test_a_variant_that_cannot_work_is_refused(variant, message) -> None:
    with pytest.raises(ConfigError, match=message):
        check_systems(run_of("x", variants=(variant,)))


def test_two_systems_of_one_label_are_refused() -> None:
    variants = tuple(System(name=name, like="qa_clims", label="ours") for name in ("one", "two"))
    with pytest.raises(ConfigError, match="systems one and two are both called 'ours': give one another label"):
        check_systems(run_of("one", "two", variants=variants))


def test_a_system_of_an_unknown_method_is_refused_with_the_known_ones() -> None:
    own = System(name="own", method="ritc")
    with pytest.raises(ConfigError, match=r"there is no method 'ritc'; known: classifier, qa_clims, .*supervised"):
        check_systems(run_of("own", variants=(own,)))


@pytest.mark.parametrize(
    ("systems", "overrides", "message"),
    [
        (("fixed_primary",), {}, "holds texts of the miniature world; data.dataset is voc12"),
        (("qa_clims",), {"clip.mask_adapted": False}, "system qa_clims: ritc.region_mode is token_mask"),
        (("semples_on_qa_clims",), {"clip.mask_adapted": False}, "system qa_clims: ritc.region_mode"),
        (("qa_clims",), {"ritc.prompt_weight": 0.2}, "ritc.prompt_weight is 0.2; learned prompts come from"),
        (("semples_joint",), {"semples.rounds": 2}, "joint training has no rounds"),
        (("semples",), {"cam_net.generator": "weaktr", "semples.mask": "sigmoid"}, "set semples.mask to minmax"),
        (("clims",), {"cam_net.generator": "weaktr"}, "system clims takes the sigmoid of logits"),
        (("semples_text_only",), {"semples.prompt.text_weight": 0.0}, "there is nothing to learn"),
        (("qa_clims",), {**_TISSUE, "goal": "mask"}, "masks.steps has irn, .* bcss_wsss has none; .* crf or pamr"),
        (("qa_clims",), {**_TISSUE, "goal": "mask", "masks.steps": ["crf", "sam"]}, "masks.steps has sam"),
        (("qa_clims",), {**_TISSUE, "masks.steps": [], "segmentation.loss": "balanced"}, "set it to cross_entropy"),
    ],
)
def test_a_combination_that_cannot_work_is_refused_before_any_work(systems, overrides, message) -> None:
    with pytest.raises(ConfigError, match=message):
        check_systems(run_of(*systems, **overrides))


def test_seeds_of_tissue_need_no_masks_settings() -> None:
    check_systems(run_of("qa_clims", **{**_TISSUE, "goal": "seed", "masks.steps": ["irn"]}))


def test_a_variant_that_nothing_trains_is_refused() -> None:
    with pytest.raises(ConfigError, match="would not be trained: name them in systems"):
        check_systems(run_of("semples", variants=(System(name="x", like="semples"),)))


def test_plain_clips_do_for_clims_and_semples() -> None:
    check_systems(run_of("clims", "semples", "semples_joint", "semples_on_clims", **{"clip.mask_adapted": False}))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"semple": {}}, "no system 'semple'; did you mean 'semples'"),
        ({"semples": {"masks.threshold": 0.5}}, "no setting 'masks.threshold'"),
        ({"semples": {"masks.seed_threshold": 2.0}}, "masks.seed_threshold is 2.0"),
        ({"semples": {"masks.steps": ["crf", "irn"]}}, "irn works on the CAMs' small maps"),
    ],
)
def test_settings_for_a_system_that_cannot_work_are_refused(entries, message) -> None:
    with pytest.raises(ConfigError, match=message):
        check_systems(adjusted_run("semples", entries=entries))


@pytest.mark.parametrize(
    "overrides", [{"semples.schedule": "joint"}, {"semples.rounds": 0}, {"semples.refine_weight": 0.0}]
)
def test_given_cams_are_not_given_for_nothing(overrides) -> None:
    with pytest.raises(ConfigError, match="system semples_on_given learns prompts on given CAMs and refines with them"):
        check_systems(run_of("semples_on_given", **{"given.cams": "/cams", **overrides}))


# --- settings that name classes, once the data set is read

_OWN = ("cat", "dining table")


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_that_is_not_the_miniature_s_fits_voc(name) -> None:
    if not SYSTEMS[name].miniature_only:
        check_named_classes(run_of(name), VOC_CLASSES)


@pytest.mark.parametrize(
    ("system", "overrides", "message"),
    [
        ("clims_camera_ready", {}, r"clims_camera_ready: text.class_words names \['potted plant', 'tv monitor'\]"),
        ("semples", {"text.class_words": [["dog", "hound"]]}, r"system semples: text.class_words names \['dog'\]"),
        (
            "baseline",
            {"text.class_words": [["dog", "hound"]], "goal": "mask", "masks.steps": ["class_distribution"]},
            r"system baseline: text.class_words names \['dog'\]",
        ),
        ("clims", {"clims.class_weights": [["dog", 2.0]]}, r"system clims: clims.class_weights names \['dog'\]"),
        ("semples_on_clims", {"clims.class_weights": [["dog", 2.0]]}, r"system clims: clims.class_weights names"),
    ],
)
def test_names_that_no_class_has_are_refused_with_the_system_and_the_classes(system, overrides, message) -> None:
    whole = rf"{message}.*; expected classes: cat, dining table\. Name these, or leave the system out"
    with pytest.raises(ConfigError, match=whole):
        check_named_classes(run_of(system, **overrides), _OWN)


def test_a_list_for_a_class_that_is_not_there_is_refused() -> None:
    own = System(name="x", like="clims", overrides={"text.fixed_background": [["*", ["sky"]], ["boat", ["sea"]]]})
    with pytest.raises(
        ConfigError, match=r"system x: text.fixed_background names \['boat'\]; expected '\*' or classes"
    ):
        check_named_classes(run_of("x", variants=(own,)), _OWN)


@pytest.mark.parametrize(
    ("system", "overrides"),
    [
        ("baseline", {"text.class_words": [["dog", "hound"]]}),  # it has no texts
        ("qa_clims", {"clims.class_weights": [["dog", 2.0]]}),  # these are CLIMS's
        ("qa_clims", {"text.fixed_background": [["dog", ["grass"]]]}),  # its texts are the corpus's
        ("clims", {}),
        ("clims", {"clims.class_weights": [["cat", 2.0]], "text.class_words": [["dining table", "table"]]}),
    ],
)
def test_names_that_a_system_does_not_read_are_no_matter(system, overrides) -> None:
    check_named_classes(run_of(system, **overrides), _OWN)


def test_clims_fits_coco() -> None:
    check_named_classes(preset("coco14_clims"), COCO_CLASSES)


@pytest.mark.parametrize("name", PRESETS)
def test_the_headline_threshold_of_a_preset_is_the_one_that_cuts_its_masks(name):
    config = with_overrides(preset(name), {"goal": "mask"})
    for system in systems_with_cams(config):
        own = system_config(config, system).at_threshold(0.07)  # what auto becomes
        assert own.fixed_threshold == own.masks.seed_threshold == own.scoring.fixed_threshold
    assert threshold_remarks(config) == []


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({}, {"baseline": 0.6, "qa_clims": 0.02}),
        ({"evaluation.fixed_threshold": None}, {}),
        ({"goal": "seed"}, {}),
        ({"masks.steps": ["irn", "crf"]}, {}),  # which starts from scores: no seed is cut
        ({"masks.steps": []}, {"baseline": 0.6, "qa_clims": 0.02}),
        ({"masks.seed_threshold": 0.1}, {"baseline": 0.6}),
    ],
)
def test_seeds_that_are_scored_elsewhere_than_masks_are_cut_are_remarked(overrides, named):
    pinned = {"systems": ["baseline", "qa_clims"], "evaluation.fixed_threshold": 0.1}
    remarks = threshold_remarks(with_overrides(preset("miniature"), {**pinned, **overrides}))
    assert len(remarks) == len(named)
    for remark, (system, cut) in zip(remarks, named.items(), strict=True):
        assert remark.startswith(f"seeds of {system} are scored at 0.1 (evaluation.fixed_threshold)")
        assert f"cut into masks at {cut:g} (masks.seed_threshold)" in remark


def test_a_threshold_chosen_without_masks_fits_where_there_are_cams_to_choose_of():
    auto = {"systems": ["qa_clims"], "masks.seed_threshold": "auto"}
    check_systems(with_overrides(preset("miniature"), auto))
    remark = threshold_remarks(with_overrides(preset("miniature"), {**auto, "evaluation.fixed_threshold": 0.1}))
    assert "scored at 0.1 (evaluation.fixed_threshold), but cut into masks at auto" in remark[0]
    rated = with_overrides(preset("miniature"), {**auto, "selection.criterion": "separation"})
    with pytest.raises(ConfigError, match=r"set evaluation\.fixed_threshold to a number"):
        check_systems(rated)
    check_systems(with_overrides(rated, {"evaluation.fixed_threshold": 0.1}))
    name = next(name for name in PRESETS if not has_background(preset(name).data.dataset))
    with pytest.raises(ConfigError, match="has no background that a threshold would part"):
        check_systems(with_overrides(preset(name), {"masks.seed_threshold": "auto"}))

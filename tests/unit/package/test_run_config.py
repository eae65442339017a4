import ast
import dataclasses
import json
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qaclims_ray
from qaclims_ray.cams.config import CamConfig
from qaclims_ray.cluster.config import ClusterConfig
from qaclims_ray.corpus.config import CorpusConfig
from qaclims_ray.data.config import AugmentConfig, DataConfig
from qaclims_ray.errors import ConfigError, QaclimsError
from qaclims_ray.evaluation.config import EvaluationConfig
from qaclims_ray.methods.clims.config import ClimsConfig
from qaclims_ray.methods.qa_clims.config import RitcConfig
from qaclims_ray.methods.semples.config import PromptConfig, SemplesConfig
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import RunConfig, System, at, flat, from_dict, in_effect, to_dict, with_overrides
from qaclims_ray.text.config import TextConfig
from qaclims_ray.training.config import OptimConfig

BASE = RunConfig(name="test", data=DataConfig(dataset="voc12", root="/data"))


def leaves(config: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted path -> type of every setting that is no nested stage."""
    found: dict[str, Any] = {}
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            found |= leaves(value, f"{prefix}{field.name}.")
        else:
            found[prefix + field.name] = hints[field.name]
    return found


def values_of(hint: Any) -> st.SearchStrategy:
    """JSON values of a setting's type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return st.lists(values_of(arguments[0]), max_size=3)
        return st.tuples(*map(values_of, arguments)).map(list)
    if dataclasses.is_dataclass(hint):
        names = st.text("ab_-/", max_size=4)
        own = {"label": names, "description": names, "method": st.sampled_from(["", "clims", "cams"]), "base": names}
        return st.fixed_dictionaries(
            {"name": names, "like": names, "miniature_only": st.booleans(), "overrides": st.just({"seed": 1}), **own}
        )
    if arguments:
        return st.one_of(*map(values_of, arguments))
    return {
        bool: st.booleans(),
        int: st.integers(-2, 3000),
        float: st.floats(-1, 1000, allow_nan=False),
        str: st.text(max_size=8),
        type(None): st.none(),
    }[hint]


PATHS = leaves(BASE)
VALUES = flat(BASE)


@st.composite
def overrides(draw: st.DrawFn) -> dict[str, Any]:
    paths = draw(st.lists(st.sampled_from(sorted(PATHS)), min_size=1, max_size=4, unique=True))
    return {path: draw(values_of(PATHS[path])) for path in paths}


@given(overrides())
@settings(max_examples=200, deadline=None)
def test_overrides_survive_the_round_trip_or_are_refused(changes: dict[str, Any]) -> None:
    try:
        changed = with_overrides(BASE, changes)
    except ConfigError:
        return
    assert from_dict(to_dict(changed)) == changed
    assert from_dict(json.loads(json.dumps(to_dict(changed)))) == changed
    after = flat(changed)
    for path in PATHS:  # `at` for all of them takes a quarter of a second an example
        assert after[path] == changes.get(path, VALUES[path])
    assert {path: at(changed, path) for path in changes} == changes
    assert with_overrides(changed, {path: VALUES[path] for path in changes}) == BASE


@given(overrides())
@settings(max_examples=50, deadline=None)
def test_the_base_is_never_changed(changes: dict[str, Any]) -> None:
    before = to_dict(BASE)
    try:
        with_overrides(BASE, changes)
    except ConfigError:
        pass
    assert to_dict(BASE) == before


@pytest.mark.parametrize("path", sorted(PATHS))
def test_every_setting_can_be_overridden_with_its_own_value(path: str) -> None:
    assert with_overrides(BASE, {path: VALUES[path]}) == BASE


def test_settings_are_read_by_the_names_they_are_written_by() -> None:
    assert set(flat(BASE)) == set(PATHS)
    assert (at(BASE, "cams.scales"), at(BASE, "data.root")) == (list(BASE.cams.scales), "/data")
    for name in ("ritc", "ritc.optim.rate", ""):
        with pytest.raises(ConfigError, match=f"there is no setting {name!r}"):
            at(BASE, name)


def test_types_come_back_as_they_were() -> None:
    changed = with_overrides(
        BASE,
        {
            "cams.scales": [1, 0.5],
            "text.fixed_background": [["*", ["grass", "sky"]]],
            "ritc.optim.clip_grad_norm": 5,
            "data.limit": 7,
        },
    )
    assert changed.cams.scales == (1.0, 0.5)
    assert changed.text.fixed_background == (("*", ("grass", "sky")),)
    assert changed.ritc.optim.clip_grad_norm == 5.0 and changed.data.limit == 7
    assert hash(changed) != hash(BASE)


def test_a_whole_stage_can_be_overridden() -> None:
    assert with_overrides(BASE, {"cams": {"scales": [1.0]}}).cams == CamConfig(scales=(1.0,))


def test_ranks_that_a_mean_over_pairs_has_no_use_for_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"published_ranks is 2, which divides the sum .* with mean_pairs set it to 1"
    ):
        with_overrides(BASE, {"clims.published_ranks": 2, "clims.pair_reduction": "mean_pairs"})


def test_the_threshold_of_clims_may_be_off() -> None:
    assert with_overrides(BASE, {"clims.suppression_threshold": None}).clims.suppression_threshold is None
    assert ClimsConfig(suppression_threshold=-1.0).suppression_threshold == -1.0


def test_prompts_learn_as_their_settings_say() -> None:
    assert PromptConfig().optim == OptimConfig(
        name="adamw", lr=0.025, head_lr_factor=1.0, weight_decay=0.03, schedule="cosine", epochs=60, batch_size=128
    )
    with pytest.raises(ConfigError, match="prompts have no head"):
        with_overrides(BASE, {"semples.prompt.optim.head_lr_factor": 10.0})


# --- systems of a run


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": ""}, "system.name is empty"),
        ({"name": "a/b", "like": "clims"}, "'a/b' names folders"),
        ({"name": "..", "like": "clims"}, "the one above"),
        ({"name": "x"}, "system 'x' has no method; give it one, or name a known system that it is like"),
        ({"name": "x", "like": "clims", "method": "clims"}, "is like 'clims', which says its method and base"),
        ({"name": "x", "like": "clims", "base": "clims"}, "leave them out"),
    ],
)
def test_a_system_says_what_it_is_like_or_its_method(values, message) -> None:
    with pytest.raises(ConfigError, match=message):
        System(**values)


def test_no_two_systems_of_a_run_have_one_name() -> None:
    system = {"name": "x", "like": "clims"}
    with pytest.raises(ConfigError, match="variants holds one name twice"):
        with_overrides(BASE, {"variants": [system, system]})


# --- misuse


def test_prompts_without_anything_to_learn_are_refused_unless_they_stay_random() -> None:
    with pytest.raises(ConfigError, match="there is nothing to learn; set learn to False"):
        PromptConfig(image_weight=0.0, text_weight=0.0)
    assert not PromptConfig(image_weight=0.0, text_weight=0.0, learn=False).learn


def test_joint_training_has_no_rounds() -> None:
    for rounds in (0, 2):
        with pytest.raises(ConfigError, match=f"semples.rounds is {rounds}: joint training has no rounds"):
            SemplesConfig(schedule="joint", rounds=rounds)
    assert SemplesConfig(schedule="joint").rounds == 1


@pytest.mark.parametrize(
    "path",
    ["", ".", "lr", "ritc.lr", "ritc.optim", "ritc.optim.lr.x", "ritc..lr", "ritc.optim.LR", "data.root.x", "cam"],
)
def test_an_unknown_setting_or_a_stage_without_fields_is_refused(path: str) -> None:
    with pytest.raises(ConfigError):
        with_overrides(BASE, {path: 1e-3})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("ritc.optim.lr", "fast"),
        ("ritc.optim.lr", None),
        ("ritc.optim.lr", float("nan")),
        ("ritc.optim.lr", float("inf")),
        ("ritc.optim.epochs", 1.5),
        ("ritc.optim.epochs", 0),
        ("ritc.temperature", 0.0),
        ("ritc.temperature", float("nan")),
        ("ritc.omega", 1.01),
        ("ritc.omega", -0.01),
        ("ritc.region_mode", "mask"),
        ("ritc.area_weight", -1),
        ("ritc.prompt_weight", -0.1),
        ("clims.matching_weight", -1),
        ("clims.background_weight", -1),
        ("clims.suppression_weight", -1),
        ("clims.area_weight", -0.1),
        ("clims.suppression_threshold", 1.0),
        ("clims.suppression_threshold", -1.1),
        ("clims.pair_reduction", "sum"),
        ("clims.text_reduction", "max"),
        ("clims.clamp", None),
        ("clims.published_ranks", 0),
        ("clims.published_ranks", 1.5),
        ("clims.class_weights", [["sofa", -1.0]]),
        ("clims.class_weights", [["sofa", float("nan")]]),
        ("clims.class_weights", [["sofa", 3.0], ["sofa", 2.0]]),
        ("clims.class_weights", [["sofa"]]),
        ("clims.optim.lr", 0.0),
        ("semples.rounds", -1),
        ("semples.background_weight", -1),
        ("semples.refine_weight", -1),
        ("semples.area_weight", -1),
        ("semples.mask", "softmax"),
        ("semples.mask_epsilon", 0.0),
        ("semples.omega", 1.01),
        ("semples.omega", -0.01),
        ("semples.schedule", "alternating"),
        ("semples.refine_init", "prompts"),
        ("semples.train_scope", "backbone"),
        ("semples.match.epochs", 0),
        ("semples.prompt.length", 0),
        ("semples.prompt.num_views", 0),
        ("semples.prompt.steps_per_epoch", 0),
        ("semples.prompt.optim.batch_size", 0),
        ("semples.prompt.optim.epochs", 0),
        ("semples.prompt.image_weight", -1),
        ("semples.prompt.text_weight", -1),
        ("semples.prompt.optim.weight_decay", -1),
        ("semples.prompt.optim.lr", 0.0),
        ("semples.prompt.mask_epsilon", 0.0),
        ("semples.prompt.init", "zeros"),
        ("semples.prompt.full_stop", "none"),
        ("semples.prompt.similarity", "cosine"),
        ("text.groups", ["objects", "objects"]),
        ("text.groups", ["colours"]),
        ("text.template", "no place"),
        ("text.template", "{} and {}"),
        ("text.source", "fixed"),
        ("corpus.precision", "fp8"),
        ("corpus.max_length", 0),
        ("corpus.max_failed_fraction", 1.5),
        ("cluster.precision", "fp16"),
        ("cluster.num_workers", -1),
        ("augment.crop_px", 8),
        ("augment.max_long_side_px", 0),
        ("cams.scales", []),
        ("cams.scales", [1.0, 0.0]),
        ("cams.batch_size", 0),
        ("cams.num_actors", 0),
        ("cams.max_failed_fraction", -0.1),
        ("cams.gpus_per_actor", -1),
        ("corpus.questions_per_batch", 0),
        ("corpus.max_question_tokens", 0),
        ("corpus.model", " "),
        ("clip.model", ""),
        ("cam_net.backbone", ""),
        ("cam_net.image_std", [1, 0, 1]),
        ("cam_net.image_std", [1, 1]),
        ("cam_net.output_stride", 7),
        ("ritc.optim.momentum", 1.0),
        ("ritc.optim.weight_decay", -1e-4),
        ("ritc.optim.head_lr_factor", 0),
        ("ritc.optim.warmup_steps", -1),
        ("cluster.loader_workers", -1),
        ("cluster.cpus_per_worker", 0),
        ("cluster.object_store_mib", 10),
        ("cluster.num_cpus", 0),
        ("evaluation.contact_sheet_images", 0),
        ("evaluation.gallery_images", -1),
        ("tracking.experiment", ""),
        ("data.train_split", ""),
        ("data.class_names", ["cat", "cat"]),
        ("name", ""),
        ("seed", -1),
        ("evaluation.sweep_min", 0.0),
        ("evaluation.sweep_step", 0.0),
        ("evaluation.fixed_threshold", 1.5),
        ("data.dataset", "imagenet"),
        ("data.limit", 0),
        ("data.num_images", 1),
        ("systems", []),
        ("systems", ["qa_clims", "qa_clims"]),
        ("seed", "one"),
        ("data", {"dataset": "voc12", "rot": "/data"}),
        ("cams", 3),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_name(path: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        with_overrides(BASE, {path: value})
    assert path.split(".")[-1].split("_")[0] in str(caught.value)


def test_all_mistakes_of_a_file_come_in_one_message() -> None:
    values = to_dict(BASE)
    values["surplus"] = 1
    values["cams"]["scale"] = [1.0]
    values["ritc"]["optim"]["lr"] = "fast"
    values["evaluation"]["fixed_threshold"] = 3.0
    del values["data"]["dataset"]
    with pytest.raises(ConfigError) as caught:
        from_dict(values)
    for expected in ("surplus", "cams.scale", "ritc.optim.lr", "data.dataset", "fixed_threshold is 3.0"):
        assert expected in str(caught.value)


@pytest.mark.parametrize("values", [{}, {"name": "x"}, {"data": {"dataset": "voc12"}}])
def test_required_settings_have_no_default(values: dict) -> None:
    with pytest.raises(ConfigError, match="Field required"):
        from_dict(values)


@pytest.mark.parametrize(
    ("make", "values"),
    [
        (OptimConfig, {"lr": 0.0}),
        (OptimConfig, {"batch_size": 0}),
        (OptimConfig, {"clip_grad_norm": 0.0}),
        (RitcConfig, {"temperature": -1.0}),
        (AugmentConfig, {"min_long_side_px": 700}),
        (CorpusConfig, {"min_length": 11}),
        (CorpusConfig, {"prompt": "answer shortly"}),
        (CorpusConfig, {"prompt": "{} or {}"}),
        (CorpusConfig, {"engine": "image_text_to_text", "model": "miniature"}),
        (CorpusConfig, {"engine": "vllm", "num_beams": 1, "gpus_per_actor": 0.5}),
        (CorpusConfig, {"engine": "vllm", "num_beams": 3, "gpus_per_actor": 1.0}),
        (CorpusConfig, {"engine": "vllm", "num_beams": 1, "gpus_per_actor": 1.0, "min_length": 2}),
        (TextConfig, {"source": "fixed"}),
        (CamConfig, {"scales": ()}),
        (EvaluationConfig, {"sweep_min": 0.9, "sweep_max": 0.1}),
        (ClusterConfig, {"cpus_per_worker": 0.0}),
        (DataConfig, {"dataset": "voc12", "limit": 0}),
    ],
)
def test_a_stage_refuses_bad_values_on_its_own(make: type, values: dict) -> None:
    with pytest.raises(ConfigError):
        make(**values)


def test_settings_are_frozen_and_keyword_only() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        BASE.name = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        DataConfig("voc12")  # type: ignore[misc]
    with pytest.raises(TypeError):
        CamConfig(scale=(1.0,))  # type: ignore[call-arg]


SETTINGS = sorted(Path(qaclims_ray.__file__).parent.rglob("*config.py"))


def test_there_is_a_settings_module_for_every_room_that_is_configured() -> None:
    assert len(SETTINGS) >= 15


@pytest.mark.parametrize("path", SETTINGS, ids=lambda path: "/".join(path.parts[-2:]))
def test_every_setting_says_what_it_is(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            for statement, following in zip(node.body, [*node.body[1:], None], strict=True):
                if isinstance(statement, ast.AnnAssign):
                    documented = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                    assert documented, f"{node.name}.{ast.unparse(statement.target)} has no docstring"


def test_a_config_error_is_a_mistake_of_the_user() -> None:
    assert issubclass(ConfigError, QaclimsError)


def test_the_threshold_of_scoring_follows_the_masks_until_it_is_pinned():
    config = with_overrides(preset("voc12"), {"masks.seed_threshold": 0.4})
    assert config.evaluation.fixed_threshold is None and config.fixed_threshold == 0.4
    assert config.scoring.threshold == 0.4 and in_effect(config)["evaluation.fixed_threshold"] == 0.4
    moved = with_overrides(config, {"masks.seed_threshold": 0.3})
    assert moved.fixed_threshold == 0.3, "nothing has kept the number of before"
    pinned = with_overrides(moved, {"evaluation.fixed_threshold": 0.2})
    assert (pinned.fixed_threshold, pinned.masks.seed_threshold) == (0.2, 0.3)


@pytest.mark.parametrize("chosen", [0.02, 0.42, 0.9])
def test_thresholds_of_irn_follow_the_seeds_where_they_are_to(chosen):
    config = preset("folder")
    numbers = [config.at_threshold(chosen), with_overrides(config, {"masks.seed_threshold": chosen}).at_threshold(0.5)]
    for found in (each.masks.irn for each in numbers):
        assert 0 < found.background_threshold < found.walk_threshold == chosen < found.foreground_threshold < 1
    small = preset("voc12_efficientnet_lite2").masks.irn
    found = config.at_threshold(small.walk_threshold).masks.irn
    assert found.foreground_threshold == pytest.approx(small.foreground_threshold, abs=0.01)
    assert found.background_threshold == pytest.approx(small.background_threshold, abs=0.01)
    fixed = preset("voc12")
    assert fixed.at_threshold(chosen) == fixed


def test_a_threshold_that_is_chosen_later_is_no_number_before():
    config = with_overrides(preset("voc12"), {"masks.seed_threshold": "auto"})
    assert config.set_threshold == "auto" and config.scoring.fixed_threshold is None
    assert in_effect(config)["evaluation.fixed_threshold"] == "auto"
    with pytest.raises(AssertionError):
        _ = config.fixed_threshold
    chosen = config.at_threshold(0.07)
    assert chosen.fixed_threshold == chosen.masks.threshold == 0.07 and chosen.at_threshold(0.5) == chosen
    with pytest.raises(ConfigError, match="seed_threshold"):
        with_overrides(config, {"masks.seed_threshold": "otsu"})

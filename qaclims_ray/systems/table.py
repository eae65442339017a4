"""The systems a run compares: a name for a way of training, and a few settings on top of the run's.

One run trains several of them on the same data, corpus and starting point; ablations and controls are systems too.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from qaclims_ray.errors import ConfigError
from qaclims_ray.miniature import vocabulary
from qaclims_ray.run_config import RunConfig, with_overrides

Kind = Literal["classifier", "ritc", "clims", "semples", "given", "supervised"]


@dataclass(frozen=True, kw_only=True)
class System:
    """One row of the table of systems."""

    label: str
    """Short name for tables and figures."""
    description: str
    """One sentence for the report."""
    kind: Kind = "ritc"
    """How the network whose CAMs are scored is trained; given: there is none, the CAMs were made elsewhere (S22);
    supervised: no CAMs, the final network learns from the true masks."""
    base: str = ""
    """System whose trained network this one starts from (SemPLeS) or learns prompts from (RITC; SemPLeS, where the
    base is given CAMs)."""
    miniature_only: bool = False
    """Whether its texts name things of the miniature world."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Settings on top of the run's, by dotted name."""


FROM_CLASSIFIER = "classifier"
"""Initial weights of affinity and final networks: the backbone of the run's image-level classifier."""
CLIMS_BACKGROUND = ("tree", "river", "sea", "lake", "water", "railway", "railroad", "track", "stone", "rock")
"""CLIMS's ten background texts for VOC, shared by all classes (row C4)."""


def _groups(*names: str) -> dict[str, Any]:
    """Overrides for a row of QA-CLIMS Table 5: no background answers means the text "no {class}"."""
    return {"text.groups": list(names), "text.empty_background": "no_class"}


def _fixed(lists: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    return {"text.source": "fixed", "text.fixed_background": [[name, list(texts)] for name, texts in lists.items()]}


def _miniature_fixed(*, with_secondary: bool) -> dict[str, Any]:
    generic = ("tree", "sky", "wall")
    lists = {}
    for class_id, name in enumerate(vocabulary.CLASSES):
        own = (vocabulary.PRIMARY_STUFF[class_id],)
        if with_secondary:
            own += (vocabulary.SECONDARY_STUFF[class_id],)
        lists[name] = tuple(dict.fromkeys(own + generic))
    return _fixed(lists)


SYSTEMS: dict[str, System] = {
    "baseline": System(
        label="baseline CAM",
        description="The image-level classifier's own CAM (multi-label soft margin).",
        kind="classifier",
        overrides={"cams.activation": "relu"},
    ),
    "ritc_class_names": System(
        label="RITC, class names only",
        description='RITC without answers: the class against "no {class}" (QA-CLIMS Table 5, row 1).',
        overrides={"text.source": "class_names"},
    ),
    "qa_clims": System(label="QA-CLIMS", description="RITC with all adapted answers: the full method."),
    "fine_grained": System(
        label="+ fine-grained names", description="Table 5, row 2.", overrides=_groups("fine_grained")
    ),
    "alias": System(label="+ object aliases", description="Table 5, row 3.", overrides=_groups("alias")),
    "objects": System(label="+ surrounding objects", description="Table 5, row 4.", overrides=_groups("objects")),
    "scene": System(label="+ scene", description="Table 5, row 5.", overrides=_groups("scene")),
    "fine_grained_alias": System(
        label="fine + alias", description="Table 5, row 6.", overrides=_groups("fine_grained", "alias")
    ),
    "fine_grained_alias_objects": System(
        label="fine + alias + objects",
        description="Table 5, row 7.",
        overrides=_groups("fine_grained", "alias", "objects"),
    ),
    "background_only": System(
        label="background answers only",
        description="Control: the foreground text is the class name, the background texts are adapted.",
        overrides=_groups("objects", "scene"),
    ),
    "shuffled": System(
        label="shuffled answers",
        description="Control: every image gets the answers of another image of the same class.",
        overrides={"text.shuffle_answers": True},
    ),
    "frc_only": System(
        label="FRC", description="Table 4, row 1.", overrides={"ritc.background_weight": 0.0, "ritc.area_weight": 0.0}
    ),
    "brc_only": System(
        label="BRC", description="Table 4, row 2.", overrides={"ritc.foreground_weight": 0.0, "ritc.area_weight": 0.0}
    ),
    "frc_brc": System(label="FRC + BRC", description="Table 4, row 3.", overrides={"ritc.area_weight": 0.0}),
    "no_fat": System(
        label="QA-CLIMS, FAT off",
        description="Regions weighted by the CAM alone, without the adaptive threshold.",
        overrides={"ritc.region_mode": "none"},
    ),
    "pixel_mask": System(
        label="QA-CLIMS, pixel masks",
        description="The binary map acts on pixels, as the paper's formula prints it (row R2).",
        overrides={"ritc.region_mode": "pixel_mask"},
    ),
    "fixed_clims": System(
        label="fixed list: CLIMS's ten",
        description="The same losses with CLIMS's ten fixed background texts.",
        overrides=_fixed({"*": CLIMS_BACKGROUND}),
    ),
    "fixed_primary": System(
        label="fixed list: primary + 3 common",
        description="Miniature only: each class's most frequent background and three common ones.",
        miniature_only=True,
        overrides=_miniature_fixed(with_secondary=False),
    ),
    "fixed_secondary": System(
        label="fixed list: primary + secondary + 3",
        description="Miniature only: the same and one of the class's secondary backgrounds.",
        miniature_only=True,
        overrides=_miniature_fixed(with_secondary=True),
    ),
    "clims": System(
        label="CLIMS",
        description="The predecessor's losses with ten fixed background texts for all classes, no answers.",
        kind="clims",
        overrides=_fixed({"*": CLIMS_BACKGROUND}),
    ),
    "clims_camera_ready": System(
        label="CLIMS, camera-ready",
        description="CLIMS as first published: background texts of boat and train only, all of them suppressed.",
        kind="clims",
        overrides={
            **_fixed({"boat": CLIMS_BACKGROUND[:5], "train": CLIMS_BACKGROUND[5:9]}),
            "clims.suppression_threshold": None,
            "clims.pair_reduction": "mean_pairs",
            "clims.matching_weight": 10.0,
            "clims.background_weight": 25.0,
            "clims.suppression_weight": 29.5,
            "clims.area_weight": 1.15,
            "clims.optim.epochs": 10,
        },
    ),
    "semples_match": System(
        label="SemPLeS, matching only",
        description="Segment-label matching (SemPLeS Eq. 1; Table 4, row 1).",
        kind="semples",
        overrides={"semples.rounds": 0},
    ),
    "semples_match_longer": System(
        label="SemPLeS, matching continued",
        description="Control: matching for as long as SemPLeS's matching and refinement together.",
        kind="semples",
        overrides={"semples.refine_weight": 0.0, "semples.refine_init": "matched"},
    ),
    "semples_random_prompts": System(
        label="SemPLeS, random prompts",
        description="Control: refinement with random frozen prompts (Table 4, row 2).",
        kind="semples",
        overrides={"semples.prompt.learn": False},
    ),
    "semples_text_only": System(
        label="SemPLeS, L_T only",
        description="Prompts learned away from the class text alone (Table 4, row 3).",
        kind="semples",
        overrides={"semples.prompt.image_weight": 0.0},
    ),
    "semples_image_only": System(
        label="SemPLeS, L_I only",
        description="Prompts learned towards background regions alone (Table 4, row 4).",
        kind="semples",
        overrides={"semples.prompt.text_weight": 0.0},
    ),
    "semples": System(
        label="SemPLeS", description="Matching, prompt learning, prompt-guided refinement.", kind="semples"
    ),
    "semples_joint": System(
        label="SemPLeS, joint",
        description="Prompts and masks trained together (Table 6).",
        kind="semples",
        overrides={"semples.schedule": "joint"},
    ),
    "semples_2_rounds": System(
        label="SemPLeS, 2 rounds",
        description="Prompt learning and refinement twice (Table 6).",
        kind="semples",
        overrides={"semples.rounds": 2},
    ),
    "semples_3_rounds": System(
        label="SemPLeS, 3 rounds",
        description="Prompt learning and refinement three times (Table 6).",
        kind="semples",
        overrides={"semples.rounds": 3},
    ),
    "semples_on_qa_clims": System(
        label="SemPLeS on QA-CLIMS",
        description="SemPLeS starting from QA-CLIMS's network.",
        kind="semples",
        base="qa_clims",
    ),
    "semples_on_clims": System(
        label="SemPLeS on CLIMS",
        description="SemPLeS starting from CLIMS's network (SemPLeS Table 3).",
        kind="semples",
        base="clims",
    ),
    "given_cams": System(
        label="given CAMs",
        description="CAMs made elsewhere, as they were given (cams.given); nothing is trained.",
        kind="given",
    ),
    "semples_on_given": System(
        label="SemPLeS on given CAMs",
        description="Prompts learned on CAMs made elsewhere refine the classifier's network (SemPLeS Table 3).",
        kind="semples",
        base="given_cams",
    ),
    "qa_clims_prompts": System(
        label="QA-CLIMS + learned prompts",
        description="RITC with all answers and SemPLeS's learned prompts, which neither paper has.",
        base="qa_clims",
        overrides={"ritc.prompt_weight": 0.3},
    ),
    "fully_supervised": System(
        label="fully supervised",
        description="The final network trained on the true masks of the training images: the upper bound.",
        kind="supervised",
    ),
}
"""All systems by name."""

SUPERVISED = "fully_supervised"
"""The upper bound, which every run up to the final network compares with where the training images have masks."""


def system_of(config: RunConfig, name: str) -> System:
    """Return a system by name: one of the run's variants, or a known one.

    Raises:
        ConfigError: when there is no such system, or a variant takes a known one's name.
    """
    found = _named(config, name)
    if config.selection.criterion == "oracle" and found.kind not in ("classifier", "given", "supervised"):
        return replace(found, label=f"{found.label} (epoch chosen with pixel labels)")
    return found


def _named(config: RunConfig, name: str) -> System:
    for variant in config.variants:
        if variant.name == name:
            if name in SYSTEMS:  # it could even be its own base
                raise ConfigError(f"variant {name!r} has the name of a known system; give it another")
            known = _adjusted(config, variant.system)
            label = f"{known.label}, {variant.name}"
            return replace(known, label=label, overrides={**known.overrides, **variant.overrides})
    return _adjusted(config, name)


def _adjusted(config: RunConfig, name: str) -> System:
    """Return a known system with what this run sets for it alone."""
    own = next((entry.overrides for entry in config.per_system if entry.system == name), {})
    known = known_system(name)
    return replace(known, overrides={**known.overrides, **own})


def known_system(name: str) -> System:
    """Return a system by name, as every run finds it.

    Raises:
        ConfigError: when there is none of that name.
    """
    if name not in SYSTEMS:
        raise ConfigError(f"there is no system {name!r}; known: {', '.join(SYSTEMS)}")
    return SYSTEMS[name]


def system_config(config: RunConfig, name: str) -> RunConfig:
    """Return the run's configuration with one system's settings on top.

    Raises:
        ConfigError: when there is no such system, or its settings do not fit.
    """
    return with_overrides(config, system_of(config, name).overrides)


def training_order(config: RunConfig) -> list[str]:
    """Return the run's systems with those they start from, each after its own base.

    Raises:
        ConfigError: when there is no such system.
    """
    order: list[str] = []

    def visit(name: str) -> None:
        if base := system_of(config, name).base:
            visit(base)
        if name not in order:
            order.append(name)

    for name in config.systems:
        visit(name)
    return order


def needs_clip(config: RunConfig) -> bool:
    """Whether any system of the run learns from CLIP."""
    return any(
        system_of(config, name).kind not in ("classifier", "given", "supervised") for name in training_order(config)
    )


def needs_classifier(config: RunConfig) -> bool:
    """Whether any system of the run is the classifier or starts from it."""
    return starts_from_classifier(config) or any(
        system_of(config, name).kind not in ("given", "supervised") for name in training_order(config)
    )


def starts_from_classifier(config: RunConfig) -> bool:
    """Whether affinity or final networks start from the classifier's backbone."""
    uses_irn = config.goal != "seed" and "irn" in config.masks.steps and config.masks.irn.weights == FROM_CLASSIFIER
    return uses_irn or (config.goal == "segmentation" and config.segmentation.net.weights == FROM_CLASSIFIER)


def systems_with_cams(config: RunConfig) -> list[str]:
    """Return the compared systems that have CAMs: all but the fully supervised one."""
    return [name for name in config.systems if system_of(config, name).kind != "supervised"]


def uses_given(config: RunConfig, name: str) -> bool:
    """Whether a system is, or learns its prompts on, CAMs made elsewhere."""
    system = system_of(config, name)
    return "given" in (system.kind, system_of(config, system.base).kind if system.base else "")


def needs_corpus(config: RunConfig) -> bool:
    """Whether any system of the run reads the VQA corpus."""
    return any(
        system_of(config, name).kind in ("ritc", "clims") and system_config(config, name).text.source == "qape"
        for name in training_order(config)
    )

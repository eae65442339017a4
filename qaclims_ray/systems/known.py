"""The known systems: ablations and controls are systems too, each a method with a few settings on top of the run's."""

from collections.abc import Mapping, Sequence
from typing import Any

from qaclims_ray.methods.clims.texts import (
    CAMERA_READY_BACKGROUND,
    CAMERA_READY_WEIGHTS,
    CAMERA_READY_WORDS,
    VOC_BACKGROUND,
)
from qaclims_ray.miniature import vocabulary
from qaclims_ray.run_config import System


def _groups(*names: str) -> dict[str, Any]:
    """Overrides for a row of QA-CLIMS Table 5: no background answers means the text "no {class}"."""
    return {"text.groups": list(names), "text.empty_background": "no_class"}


def fixed_texts(lists: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return the overrides that give classes fixed background texts; those under "*" are every class's."""
    return {"text.source": "fixed", "text.fixed_background": [[name, list(texts)] for name, texts in lists.items()]}


def _miniature_fixed(*, with_secondary: bool) -> dict[str, Any]:
    generic = ("tree", "sky", "wall")
    lists = {}
    for class_id, name in enumerate(vocabulary.CLASSES):
        own = (vocabulary.PRIMARY_STUFF[class_id],)
        if with_secondary:
            own += (vocabulary.SECONDARY_STUFF[class_id],)
        lists[name] = tuple(dict.fromkeys(own + generic))
    return fixed_texts(lists)


_AS_SIMILARITIES = {"cams.activation": "none", "cams.normalisation": "minmax"}
"""Cosines of patches have no zero that parts an object from the rest: each map takes its whole range."""

_SYSTEMS = (
    System(
        name="baseline",
        label="baseline CAM",
        description="The image-level classifier's own CAM (multi-label soft margin).",
        method="classifier",
        overrides={"cams.activation": "relu"},
    ),
    System(
        name="ritc_class_names",
        label="RITC, class names only",
        description='RITC without answers: the class against "no {class}" (QA-CLIMS Table 5, row 1).',
        method="qa_clims",
        overrides={"text.source": "class_names"},
    ),
    System(
        name="qa_clims",
        label="QA-CLIMS",
        description="RITC with all adapted answers: the full method.",
        method="qa_clims",
    ),
    System(
        name="fine_grained",
        label="+ fine-grained names",
        description="Table 5, row 2.",
        method="qa_clims",
        overrides=_groups("fine_grained"),
    ),
    System(
        name="alias",
        label="+ object aliases",
        description="Table 5, row 3.",
        method="qa_clims",
        overrides=_groups("alias"),
    ),
    System(
        name="objects",
        label="+ surrounding objects",
        description="Table 5, row 4.",
        method="qa_clims",
        overrides=_groups("objects"),
    ),
    System(name="scene", label="+ scene", description="Table 5, row 5.", method="qa_clims", overrides=_groups("scene")),
    System(
        name="fine_grained_alias",
        label="fine + alias",
        description="Table 5, row 6.",
        method="qa_clims",
        overrides=_groups("fine_grained", "alias"),
    ),
    System(
        name="fine_grained_alias_objects",
        label="fine + alias + objects",
        description="Table 5, row 7.",
        method="qa_clims",
        overrides=_groups("fine_grained", "alias", "objects"),
    ),
    System(
        name="background_only",
        label="background answers only",
        description="Control: the foreground text is the class name, the background texts are adapted.",
        method="qa_clims",
        overrides=_groups("objects", "scene"),
    ),
    System(
        name="shuffled",
        label="shuffled answers",
        description="Control: every image gets the answers of another image of the same class.",
        method="qa_clims",
        overrides={"text.shuffle_answers": True},
    ),
    System(
        name="frc_only",
        label="FRC",
        description="Table 4, row 1.",
        method="qa_clims",
        overrides={"ritc.background_weight": 0.0, "ritc.area_weight": 0.0},
    ),
    System(
        name="brc_only",
        label="BRC",
        description="Table 4, row 2.",
        method="qa_clims",
        overrides={"ritc.foreground_weight": 0.0, "ritc.area_weight": 0.0},
    ),
    System(
        name="frc_brc",
        label="FRC + BRC",
        description="Table 4, row 3.",
        method="qa_clims",
        overrides={"ritc.area_weight": 0.0},
    ),
    System(
        name="no_fat",
        label="QA-CLIMS, FAT off",
        description="Regions weighted by the CAM alone, without the adaptive threshold.",
        method="qa_clims",
        overrides={"ritc.region_mode": "none"},
    ),
    System(
        name="pixel_mask",
        label="QA-CLIMS, pixel masks",
        description="The binary map acts on pixels, as the paper's formula prints it (row R2).",
        method="qa_clims",
        overrides={"ritc.region_mode": "pixel_mask"},
    ),
    System(
        name="fixed_clims",
        label="fixed list: CLIMS's ten",
        description="The same losses with CLIMS's ten fixed background texts.",
        method="qa_clims",
        overrides=fixed_texts({"*": VOC_BACKGROUND}),
    ),
    System(
        name="fixed_primary",
        label="fixed list: primary + 3 common",
        description="Miniature only: each class's most frequent background and three common ones.",
        method="qa_clims",
        miniature_only=True,
        overrides=_miniature_fixed(with_secondary=False),
    ),
    System(
        name="fixed_secondary",
        label="fixed list: primary + secondary + 3",
        description="Miniature only: the same and one of the class's secondary backgrounds.",
        method="qa_clims",
        miniature_only=True,
        overrides=_miniature_fixed(with_secondary=True),
    ),
    System(
        name="clims",
        label="CLIMS",
        description="The predecessor's losses with ten fixed background texts for all classes, no answers.",
        method="clims",
        overrides=fixed_texts({"*": VOC_BACKGROUND}),
    ),
    System(
        name="clims_camera_ready",
        label="CLIMS, camera-ready",
        description="CLIMS as first published on VOC: background texts of boat and train only, all of them suppressed.",
        method="clims",
        overrides={
            **fixed_texts(CAMERA_READY_BACKGROUND),
            "text.class_words": [list(pair) for pair in CAMERA_READY_WORDS],
            "text.template": "a photo of {}",
            "clims.class_weights": [list(pair) for pair in CAMERA_READY_WEIGHTS],
            "clims.clamp": False,
            "clims.suppression_threshold": None,
            "clims.text_reduction": "mean",
            "clims.pair_reduction": "official",
            "clims.matching_weight": 10.0,
            "clims.background_weight": 25.0,
            "clims.suppression_weight": 29.5,
            "clims.area_weight": 1.15,
            "clims.optim.epochs": 10,
        },
    ),
    System(
        name="semples_match",
        label="SemPLeS, matching only",
        description="Segment-label matching (SemPLeS Eq. 1; Table 4, row 1).",
        method="semples",
        overrides={"semples.rounds": 0},
    ),
    System(
        name="semples_match_longer",
        label="SemPLeS, matching continued",
        description="Control: matching for as long as SemPLeS's matching and refinement together.",
        method="semples",
        overrides={"semples.refine_weight": 0.0, "semples.refine_init": "matched"},
    ),
    System(
        name="semples_random_prompts",
        label="SemPLeS, random prompts",
        description="Control: refinement with random frozen prompts (Table 4, row 2).",
        method="semples",
        overrides={"semples.prompt.learn": False},
    ),
    System(
        name="semples_text_only",
        label="SemPLeS, L_T only",
        description="Prompts learned away from the class text alone (Table 4, row 3).",
        method="semples",
        overrides={"semples.prompt.image_weight": 0.0},
    ),
    System(
        name="semples_image_only",
        label="SemPLeS, L_I only",
        description="Prompts learned towards background regions alone (Table 4, row 4).",
        method="semples",
        overrides={"semples.prompt.text_weight": 0.0},
    ),
    System(
        name="semples",
        label="SemPLeS",
        description="Matching, prompt learning, prompt-guided refinement.",
        method="semples",
    ),
    System(
        name="semples_joint",
        label="SemPLeS, joint",
        description="Prompts and masks trained together (Table 6).",
        method="semples",
        overrides={"semples.schedule": "joint"},
    ),
    System(
        name="semples_2_rounds",
        label="SemPLeS, 2 rounds",
        description="Prompt learning and refinement twice (Table 6).",
        method="semples",
        overrides={"semples.rounds": 2},
    ),
    System(
        name="semples_3_rounds",
        label="SemPLeS, 3 rounds",
        description="Prompt learning and refinement three times (Table 6).",
        method="semples",
        overrides={"semples.rounds": 3},
    ),
    System(
        name="semples_on_qa_clims",
        label="SemPLeS on QA-CLIMS",
        description="SemPLeS starting from QA-CLIMS's network.",
        method="semples",
        base="qa_clims",
    ),
    System(
        name="semples_on_clims",
        label="SemPLeS on CLIMS",
        description="SemPLeS starting from CLIMS's network (SemPLeS Table 3).",
        method="semples",
        base="clims",
    ),
    System(
        name="given_cams",
        label="given CAMs",
        description="CAMs made elsewhere, as they were given (given.cams); nothing is trained.",
        method="given",
    ),
    System(
        name="semples_on_given",
        label="SemPLeS on given CAMs",
        description="Prompts learned on CAMs made elsewhere refine the classifier's network (SemPLeS Table 3).",
        method="semples",
        base="given_cams",
    ),
    System(
        name="patch_text",
        label="patch text",
        description="Nothing is trained: patches of the frozen CLIP against the class name.",
        method="patch_text",
        overrides={**_AS_SIMILARITIES, "text.source": "class_names"},
    ),
    System(
        name="patch_text_answers",
        label="patch text + answers",
        description="Nothing is trained: patches of the frozen CLIP against the answers about a class's objects, less "
        "those about what surrounds them.",
        method="patch_text",
        overrides={**_AS_SIMILARITIES, "text.source": "qape", "patch_text.background_weight": 0.75},
    ),
    System(
        name="sam3_names",
        label="SAM 3 by class names",
        description="Nothing is trained here: SAM 3, which was trained on masks, asked by the names of an image's "
        "classes. A reference, not on image-level labels alone.",
        method="sam3_names",
        overrides={"masks.steps": [], "masks.seed_threshold": 0.5, "evaluation.fixed_threshold": 0.5},
    ),
    System(
        name="qa_clims_prompts",
        label="QA-CLIMS + learned prompts",
        description="RITC with all answers and SemPLeS's learned prompts, which neither paper has.",
        method="qa_clims",
        base="qa_clims",
        overrides={"ritc.prompt_weight": 0.3},
    ),
    System(
        name="online",
        label="online decoder",
        description="One training: a light decoder on the frozen CLIP makes its own masks, of patches against names.",
        method="online",
        overrides={"text.source": "class_names"},
    ),
    System(
        name="online_answers",
        label="online decoder + answers",
        description="The same, of patches against the answers about a class's objects, less those about what surrounds "
        "them.",
        method="online",
        overrides={"text.source": "qape", "patch_text.background_weight": 0.75},
    ),
    System(
        name="online_classifier",
        label="online classifier",
        description="One training without CLIP and texts: tags, masks and the final network are learned together.",
        method="online_classifier",
    ),
    System(
        name="given_masks",
        label="given masks",
        description="The final network trained on masks made elsewhere (masks.given): not on image-level labels alone.",
        method="given_masks",
    ),
    System(
        name="fully_supervised",
        label="fully supervised",
        description="The final network trained on the true masks of the training images: the upper bound.",
        method="supervised",
    ),
)
SYSTEMS: dict[str, System] = {system.name: system for system in _SYSTEMS}
"""All known systems by name."""

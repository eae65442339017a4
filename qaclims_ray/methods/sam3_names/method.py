"""SAM 3 by class names as a method: nothing is trained here, and what is asked was trained on masks."""

from qaclims_ray.methods.method import FrozenNetwork, Method, Recipe, Sources
from qaclims_ray.methods.sam3_names.config import Sam3NamesConfig


def asked_sam3(recipe: Recipe, sources: Sources) -> FrozenNetwork:
    """Return what asks SAM 3 for the maps of an image's classes."""
    from qaclims_ray.methods.sam3_names.network import LoadSam3Names
    from qaclims_ray.models.weights import weights_fingerprint
    from qaclims_ray.text.prompts import class_words

    own: Sam3NamesConfig = recipe.own
    words = class_words(sources.class_names, recipe.text)
    return FrozenNetwork(
        settings={"least_score": own.least_score, "words": list(words)},
        inputs={"sam3": weights_fingerprint(own.model)},
        load=LoadSam3Names(model=own.model, words=words, least_score=own.least_score),
        makes_cams=True,
    )


def find_sam3(recipe: Recipe) -> None:
    """Look for SAM 3.

    Raises:
        ModelError: when it is not there, or something else is.
    """
    from qaclims_ray.refine.sam_kinds import check_model, require_nameable

    check_model("sam3_names.model", recipe.own.model, require_nameable)


SAM3_NAMES = Method(
    name="sam3_names",
    kind="sam3_names",
    section="sam3_names",
    uses_classifier=False,
    asks_by_words=True,
    frozen=asked_sam3,
    find_source=find_sam3,
    weights=("sam3_names.model",),
    trained_on_masks="SAM 3",
)

"""Training-free seeds as a method: nothing is trained, CAMs are computed with a frozen CLIP and a text bank."""

from qaclims_ray.methods.method import FrozenNetwork, Method, Recipe, Sources
from qaclims_ray.methods.patch_text.config import PatchTextConfig


def frozen(recipe: Recipe, sources: Sources) -> FrozenNetwork:
    """Return the network of the run's CLIP and a system's texts."""
    from qaclims_ray.methods.patch_text.network import LoadPatchText

    own: PatchTextConfig = recipe.own
    assert sources.texts is not None, "the method has texts"
    return FrozenNetwork(
        settings={"num_blocks": own.num_blocks, "background_weight": own.background_weight},
        inputs={"clip": sources.clip, "texts": sources.texts.fingerprint},
        load=LoadPatchText(
            clip_files=recipe.clip_files,
            texts_uri=sources.texts.uri,
            num_blocks=own.num_blocks,
            background_weight=own.background_weight,
        ),
    )


PATCH_TEXT = Method(
    name="patch_text",
    kind="patch_text",
    section="patch_text",
    uses_classifier=False,
    uses_texts=True,
    uses_clip=True,
    frozen=frozen,
)

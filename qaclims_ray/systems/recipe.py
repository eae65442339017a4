"""The settings that a method is given, out of a run's."""

from qaclims_ray.methods.method import Method, Recipe
from qaclims_ray.miniature.shipped import clip_dir, context_clip_dir, vqa_dir
from qaclims_ray.run_config import RunConfig


def recipe_of(config: RunConfig, method: Method) -> Recipe:
    """Return what a method may depend on.

    Args:
        config: the run's settings with the system's own.
        method: of the system.
    """
    return Recipe(
        own=getattr(config, method.section) if method.section else None,
        borrowed={section: getattr(config, section) for section in method.borrows},
        cam_net=config.cam_net,
        backbone_weights=backbone_weights(config),
        augment=config.augment,
        clip=config.clip,
        clip_files=clip_files(config),
        text=config.text,
        selection=config.selection,
        cams=config.cams,
        evaluation=config.scoring,
        seed=config.seed,
        precision=config.cluster.arithmetic,
    )


def clip_files(config: RunConfig) -> tuple[str, str | None]:
    """Return (model, weights) for `load_clip`; "miniature" and "miniature_context" are shipped folders."""
    if config.clip.model == "miniature":
        return str(clip_dir()), None
    if config.clip.model == "miniature_context":
        return str(context_clip_dir()), None
    return config.clip.model, config.clip.weights or None


def backbone_weights(config: RunConfig) -> str:
    """Return the pretrained weights of the mask generator; "miniature" is the image tower of the shipped CLIP."""
    if config.cam_net.weights == "miniature":
        return str(clip_dir() / "open_clip_model.safetensors")
    return config.cam_net.weights


def vqa_model(config: RunConfig) -> str:
    """Return the VQA model's name or folder; "miniature" is the shipped folder."""
    return str(vqa_dir()) if config.corpus.model == "miniature" else config.corpus.model

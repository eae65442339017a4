"""Where the miniature world's trained models lie inside the package."""

from pathlib import Path

from qaclims_ray.errors import ModelError

_WEIGHTS_DIR = Path(__file__).parent / "weights"


def clip_dir() -> Path:
    """Folder of the tiny mask-adapted CLIP, for `models.clip.frozen.load_clip` and open_clip (`local-dir:`)."""
    return _model_dir("clip")


def context_clip_dir() -> Path:
    """Folder of the tiny CLIP that takes a class's usual surroundings for the class, as SemPLeS's setting needs."""
    return _model_dir("clip_context")


def vqa_dir() -> Path:
    """Folder of the tiny BLIP, loadable by `models.vqa.blip` and by transformers."""
    return _model_dir("vqa")


def _model_dir(name: str) -> Path:
    folder = _WEIGHTS_DIR / name
    if not folder.is_dir():
        raise ModelError(
            f"the miniature model {name!r} is not in {_WEIGHTS_DIR}. Reinstall the package, or train it: "
            f"python -m qaclims_ray.miniature.pretraining --stage {name} --out {folder}"
        )
    return folder

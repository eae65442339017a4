"""What one worker is given for one phase of a method: everything it may need, loaded when it is asked for.

Like ``method.py`` this module is read wherever settings are, so what is heavy is imported where it is used. Return
types are therefore `Any`, and docstrings say what comes back.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qaclims_ray.data.manifest import Manifest
from qaclims_ray.methods.method import Recipe


@dataclass(frozen=True)
class Workbench:
    """One worker's place in one phase."""

    recipe: Recipe
    """Settings of the system."""
    setup: Any
    """Images, architecture, worker: a `training.setup.TrainingSetup`."""
    start_dir: str
    """Local folder of what the phase starts from; empty where it starts from nothing."""
    texts_uri: str
    """Text bank; empty where the phase reads none."""
    prompts_uri: str
    """Learned prompts; empty where the phase reads none."""
    images_to_score: Callable[[], Manifest]
    """Reads the images whose masks choose an epoch, where masks do."""

    @functools.cached_property
    def clip(self) -> Any:
        """The frozen CLIP on this worker's device, a `models.clip.frozen.FrozenClip`.

        Raises:
            ModelError: when it cannot be loaded.
        """
        from qaclims_ray.methods.training_clip import load_training_clip

        return load_training_clip(self.recipe, self.setup.context.device)

    @functools.cached_property
    def class_texts(self) -> Any:
        """Text of every class, (class, dim), unit length."""
        import torch

        from qaclims_ray.text.prompts import class_prompts

        with torch.no_grad():
            return self.clip.encode_texts(class_prompts(self.setup.manifest.class_names, self.recipe.text))

    def texts(self) -> Any:
        """Return the system's texts, a `text.bank.TextBank`.

        Raises:
            ArtifactError: when there are none.
        """
        from qaclims_ray.text.bank import read_bank

        return read_bank(self.texts_uri)

    def prompts(self) -> Any:
        """Return the encoded learned prompts of every class, (class, dim); None where the phase reads none.

        Raises:
            ArtifactError: when they belong to another CLIP.
        """
        from qaclims_ray.methods.training_clip import encoded_prompts

        return encoded_prompts(self.prompts_uri, self.clip) if self.prompts_uri else None

    def rate(self, options: Any) -> Any:
        """Return what rates every epoch by the run's criterion, a `training.selection.Rate`.

        Args:
            options: how the method makes regions of maps (`methods.region_features.RegionOptions`), for the criterion
                that does as the training does.

        Returns:
            None where the last epoch counts.
        """
        from qaclims_ray.data.datasets import ImageLabelDataset
        from qaclims_ray.methods.rating import CamSource, clip_score, oracle_score, separation_score
        from qaclims_ray.methods.region_features import Regions

        recipe, setup, selection = self.recipe, self.setup, self.recipe.selection
        mean, std = recipe.cam_net.image_mean, recipe.cam_net.image_std
        cam_source = CamSource(cams=recipe.cams, image_mean=mean, image_std=std)
        match selection.criterion:
            case "last":
                return None
            case "oracle":
                return functools.partial(
                    oracle_score,
                    manifest=self.images_to_score(),
                    cam_source=cam_source,
                    evaluation=recipe.evaluation,
                    num_images=selection.num_images,
                    context=setup.context,
                )
            case "separation":
                return functools.partial(
                    separation_score,
                    manifest=setup.manifest,
                    cam_source=cam_source,
                    threshold=recipe.evaluation.threshold,
                    num_images=selection.num_images,
                    clip=self.clip,
                    class_texts=self.class_texts,
                    context=setup.context,
                )
            case "clip_score":
                return functools.partial(
                    clip_score,
                    # A data set of its own: rating sets the epoch to 0, and the training's crops must not follow.
                    dataset=ImageLabelDataset(setup.manifest, recipe.augment.light(), mean, std, recipe.seed),
                    regions=Regions(clip=self.clip, options=options, image_mean=mean, image_std=std),
                    class_texts=self.class_texts,
                    num_images=selection.num_images,
                    context=setup.context,
                )

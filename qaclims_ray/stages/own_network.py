"""Final networks that make their own masks: their one training, in the place of all that comes before it otherwise."""

from qaclims_ray.data.artifacts import Artifact
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.data.splits import training_images
from qaclims_ray.methods.table import method_of
from qaclims_ray.stages.stage import Stage
from qaclims_ray.stages.train import PhaseWork, sources_of
from qaclims_ray.stages.trainings import plan_training
from qaclims_ray.systems.recipe import recipe_of
from qaclims_ray.systems.table import system_of
from qaclims_ray.training.group import Training


def own_training(stage: Stage, system: str, manifest: Manifest) -> Training:
    """Return the training of a system's final network, which goes where those that learn from masks go.

    Args:
        stage: surroundings, with the system's settings.
        system: its method trains the final network itself.
        manifest: the whole manifest.

    Raises:
        ArtifactError: when the system's texts are not there.
    """
    config, layout, method = stage.config, stage.layout, method_of(system_of(stage.config, system).method)
    assert method.own_network is not None
    recipe = recipe_of(config, method)
    phase = method.own_network.phase(recipe, sources_of(stage, system, manifest), config.segmentation)
    artifact = Artifact(
        uri=layout.segmentation(system),
        kind=phase.kind,
        settings=phase.settings,
        inputs=phase.inputs,
        verb="segment",
    )
    num_images = len(training_images(manifest, config.data).records)
    return plan_training(
        stage,
        artifact,
        PhaseWork(phase, recipe, layout.manifest, config.data),
        phase.optim,
        label=f"{system}: segmentation, with masks of its own",
        num_images=num_images,
        num_steps=phase.num_steps(num_images) if phase.steps_per_epoch is not None else None,
    )

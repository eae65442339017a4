"""The image-level classifier as a method: the baseline CAM, and what the others start from."""

from qaclims_ray.data.artifacts import plain
from qaclims_ray.methods.classifier.config import ClassifierConfig
from qaclims_ray.methods.method import Method, Outcome, Phase, Phases, Recipe, Sources
from qaclims_ray.methods.workbench import Workbench
from qaclims_ray.models.weights import weights_fingerprint


def phases(recipe: Recipe, sources: Sources) -> Phases:
    """Train the classifier."""
    classifier: ClassifierConfig = recipe.own
    own = plain(classifier)
    if classifier.train_scope == "full":  # as before there was a choice, so that nothing is trained again
        del own["train_scope"]
    network = yield Phase(
        kind=CLASSIFIER.kind,
        settings=recipe.identity(classifier=own),
        inputs={
            "manifest": sources.manifest,
            "weights": weights_fingerprint(recipe.backbone_weights, classifier.network or None),
        },
        optim=classifier.optim,
        is_rated=False,
        is_last=True,
        train=_train,
    )
    return Outcome(network)


def _train(bench: Workbench) -> dict[str, float]:
    from qaclims_ray.methods.classifier.task import train_classifier

    return train_classifier(setup=bench.setup, classifier=bench.recipe.own, weights=bench.recipe.backbone_weights)


CLASSIFIER = Method(name="classifier", kind="classifier", section="classifier", phases=phases, is_classifier=True)

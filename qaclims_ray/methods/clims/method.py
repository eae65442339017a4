"""CLIMS as a method: class names and fixed background texts, from the classifier."""

from qaclims_ray.errors import ConfigError
from qaclims_ray.methods.clims.config import ClimsConfig
from qaclims_ray.methods.method import Method, Outcome, Phase, Phases, Recipe, Sources, refuse_sigmoid
from qaclims_ray.methods.workbench import Workbench
from qaclims_ray.settings import Parameter


def phases(recipe: Recipe, sources: Sources) -> Phases:
    """Train CLIMS from the classifier."""
    clims: ClimsConfig = recipe.own
    assert sources.classifier is not None and sources.texts is not None
    network = yield Phase(
        kind=CLIMS.kind,
        settings=recipe.identity(clims=clims, selection=recipe.choice_of_epoch()),
        inputs={
            "classifier": sources.classifier.fingerprint,
            "text_bank": sources.texts.fingerprint,
            "clip": sources.clip,
        },
        optim=clims.optim,
        is_last=True,
        train=_train,
        start=sources.classifier,
        texts=sources.texts,
    )
    return Outcome(network)


def _train(bench: Workbench) -> dict[str, float]:
    from qaclims_ray.methods.clims.task import clims_regions, train_clims

    clims: ClimsConfig = bench.recipe.own
    return train_clims(
        setup=bench.setup,
        bank=bench.texts(),
        clip=bench.clip,
        clims=clims,
        init_dir=bench.start_dir,
        rate=bench.rate(clims_regions(clims)),
    )


def check(system: str, recipe: Recipe, base: str) -> None:
    """Refuse texts that CLIMS does not have.

    Raises:
        ConfigError: naming the setting.
    """
    refuse_sigmoid(system, recipe, "use cam_net.generator cnn")
    if recipe.text.source != "fixed":
        raise ConfigError(f"system {system}: CLIMS has fixed background texts; set text.source to fixed")


def _named_classes(clims: ClimsConfig) -> dict[str, list[str]]:
    return {"clims.class_weights": [name for name, _ in clims.class_weights]}


_WEIGHTS = ("matching_weight", "background_weight", "suppression_weight")
CLIMS = Method(
    name="clims",
    kind="clims",
    section="clims",
    phases=phases,
    uses_texts=True,
    uses_clip=True,
    check=check,
    named_classes=_named_classes,
    search_space=(
        *(Parameter(name=f"clims.{name}", kind="log", low=0.5, high=30.0) for name in _WEIGHTS),
        Parameter(name="clims.area_weight", kind="log", low=0.01, high=10.0),
        Parameter(name="clims.optim.lr", kind="log", low=1e-4, high=1e-2),
    ),
)

"""QA-CLIMS as a method: RITC from the classifier, with learned prompts where the system departs from another."""

from qaclims_ray.data.artifacts import plain
from qaclims_ray.errors import ConfigError
from qaclims_ray.methods.method import Method, Outcome, Phase, Phases, Recipe, Sources, refuse_sigmoid
from qaclims_ray.methods.qa_clims.config import RitcConfig
from qaclims_ray.methods.semples.phases import prompt_phase
from qaclims_ray.methods.workbench import Workbench
from qaclims_ray.settings import Parameter

_NOT_OF_REGIONS = ("optim", "prompt_weight", "prompt_text")
"""Settings that say nothing about how regions are cut."""


def phases(recipe: Recipe, sources: Sources) -> Phases:
    """Learn prompts on the base's network where there is one, then train RITC from the classifier."""
    ritc: RitcConfig = recipe.own
    assert sources.classifier is not None and sources.texts is not None
    prompts = None
    if sources.base is not None:
        regions = {name: value for name, value in plain(ritc).items() if name not in _NOT_OF_REGIONS}
        prompts = yield prompt_phase(
            recipe, sources, recipe.borrowed["semples"], start=sources.base, regions=regions, train=_learn_prompts
        )
    network = yield Phase(
        kind=QA_CLIMS.kind,
        settings=recipe.identity(ritc=ritc, selection=recipe.choice_of_epoch()),
        inputs={
            "classifier": sources.classifier.fingerprint,
            "text_bank": sources.texts.fingerprint,
            "clip": sources.clip,
            **({"prompts": prompts.fingerprint} if prompts else {}),
        },
        optim=ritc.optim,
        is_last=True,
        train=_train,
        start=sources.classifier,
        texts=sources.texts,
        prompts=prompts,
    )
    return Outcome(network, prompts.uri if prompts else "")


def _train(bench: Workbench) -> dict[str, float]:
    from qaclims_ray.methods.qa_clims.task import ritc_regions, train_ritc

    ritc: RitcConfig = bench.recipe.own
    return train_ritc(
        setup=bench.setup,
        bank=bench.texts(),
        clip=bench.clip,
        ritc=ritc,
        init_dir=bench.start_dir,
        prompts=bench.prompts(),
        rate=bench.rate(ritc_regions(ritc)),
    )


def _learn_prompts(bench: Workbench) -> dict[str, float]:
    """Learn prompts on regions that are cut as RITC cuts them, with the other settings of SemPLeS."""
    from qaclims_ray.methods.qa_clims.task import ritc_regions
    from qaclims_ray.methods.semples.prompts import train_prompts

    return train_prompts(
        setup=bench.setup,
        clip=bench.clip,
        class_texts=bench.class_texts,
        semples=bench.recipe.borrowed["semples"],
        options=ritc_regions(bench.recipe.own),
        init_dir=bench.start_dir,
    )


def check(system: str, recipe: Recipe, base: str) -> None:
    """Refuse regions that the CLIP cannot see, and prompts that nobody learns.

    Raises:
        ConfigError: naming the settings.
    """
    ritc: RitcConfig = recipe.own
    refuse_sigmoid(system, recipe, "use cam_net.generator cnn")
    if ritc.region_mode in ("token_mask", "both") and not recipe.clip.mask_adapted:
        raise ConfigError(
            f"system {system}: ritc.region_mode is {ritc.region_mode}, but a plain CLIP has no mask "
            "tokens; set ritc.region_mode to pixel_mask, or clip.mask_adapted with an OVSeg checkpoint"
        )
    if (ritc.prompt_weight > 0 or ritc.prompt_text) != bool(base):
        raise ConfigError(
            f"system {system}: ritc.prompt_weight is {ritc.prompt_weight:g}; learned prompts come from another "
            f"system's network (ritc.prompt_text is {ritc.prompt_text} too), so one of the two is set in the "
            "system qa_clims_prompts and neither in all others"
        )


def _log(name: str, low: float, high: float) -> Parameter:
    return Parameter(name=f"ritc.{name}", kind="log", low=low, high=high)


QA_CLIMS = Method(
    name="qa_clims",
    kind="ritc",
    section="ritc",
    borrows=("semples",),
    phases=phases,
    uses_texts=True,
    uses_clip=True,
    check=check,
    search_space=(
        Parameter(name="ritc.omega", low=0.0, high=0.6),
        _log("temperature", 0.05, 3.0),
        _log("foreground_weight", 0.5, 30.0),
        _log("background_weight", 0.5, 30.0),
        _log("area_weight", 0.01, 10.0),
        _log("optim.lr", 1e-4, 1e-2),
    ),
)

"""In what order the trainings of SemPLeS follow one another (SemPLeS 3.2 and Table 6; rows S2, S19)."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

from qaclims_ray.data import storage
from qaclims_ray.data.artifacts import plain
from qaclims_ray.methods.method import Outcome, Phase, Phases, Recipe, Sources, Trained
from qaclims_ray.methods.semples.config import PROMPTS_DIR, SemplesConfig
from qaclims_ray.methods.workbench import Workbench
from qaclims_ray.training.config import OptimConfig

_GENERATOR_FIELDS = (
    "background_weight", "area_weight", "mask", "mask_epsilon", "omega", "clip_normalisation", "antialias",
    "train_scope", "freeze_batch_norm",
)  # fmt: skip
"""Settings that every training of the mask generator depends on."""
_REGION_FIELDS = ("mask", "omega", "clip_normalisation", "antialias")
"""Settings that prompts depend on besides their own."""

_Kind = Literal["match", "refine", "joint"]


def phases(recipe: Recipe, sources: Sources) -> Phases:
    """Match, then learn prompts and refine with them, for as many rounds as asked; or train all of it jointly.

    With CAMs made elsewhere the first prompts are learned on these; then nothing is matched first, and refinement
    starts from the classifier.
    """
    semples: SemplesConfig = recipe.own
    start = sources.base or sources.classifier
    assert start is not None
    if semples.schedule == "joint":
        network = yield _generator_phase(recipe, sources, "joint", start)
        return Outcome(network, storage.join(network.uri, PROMPTS_DIR))
    network = start
    if sources.given is None:
        network = yield _generator_phase(recipe, sources, "match", start)
    prompts, prompts_uri = None, ""
    for number in range(1, semples.rounds + 1):
        # Without weight there is nothing to learn prompts for: refinement goes on matching.
        if semples.refine_weight > 0:
            on = network if sources.given is None or number > 1 else sources.given
            regions = {name: plain(semples)[name] for name in _REGION_FIELDS}
            learn = functools.partial(_learn_prompts, on_given=on.is_cams)
            prompts = yield prompt_phase(
                recipe, sources, semples, start=on, regions=regions, train=learn, number=number
            )
            prompts_uri = prompts.uri
        # The released code refines from WeakTr's checkpoint again, and uses the matched network for the prompts alone
        # (S2).
        init = start if semples.refine_init == "start" else network
        network = yield _generator_phase(recipe, sources, "refine", init, prompts, number=number)
    return Outcome(network, prompts_uri)


def prompt_phase(
    recipe: Recipe,
    sources: Sources,
    semples: SemplesConfig,
    *,
    start: Trained,
    regions: Mapping[str, Any],
    train: Callable[[Workbench], dict[str, float]],
    number: int = 1,
) -> Phase:
    """Return the learning of prompts on a fixed network, or on CAMs made elsewhere.

    Args:
        recipe: settings of the system.
        sources: fingerprints of images and CLIP.
        semples: its prompt settings.
        start: the network or CAMs.
        regions: what the cutting of regions depends on.
        train: learns on every worker.
        number: round, from 1.
    """
    prompt = semples.prompt
    return Phase(
        kind="prompts",
        name=_named("prompts", number),
        settings=plain({**_shared(recipe), "prompt": prompt, "regions": regions}),
        inputs=_inputs(sources, start, None),
        optim=prompt.optim,
        steps_per_epoch=prompt.steps_per_epoch,
        is_learned=prompt.learn,
        is_rated=False,
        train=train,
        start=start,
    )


def _generator_phase(
    recipe: Recipe, sources: Sources, kind: _Kind, start: Trained, prompts: Trained | None = None, *, number: int = 1
) -> Phase:
    semples: SemplesConfig = recipe.own
    optim = _optim(semples, kind)
    settings: dict[str, Any] = {
        **_shared(recipe),
        "selection": recipe.choice_of_epoch(),
        "generator": {name: plain(semples)[name] for name in _GENERATOR_FIELDS},
        "optim": optim,
    }
    if kind == "joint":
        settings["prompt"] = semples.prompt
    if kind != "match":
        settings["refine_weight"] = semples.refine_weight
    return Phase(
        kind=kind,
        name=_named(kind, number),
        settings=plain(settings),
        inputs=_inputs(sources, start, prompts),
        optim=optim,
        train=functools.partial(_train_jointly if kind == "joint" else _train_generator, optim=optim),
        start=start,
        prompts=prompts,
    )


def _optim(semples: SemplesConfig, kind: _Kind) -> OptimConfig:
    """Return a phase's optimiser settings; joint training lasts as long as matching and refinement together."""
    if kind == "joint":
        return replace(semples.match, epochs=semples.match.epochs + semples.refine.epochs)
    return semples.match if kind == "match" else semples.refine


def _shared(recipe: Recipe) -> dict[str, Any]:
    """Return what every phase depends on, and nothing else, so that systems share the phases they have in common."""
    return recipe.identity(clip=recipe.clip, texts=[recipe.text.template, recipe.text.class_words])


def _inputs(sources: Sources, start: Trained, prompts: Trained | None) -> dict[str, str]:
    found = {"manifest": sources.manifest, "network": start.fingerprint, "clip": sources.clip}
    return {**found, **({"prompts": prompts.fingerprint} if prompts else {})}


def _named(kind: str, number: int) -> str:
    return kind if number == 1 else f"{kind}_{number}"


def _learn_prompts(bench: Workbench, *, on_given: bool) -> dict[str, float]:
    from qaclims_ray.methods.semples.given_maps import StoredMaps
    from qaclims_ray.methods.semples.matching import region_options
    from qaclims_ray.methods.semples.prompts import train_prompts

    semples: SemplesConfig = bench.recipe.own
    options = region_options(semples, epsilon=semples.prompt.mask_epsilon)
    return train_prompts(
        setup=bench.setup,
        clip=bench.clip,
        class_texts=bench.class_texts,
        semples=semples,
        options=replace(options, mask="given") if on_given else options,
        init_dir=bench.start_dir,
        given=StoredMaps(bench.start_dir, bench.setup.manifest) if on_given else None,
    )


def _train_generator(bench: Workbench, *, optim: OptimConfig) -> dict[str, float]:
    from qaclims_ray.methods.semples.matching import region_options, train_matching

    semples: SemplesConfig = bench.recipe.own
    return train_matching(
        setup=bench.setup,
        clip=bench.clip,
        class_texts=bench.class_texts,
        prompts=bench.prompts(),
        semples=semples,
        optim=optim,
        init_dir=bench.start_dir,
        rate=bench.rate(region_options(semples, epsilon=semples.mask_epsilon)),
    )


def _train_jointly(bench: Workbench, *, optim: OptimConfig) -> dict[str, float]:
    from qaclims_ray.methods.semples.matching import region_options, train_jointly

    semples: SemplesConfig = bench.recipe.own
    return train_jointly(
        setup=bench.setup,
        clip=bench.clip,
        class_texts=bench.class_texts,
        semples=semples,
        optim=optim,
        init_dir=bench.start_dir,
        rate=bench.rate(region_options(semples, epsilon=semples.mask_epsilon)),
    )

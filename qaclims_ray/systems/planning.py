"""What the trainings of a system will be, known before any of them starts."""

from qaclims_ray.data import artifacts
from qaclims_ray.methods.method import Phase, Sources, Trained, run_phases
from qaclims_ray.methods.table import method_of
from qaclims_ray.run_config import RunConfig
from qaclims_ray.systems.needs import uses_given
from qaclims_ray.systems.recipe import recipe_of
from qaclims_ray.systems.table import system_config, system_of


def planned_phases(config: RunConfig, name: str) -> list[Phase]:
    """Rehearse a system's method with names in place of results; the classifier is the run's, not a system's."""
    system, resolved = system_of(config, name), system_config(config, name)
    method = method_of(system.method)
    if method.phases is None or method.is_classifier:
        return []
    given = Trained("", "given", is_cams=True) if uses_given(config, name) else None
    sources = Sources(
        manifest="manifest",
        clip="clip",
        classifier=Trained("", "classifier"),
        texts=Trained("", artifacts.fingerprint_of(artifacts.plain([resolved.text, resolved.clip])))
        if method.uses_texts
        else None,
        base=Trained("", f"network {system.base}") if system.base and given is None else None,
        given=given,
    )
    found: list[Phase] = []

    def rehearse(phase: Phase) -> Trained:
        found.append(phase)
        return Trained("", _key(phase))

    run_phases(method.phases(recipe_of(resolved, method), sources), rehearse)
    return found


def _key(phase: Phase) -> str:
    return artifacts.fingerprint_of([phase.kind, phase.settings, phase.inputs])


def is_one_phase(config: RunConfig, name: str) -> bool:
    """Whether a system trains once, from the classifier at most, so that it may share workers with it and others."""
    return not system_of(config, name).base and [phase.is_last for phase in planned_phases(config, name)] == [True]


def artefacts_of(config: RunConfig, name: str) -> set[str]:
    """Name what is trained for a system and may serve others too: networks, its base's among them, and phases."""
    base = system_of(config, name).base
    names = artefacts_of(config, base) if base else set()
    return names | {f"network {name}"} | {_key(phase) for phase in planned_phases(config, name) if not phase.is_last}


def rated_epochs(config: RunConfig, name: str) -> list[int]:
    """Return how many epochs are rated in each phase of a system's training."""
    return [phase.optim.epochs for phase in planned_phases(config, name) if phase.is_rated]

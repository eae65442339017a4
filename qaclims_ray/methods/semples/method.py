"""SemPLeS as a method: matching, prompt learning and refinement, from the classifier or another system's network."""

from qaclims_ray.errors import ConfigError
from qaclims_ray.methods.method import Method, Recipe, refuse_sigmoid
from qaclims_ray.methods.semples.config import SemplesConfig
from qaclims_ray.methods.semples.phases import phases
from qaclims_ray.settings import Parameter


def check(system: str, recipe: Recipe, base: str) -> None:
    """Refuse masks that no map gives, and schedules without prompts where they are learned on CAMs made elsewhere.

    Raises:
        ConfigError: naming the settings.
    """
    semples: SemplesConfig = recipe.own
    if semples.mask == "sigmoid":
        refuse_sigmoid(system, recipe, "set semples.mask to minmax")
    is_learned = semples.schedule == "sequential" and semples.rounds > 0 and semples.refine_weight > 0
    if base == "given" and not is_learned:
        raise ConfigError(
            f"system {system} learns prompts on given CAMs and refines with them, but semples.schedule is "
            f"{semples.schedule}, semples.rounds {semples.rounds}, semples.refine_weight {semples.refine_weight:g}; "
            "expected sequential, at least 1, and more than 0"
        )


def _log(name: str, low: float, high: float) -> Parameter:
    return Parameter(name=f"semples.{name}", kind="log", low=low, high=high)


SEMPLES = Method(
    name="semples",
    kind="semples",
    section="semples",
    phases=phases,
    uses_clip=True,
    check=check,
    search_space=(
        _log("background_weight", 0.1, 10.0),
        _log("refine_weight", 0.01, 3.0),
        _log("prompt.text_weight", 0.005, 1.0),
        _log("match.lr", 1e-5, 1e-2),
        _log("refine.lr", 1e-5, 1e-2),
        _log("prompt.optim.lr", 1e-3, 1e-1),
    ),
)

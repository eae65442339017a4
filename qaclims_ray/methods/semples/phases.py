"""In what order the phases of SemPLeS follow one another (SemPLeS 3.2 and Table 6; rows S2, S19)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from qaclims_ray.methods.semples.config import SemplesConfig
from qaclims_ray.training.config import OptimConfig

PhaseKind = Literal["match", "prompts", "refine", "joint"]
_Trained = TypeVar("_Trained")


@dataclass(frozen=True)
class Phase:
    """One training."""

    kind: PhaseKind
    """What is trained: the generator by Eq. 1, prompts, the generator by Eq. 3, or both at once."""
    round: int = 1
    """Round of prompt learning and refinement, from 1."""

    @property
    def name(self) -> str:
        """Name for logs and curves."""
        return self.kind if self.round == 1 else f"{self.kind}_{self.round}"

    def optim(self, semples: SemplesConfig) -> OptimConfig:
        """Return the phase's optimiser settings; joint training lasts as long as matching and refinement together."""
        match self.kind:
            case "match":
                return semples.match
            case "refine":
                return semples.refine
            case "prompts":
                return semples.prompt.optim
            case "joint":
                return replace(semples.match, epochs=semples.match.epochs + semples.refine.epochs)


def run_phases(
    semples: SemplesConfig,
    start: _Trained,
    train: Callable[[Phase, _Trained, _Trained | None], _Trained],
    *,
    given: _Trained | None = None,
) -> _Trained:
    """Run the phases in order and return the last network.

    Args:
        semples: schedule, rounds, where refinement starts.
        start: the network to start from.
        train: trains a phase from a network, with prompts for refinement, and returns the network or the prompts.
        given: maps made elsewhere, which the first prompts are learned on in place of a matched network's; then
            nothing is matched first, and refinement starts from `start`.
    """
    if semples.schedule == "joint":
        return train(Phase("joint"), start, None)
    network = train(Phase("match"), start, None) if given is None else start
    for number in range(1, semples.rounds + 1):
        # Without weight there is nothing to learn prompts for: refinement goes on matching.
        source = network if given is None or number > 1 else given
        prompts = train(Phase("prompts", number), source, None) if semples.refine_weight > 0 else None
        init = start if semples.refine_init == "start" else network
        network = train(Phase("refine", number), init, prompts)
    return network

"""The table of rounds: what each makes, and how far it is from full supervision on the same seeds."""

from benchmarks.best_of import IN_ROUNDS, figures_of, tables
from qaclims_ray.systems.table import SUPERVISED


def lines(seed: int, first: float, step: float) -> list[dict[str, object]]:
    """What `methods.measure` adds of a seed: masks of the first round in a line of their own."""
    made: list[dict[str, object]] = [{"row": "qa_clims", "seed": seed, "step": "mask", "mask": first}]
    for number in range(1, IN_ROUNDS.rounds + 1):
        own = first + step * number
        key = "qa_clims" if number == 1 else f"qa_clims*{number}"
        masks = {} if number == 1 else {"mask": own}
        made.append({"row": key, "seed": seed, "step": "final", "final": own - 0.1, "final_crf": own, **masks})
    return [*made, {"row": SUPERVISED, "seed": seed, "step": "final", "final": 0.8, "final_crf": 0.9}]


def test_rounds_are_held_to_full_supervision_seed_by_seed() -> None:
    shown = tables([*lines(20, 0.8, 0.01), *lines(21, 0.82, 0.01)], [20, 21, 22])
    rows = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ") for line in shown.splitlines()[3:]}
    assert shown.startswith("Seeds 20, 21.")
    assert rows["round 1"][1:4] == ["81.0 +- 1.4", "72.0 +- 1.4", "82.0 +- 1.4"]
    assert rows["round 2"][-2:] == ["-7.0 +- 1.4", "-8.0, -6.0"]
    assert rows["fully supervised"][1] == "-" and rows["fully supervised"][3] == "90.0 +- 0.0"


def test_a_seed_of_which_a_round_is_missing_does_not_count() -> None:
    without = [line for line in lines(20, 0.8, 0.01) if line["row"] != IN_ROUNDS.key]
    assert figures_of(without, 20) == [] and len(figures_of(lines(20, 0.8, 0.01), 20)) == IN_ROUNDS.rounds + 1

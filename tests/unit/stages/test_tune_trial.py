"""How a trial counts its epochs, and which trials must not be at work at once; starts no Ray."""

from qaclims_ray.presets.miniature import miniature
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import with_overrides
from qaclims_ray.settings import Parameter
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.tune_trial import EpochCount, must_take_turns
from qaclims_ray.systems.planning import rated_epochs
from qaclims_ray.systems.search import SearchConfig, checked_search


def _told(lengths: list[int], epochs: list[float]) -> list[int]:
    told: list[tuple[int, float, float]] = []
    scores = iter([0.1 * (number + 1) for number in range(len(epochs))])

    def report(epoch: int, score: float) -> None:
        told.append((epoch, score, latest))

    count = EpochCount(lengths, report)
    count({"loss": 1.0, "epoch": 5.0})  # a classifier is not rated
    for epoch in epochs:
        latest = next(scores)
        count({"selection/score": latest, "epoch": epoch})
    assert all(score == given for _, score, given in told), "each with its own score"
    return [epoch for epoch, _, _ in told]


def test_epochs_go_on_over_phases_and_are_told_once():
    assert _told([3], [1, 2, 2, 3, 3]) == [1, 2, 3]  # a restarted worker repeats epoch 2
    assert _told([2, 3], [1, 2, 1, 2, 3]) == [1, 2, 3, 4, 5]
    assert _told([2, 3], [2, 1, 2, 3]) == [2, 3, 4, 5]  # the first phase was there already


def test_length_of_a_trial():
    assert rated_epochs(miniature(), "qa_clims") == [9]
    assert rated_epochs(preset("miniature_semples"), "semples") == [7, 7]
    assert rated_epochs(preset("miniature_semples"), "semples_match") == [7]


def test_trials_that_would_train_one_phase_take_turns():
    config = with_overrides(preset("miniature_semples"), {"goal": "seed"})

    def takes_turns(system: str, *space: Parameter) -> bool:
        return must_take_turns(config, checked_search(config, SearchConfig(system=system, space=space)))

    assert not takes_turns("qa_clims")
    assert not takes_turns("semples")  # the rate of matching differs, so all that follows does
    assert takes_turns("semples", Parameter(name="semples.refine_weight", kind="log", low=0.1, high=1.0))
    choice = Parameter(name="semples.background_weight", kind="choice", choices=(1.0, 2.0))
    assert takes_turns("semples", choice)


def test_trials_that_try_equal_values_keep_their_checkpoints_apart():
    one, other = RunLayout("/run", "trial_1"), RunLayout("/run", "trial_2")
    assert one.training_runs == "/run/trials/trial_1/training_runs"
    assert one.training_runs != other.training_runs
    assert RunLayout("/run").training_runs == "/run/training_runs"

"""Which images are worth a mask made by hand."""

from qaclims_ray.evaluation.choice import at_random, by_disagreement
from qaclims_ray.evaluation.trust import ImageTrust


def trusted(name: str, agreement: float | None, *tagged: str, maps: int = 2) -> ImageTrust:
    return ImageTrust(name, tagged, agreement, {str(number): {} for number in range(maps)})


CANDIDATES = [
    trusted("cat1", 0.1, "cat"), trusted("cat2", 0.2, "cat"), trusted("cat3", 0.3, "cat"), trusted("dog1", 0.8, "dog"),
    trusted("both", 0.25, "cat", "dog"), trusted("none", 0.0), trusted("less", 0.0, "cat", maps=1),
    trusted("open", None, "dog"),
]  # fmt: skip


def test_classes_take_turns_and_the_least_agreed_images_come_first() -> None:
    assert by_disagreement(CANDIDATES, 4) == ["cat1", "both", "cat2", "dog1"]
    everything = by_disagreement(list(reversed(CANDIDATES)), 20)
    assert everything[:4] == ["cat1", "both", "cat2", "dog1"] and everything[-1] == "none"
    assert sorted(everything) == sorted(one.image_id for one in CANDIDATES)
    assert everything.index("less") > everything.index("cat3"), "an image with fewer maps says less"


def test_a_random_sample_depends_on_the_seed_alone() -> None:
    one = at_random(CANDIDATES, 3, seed=1)
    assert one == at_random(list(reversed(CANDIDATES)), 3, seed=1) and len(set(one)) == 3
    assert len({tuple(at_random(CANDIDATES, 3, seed=seed)) for seed in range(8)}) > 3
    assert len(at_random(CANDIDATES, 50, seed=0)) == len(CANDIDATES)

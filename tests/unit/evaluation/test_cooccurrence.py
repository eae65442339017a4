from dataclasses import dataclass

import pytest
import torch

from qaclims_ray.errors import ArtifactError, ConfigError, DataError
from qaclims_ray.evaluation.cooccurrence import CooccurrenceSums, cooccurrence_scores

THRESHOLDS = (0.2, 0.4, 0.6)
CONTEXT = (7, 9)
NAMES = ("boat", "train")


@dataclass(frozen=True)
class Maps:
    image_id: str
    class_ids: tuple[int, ...]
    full: torch.Tensor | None


def random_image(seed: int) -> tuple[Maps, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (12, 12), generator=generator, dtype=torch.uint8)
    labels[torch.rand((12, 12), generator=generator) < 0.1] = 255
    context = torch.tensor([7, 9, 3], dtype=torch.uint8)[torch.randint(3, (12, 12), generator=generator)]
    class_ids = [(0, 1), (1,), ()][seed % 3]
    return Maps(str(seed), class_ids, torch.rand((len(class_ids), 12, 12), generator=generator)), labels, context


def slow_shares(images: list, threshold: float) -> torch.Tensor:
    """The prototype's diagnosis, from label maps, class by class."""
    shares = torch.zeros(2, 4, dtype=torch.float64)
    for cam, labels, context in images:
        scores = torch.cat([torch.full((1, 12, 12), threshold), cam.full])
        predicted = torch.tensor([0, *(c + 1 for c in cam.class_ids)])[scores.argmax(0)]
        for class_id in range(2):
            scored = labels != 255
            is_object, is_predicted = (labels == class_id + 1) & scored, (predicted == class_id + 1) & scored
            on_context = (context == CONTEXT[class_id]) & (labels == 0)
            shares[class_id, 0] += (is_predicted & is_object).sum()
            shares[class_id, 1] += (is_predicted & on_context).sum()
            shares[class_id, 2] += (is_predicted & ~is_object & ~on_context).sum()
            shares[class_id, 3] += is_object.sum()
    return shares[:, :3] / shares[:, 3:]


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_equals_the_slow_restatement_and_merges(threshold: float):
    images = [random_image(seed) for seed in range(6)]
    one, two = CooccurrenceSums(THRESHOLDS, CONTEXT), CooccurrenceSums(THRESHOLDS, CONTEXT)
    for position, image in enumerate(images):
        (one if position % 2 else two).update(*image)
    scores = cooccurrence_scores(one.merge(two), threshold, NAMES)
    expected = slow_shares(images, threshold)
    assert scores.threshold == threshold
    torch.testing.assert_close(torch.tensor([scores.per_class[n] for n in NAMES], dtype=torch.float64), expected)
    means = [scores.coverage, scores.false_positive_context, scores.false_positive_elsewhere]
    torch.testing.assert_close(torch.tensor(means, dtype=torch.float64), expected.mean(0))


def test_classes_without_objects_are_left_out():
    sums = CooccurrenceSums(THRESHOLDS, CONTEXT)
    labels, context = torch.tensor([[1, 0, 0]], dtype=torch.uint8), torch.tensor([[0, 7, 3]], dtype=torch.uint8)
    sums.update(Maps("one", (0,), torch.tensor([[[0.9, 0.5, 0.5]]])), labels, context)
    scores = cooccurrence_scores(sums, 0.4, NAMES)
    assert scores.per_class == {"boat": (1.0, 1.0, 1.0)}
    assert cooccurrence_scores(sums, 0.6, NAMES).false_positive_context == 0.0


def test_bad_input_is_named():
    sums = CooccurrenceSums(THRESHOLDS, CONTEXT)
    cam, labels, context = random_image(0)
    with pytest.raises(DataError, match="no image has an object"):
        cooccurrence_scores(sums, 0.4, NAMES)
    with pytest.raises(ConfigError, match="was not counted"):
        cooccurrence_scores(sums, 0.5, NAMES)
    with pytest.raises(ArtifactError, match="full-resolution"):
        sums.update(Maps("one", (0,), None), labels, context)
    with pytest.raises(DataError, match="its CAM 12x12"):
        sums.update(cam, labels[:3], context[:3])
    with pytest.raises(ArtifactError, match="cannot merge"):
        sums.merge(CooccurrenceSums(THRESHOLDS, (7, 8)))

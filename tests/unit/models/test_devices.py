"""Ways between devices, as far as a CPU shows them."""

import pytest
import torch

from qaclims_ray.errors import ResourceError
from qaclims_ray.models import devices
from qaclims_ray.models.devices import BatchSize, ItemsAtOnce, constant, device_of_worker, download, upload

CPU = torch.device("cpu")


def test_what_is_on_the_cpu_stays_what_it_is() -> None:
    values = torch.rand(3, 4)
    assert upload(values, CPU) is values
    assert [one is other for one, other in zip(download([values, values]), [values, values], strict=True)] == [True] * 2
    assert download([]) == []


def test_downloaded_tensors_have_their_shapes(monkeypatch) -> None:
    class OnGpu(torch.Tensor):
        """A tensor that says it is elsewhere."""

        @property
        def device(self):
            return torch.device("cuda:0")

    values = [torch.rand(2, 3), torch.rand(()), torch.rand(0, 5), torch.rand(4)]
    found = download([value.as_subclass(OnGpu) for value in values])
    for one, value in zip(found, values, strict=True):
        assert one.shape == value.shape and torch.equal(one.as_subclass(torch.Tensor), value)


def test_a_constant_is_kept_and_may_enter_a_training_that_follows_inference() -> None:
    with torch.inference_mode():
        first = constant((0.5, 0.25, 2.0), CPU)
    assert constant((0.5, 0.25, 2.0), CPU) is first and first.tolist() == [0.5, 0.25, 2.0]
    assert constant((1, 2), CPU, torch.int64).dtype == torch.int64
    weight = torch.ones(3, requires_grad=True)
    (weight * first).sum().backward()
    assert torch.equal(weight.grad, first)


class Memory:
    """Holds so many items at once."""

    def __init__(self, most: int) -> None:
        self.most, self.asked = most, []

    def __call__(self, size: int) -> str:
        self.asked.append(size)
        if size > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nand more")
        return "done"


def test_a_batch_that_fits_stays_what_it_is() -> None:
    at_once, memory = BatchSize(16, "cams.batch_size"), Memory(16)
    assert at_once.run(memory) == "done" and memory.asked == [16] and at_once.remark == ""


def test_where_memory_is_short_half_the_batch_is_tried_once_and_kept() -> None:
    at_once, memory = BatchSize(16, "cams.batch_size"), Memory(8)
    assert at_once.run(memory) == at_once.run(memory) == "done" and memory.asked == [16, 8, 8]
    assert at_once.remark == "cams.batch_size 16 did not fit the GPU's memory; went on with 8"
    with pytest.raises(ResourceError, match=r"ran out with cams\.batch_size 8 \(CUDA out of memory.*GiB\); lower it"):
        at_once.run(Memory(7))


def test_one_item_cannot_be_halved() -> None:
    with pytest.raises(ResourceError, match=r"cams\.batch_size 1 "):
        BatchSize(1, "cams.batch_size").run(Memory(0))


def test_workers_without_a_gpu_work_on_the_cpu_as_before(monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(devices, "use_tf32", lambda: seen.append(True))
    assert device_of_worker(0).type == "cpu" and not seen
    assert device_of_worker(0.25).type == "cuda" and seen


def test_an_open_number_of_items_goes_by_the_memory_of_an_actors_share_of_a_gpu(monkeypatch) -> None:
    gib = 24
    monkeypatch.setattr(
        devices.torch.cuda, "get_device_properties", lambda _: type("Gpu", (), {"total_memory": gib << 30})
    )
    at_once, gpu = ItemsAtOnce(on_cpu=16, per_gib=1.0, most=64), torch.device("cuda")
    assert at_once.chosen(None, CPU, 0.0) == 16
    assert (at_once.chosen(None, gpu, 1.0), at_once.chosen(None, gpu, 0.25), at_once.chosen(None, gpu, 2)) == (
        24,
        6,
        24,
    )
    assert at_once.chosen(5, gpu, 1.0) == at_once.chosen(5, CPU) == 5
    gib = 140
    assert at_once.chosen(None, gpu, 1.0) == 64
    gib = 0
    assert at_once.chosen(None, gpu, 1.0) == 1

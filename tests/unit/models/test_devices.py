"""Ways between devices, as far as a CPU shows them."""

import torch

from qaclims_ray.models.devices import constant, download, upload

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

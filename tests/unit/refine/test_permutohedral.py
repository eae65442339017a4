import pytest
import torch

from qaclims_ray.errors import ConfigError
from qaclims_ray.refine.permutohedral import build_lattice, scale_points


def clustered_points(dim: int, num_points: int, seed: int = 0, groups: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    centres = 4 * torch.rand(groups, dim, 5, generator=generator)
    chosen = centres[:, :, torch.randint(5, (num_points,), generator=generator)]
    return chosen + 0.5 * torch.randn(groups, dim, num_points, generator=generator)


@pytest.mark.parametrize("dim", [1, 2, 3, 5])
def test_every_point_gives_and_reads_shares_that_sum_to_one(dim: int) -> None:
    lattice = build_lattice(clustered_points(dim, 200))
    shares = lattice.slice.weights.unflatten(0, (200, dim + 1))
    assert shares.min() > -1e-6
    torch.testing.assert_close(shares.sum(1), torch.ones(200))
    # Splat holds the same entries as slice, ordered by vertex.
    num_vertices = len(lattice.splat.starts) - 1
    as_slice, as_splat = torch.zeros(200, num_vertices), torch.zeros(200, num_vertices)
    point = torch.arange(200).repeat_interleave(dim + 1)
    as_slice[point, lattice.slice.rows.long()] = lattice.slice.weights
    vertex = torch.arange(num_vertices).repeat_interleave(lattice.splat.starts.diff())
    as_splat[lattice.splat.rows.long(), vertex] = lattice.splat.weights
    assert torch.equal(as_slice, as_splat)
    assert as_slice[:, -1].count_nonzero() == 0  # the placeholder of absent neighbours


def test_neighbours_are_mutual() -> None:
    lattice = build_lattice(clustered_points(3, 500))
    last = len(lattice.splat.starts) - 2
    num_found = 0
    for blur in lattice.blurs:
        own, onward, back = blur.rows.long().unflatten(0, (-1, 3)).T
        assert torch.equal(own, torch.arange(last + 1))
        found = onward[:-1] != last
        assert torch.equal(back[onward[:-1][found]], own[:-1][found])
        assert (back[:-1] != last).sum() == found.sum()
        num_found += int(found.sum())
    assert num_found > last  # clustered points touch


@pytest.mark.parametrize(("dim", "tolerance"), [(1, 0.04), (2, 0.04), (5, 0.08)])
def test_normalised_sums_are_nearly_gaussian(dim: int, tolerance: float) -> None:
    points = clustered_points(dim, 800, seed=1)
    values = torch.sin(points[0].sum(0, keepdim=True)).T.contiguous()
    distances = torch.cdist(points[0].T, points[0].T)
    exact = torch.softmax(-(distances**2) / 2, dim=1) @ values
    lattice = build_lattice(points)
    filtered = lattice(values) / lattice(torch.ones_like(values))
    assert (filtered - exact).abs().mean() < tolerance * values.std()
    assert (values - exact).abs().mean() > 3 * tolerance * values.std()


def test_the_filter_is_nearly_its_own_transpose() -> None:
    lattice = build_lattice(clustered_points(2, 120))
    matrix = lattice(torch.eye(120))
    assert (matrix - matrix.T).abs().max() < 0.2 * matrix.max()
    factors = torch.rand(120)
    scaled = scale_points(lattice, factors)(torch.eye(120))
    torch.testing.assert_close(scaled, factors[:, None] * matrix * factors)


def test_groups_do_not_see_each_other() -> None:
    points = clustered_points(5, 60, groups=3)
    values = torch.rand(180, 2)
    together = build_lattice(points)(values)
    for group in range(3):
        own = slice(60 * group, 60 * group + 60)
        assert torch.equal(build_lattice(points[group : group + 1])(values[own].clone()), together[own])


def test_one_point() -> None:
    lattice = build_lattice(torch.tensor([[[0.3], [-2.0]]]))
    assert lattice(torch.tensor([[2.0]])).item() > 0


def test_points_that_are_too_far_apart() -> None:
    with pytest.raises(ConfigError, match="raise the kernel's standard deviations"):
        build_lattice(torch.rand(1, 5, 50) * 1e8)

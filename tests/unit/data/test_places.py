import pytest
from hypothesis import given
from hypothesis import strategies as st

from qaclims_ray.data import places, storage

JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.sampled_from(["/run", "/run/a b", "/run2/a", "/", "timm", ""])
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("ab"), inner)),
    max_leaves=8,
)


@given(JSON, st.sampled_from(["/run", "/run/", "s3://bucket/run", ""]))
def test_values_come_back(value, folder):
    assert places.resolved(places.stored(value, folder), folder) == value


@pytest.mark.parametrize("folder", ["/old/run", "/old/run/"])
def test_what_lies_in_the_folder_moves_with_it_and_nothing_else_does(folder):
    value = {"data": {"root": "/old/run"}, "paths": ["/old/run/x [1]", "/old/run2/x", "/old/other", "timm", 1]}
    moved = places.resolved(places.stored(value, folder), "s3://new/run")
    assert moved == {
        "data": {"root": "s3://new/run"},
        "paths": ["s3://new/run/x [1]", "/old/run2/x", "/old/other", "timm", 1],
    }


def test_the_listing_of_a_folder_counts_from_a_home_that_moves(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "set").mkdir(parents=True)
    (tmp_path / "one/set/a.jpg").write_bytes(b"a")
    before = storage.listing_fingerprint(str(tmp_path / "one/set"), home=str(tmp_path / "one"))
    alone = storage.listing_fingerprint(str(tmp_path / "one/set"))
    (tmp_path / "one/set/a.jpg").rename(tmp_path / "two/set/a.jpg")
    assert storage.listing_fingerprint(str(tmp_path / "two/set"), home=str(tmp_path / "two")) == before
    assert storage.listing_fingerprint(str(tmp_path / "two/set")) != alone

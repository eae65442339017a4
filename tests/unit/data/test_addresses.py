import pytest
from hypothesis import given
from hypothesis import strategies as st

from qaclims_ray.data.addresses import refuse_credentials, without_credentials
from qaclims_ray.errors import ConfigError

WORDS = st.text(
    st.characters(codec="utf-8", exclude_characters="/?#@ \t\n\r", exclude_categories=["Z", "C"]), min_size=1
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://user:secret@host:5000/x", "https://host:5000/x"),
        ("https://secret@host", "https://host"),
        ("a postgresql+psycopg2://u:p%40@h/db, and http://a:b@c", "a postgresql+psycopg2://h/db, and http://c"),
        ("sqlite:////runs/mlflow.db", "sqlite:////runs/mlflow.db"),
        ("s3://bucket/a@b.jpg", "s3://bucket/a@b.jpg"),
        ("postgresql://me:p/w#x?y@h/db", "postgresql://h/db"),
        ("http://me:5000@host/x", "http://host/x"),
        ("http://localhost:5000/a@b", "http://localhost:5000/a@b"),
        ("postgresql://h/db?user=me&password=secret&x=1", "postgresql://h/db?user=me&password=&x=1"),
        ("mail ann@host", "mail ann@host"),
        ("/data/a@b", "/data/a@b"),
    ],
)
def test_what_stands_before_the_at_is_left_out_and_nothing_else(text, expected):
    assert without_credentials(text) == expected


@given(WORDS, WORDS, WORDS)
def test_no_password_is_left(name, password, host):
    found = without_credentials(f"see http://{name}:{password}@{host}/x and ftp://{password}@{host}")
    assert found == f"see http://{host}/x and ftp://{host}"


def test_a_place_with_a_password_is_refused_and_others_pass():
    with pytest.raises(ConfigError, match=r"data\.root holds .* before the @ of s3://bucket/x") as caught:
        refuse_credentials("s3://key:secret@bucket/x", "data.root")
    assert "secret" not in str(caught.value).replace("AWS_SECRET_ACCESS_KEY", "")
    for place in ("s3://bucket/x@y", "/data/a@b", "gs://bucket"):
        refuse_credentials(place, "data.root")

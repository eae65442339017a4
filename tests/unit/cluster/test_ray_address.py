"""Addresses at which no Ray answers are told in one line, before anything waits for them."""

import socket
import threading

import pytest
import ray

from qaclims_ray.cluster import ray_address
from qaclims_ray.cluster.ray_address import address_to_join, require_answer
from qaclims_ray.cluster.session import joins_ray, require_reachable
from qaclims_ray.errors import ResourceError


@pytest.fixture
def silent():
    """The address of a server that accepts connections and says nothing."""
    with socket.socket() as server:
        server.bind(("", 0))  # Ray takes this machine's own address for the loopback one
        server.listen()
        yield f"127.0.0.1:{server.getsockname()[1]}"


def _refused(monkeypatch, address: str) -> str:
    monkeypatch.setattr(ray_address, "CONNECT_S", 0.5)
    monkeypatch.setattr(ray_address, "ANSWER_S", 0.5)
    with pytest.raises(ResourceError) as refused:
        require_answer(address)
    told = str(refused.value)
    assert f"RAY_ADDRESS={address}" in told and "unset RAY_ADDRESS" in told and "\n" not in told
    return told


@pytest.mark.parametrize("form", ["{}", "ray://{}", "ray://{}/namespace"])
def test_a_port_that_nobody_listens_on(monkeypatch, form):
    with socket.socket() as held:  # bound and not listening: nobody else can be there
        held.bind(("127.0.0.1", 0))
        address = form.format(f"127.0.0.1:{held.getsockname()[1]}")
        assert "nothing answers there" in _refused(monkeypatch, address)


def test_a_server_that_is_no_ray(monkeypatch, silent):
    assert "does not answer as a Ray" in _refused(monkeypatch, silent)


def test_a_client_server_is_asked_no_more_than_to_listen(silent):
    require_answer(f"ray://{silent}")


@pytest.mark.parametrize("address", ["nonsense", "ray://", "127.0.0.1:port"])
def test_what_is_no_address(monkeypatch, address):
    _refused(monkeypatch, address)


def test_a_head_that_is_starting_is_waited_for(monkeypatch):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        threading.Timer(0.2, server.listen).start()
        require_answer(f"ray://127.0.0.1:{port}")


def test_who_joins(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    for given, expected in (("", ""), ("local", ""), ("auto", "auto"), ("10.0.0.1:6379", "10.0.0.1:6379")):
        monkeypatch.setenv("RAY_ADDRESS", given)
        assert address_to_join() == expected
        assert joins_ray() == bool(expected)
    monkeypatch.setenv("RAY_ADDRESS", "nonsense")
    with pytest.raises(ResourceError):
        require_reachable()

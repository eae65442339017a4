"""Weight files as people have them: any wrapper, prefix, precision and format gives the same tensors or one message."""

import argparse
import collections
import datetime
import pathlib
import pickle
import re
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from qaclims_ray.errors import ModelError
from qaclims_ray.models import weight_files
from qaclims_ray.models.backbone import load_backbone_weights
from qaclims_ray.models.clip.checkpoint import read_checkpoint
from qaclims_ray.models.weight_files import cause_of, read_weights
from qaclims_ray.models.weight_fit import put_weights

PACKAGE = Path(weight_files.__file__).parents[1]
MANY = settings(
    max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Settings(dict):
    """A dict of its own class, as configuration libraries have them."""

    lr = 1


class Attributes:
    """Any class of the code that wrote the file."""

    def __init__(self) -> None:
        self.lr = 1


class Bomb:
    """Unpickled it would run a command."""

    def __init__(self, code: Any, *arguments: Any) -> None:
        self.call = (code, arguments)

    def __reduce__(self) -> tuple:
        return self.call


BESIDE: dict[str, Any] = {
    "namespace": argparse.Namespace(lr=1, path=pathlib.PurePosixPath("/data")),
    "simple namespace": types.SimpleNamespace(lr=1),
    "numpy number": np.float64(66.2),
    "numpy array": np.arange(3.0),
    "numpy type": np.dtype("float32"),
    "path": pathlib.PurePosixPath("/data"),
    "settings": Settings(lr=1, nested=Settings(a=[1])),
    "attributes": Attributes(),
    "default dict": collections.defaultdict(list, {"a": [1]}),
    "deque": collections.deque([1.0, 2.0]),
    "counter": collections.Counter("aab"),
    "date": datetime.datetime(2020, 1, 1),
    "range": range(3),
    "frozen set": frozenset([1]),
    "function": print,
    "tensor": torch.tensor(0.3),
    "optimizer": torch.optim.AdamW([nn.Parameter(torch.zeros(2))]).state_dict(),
    "none": None,
}
WRAPPERS = [
    (), ("state_dict",), ("model",), ("model_state_dict",), ("net",), ("network",), ("module",), ("params",), ("ema",),
    ("teacher",), ("my_own",), ("model", "state_dict"), ("checkpoint", "model", "module"),
]  # fmt: skip
PREFIXES = ["", "module.", "_orig_mod.", "model.", "backbone.", "encoder.", "module._orig_mod.", "_orig_mod.module.",
            "module.module.", "model.net.", "module.encoder.backbone.", "lit_model."]  # fmt: skip


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def wrapped(content: Any, wrapper: tuple[str, ...]) -> Any:
    for name in reversed(wrapper):
        content = {name: content}
    return content


def load(path: Path) -> dict[str, Tensor]:
    network = net()
    put_weights(network, read_weights(path), source=str(path))
    return network.state_dict()


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load(path)
    text = str(caught.value)
    assert "weights_only=False" not in text and "trust the source" not in text and "\n" not in text
    return text


@MANY
@given(
    wrapper=st.sampled_from(WRAPPERS),
    prefix=st.sampled_from(PREFIXES),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64]),
    form=st.sampled_from(["zip", "legacy", "safetensors", "no checksums"]),
    suffix=st.sampled_from([".pt", ".pth", ".bin", ".safetensors", ".ckpt", ""]),
    beside=st.sampled_from([*BESIDE, ""]),
    with_counter=st.booleans(),
)
def test_right_files_load_whatever_is_around_them(
    tmp_path: Path, wrapper, prefix, dtype, form, suffix, beside, with_counter
) -> None:
    state = {
        name: value + 0.5 if value.is_floating_point() else value + 3 for name, value in net().state_dict().items()
    }
    stored = {
        prefix + name: value.to(dtype) if value.is_floating_point() else value
        for name, value in state.items()
        if with_counter or "num_batches" not in name
    }
    path = tmp_path / f"weights{suffix}"
    if form == "safetensors":
        save_file(stored, path)
    else:
        content = wrapped(stored, wrapper)
        content = {**content, beside: BESIDE[beside]} if beside in BESIDE and wrapper else content
        torch.serialization.set_crc32_options(form != "no checksums")
        torch.save(content, path, _use_new_zipfile_serialization=form != "legacy")
        torch.serialization.set_crc32_options(True)
    found = load(path)
    for name in state:
        if with_counter or "num_batches" not in name:
            torch.testing.assert_close(found[name], state[name], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("legacy", [False, True])
def test_objects_beside_the_weights_are_no_hindrance_and_never_made(tmp_path: Path, beside: str, legacy: bool) -> None:
    state = net().state_dict()
    path = tmp_path / "weights.pth"
    torch.save({"model": state, beside: BESIDE[beside]}, path, _use_new_zipfile_serialization=not legacy)
    assert all(torch.equal(value, state[name]) for name, value in load(path).items())


def test_a_whole_network_beside_the_weights_is_no_hindrance_but_in_files_of_old(tmp_path: Path) -> None:
    state = net().state_dict()
    torch.save({"state_dict": state, "model": nn.Linear(2, 2)}, tmp_path / "a.pt")
    assert all(torch.equal(value, state[name]) for name, value in load(tmp_path / "a.pt").items())
    # There networks come with their source code.
    torch.save({"state_dict": state, "x": nn.Linear(2, 2)}, tmp_path / "b.pt", _use_new_zipfile_serialization=False)
    assert "Where the file was made, store the tensors alone" in refusal(tmp_path / "b.pt")


def test_nothing_of_a_file_runs(tmp_path: Path) -> None:
    state, mark = net().state_dict(), tmp_path / "mark"
    path = tmp_path / "weights.pth"
    for bomb in (Bomb(eval, f"open({str(mark)!r}, 'w')"), Bomb(exec, ""), Bomb(__import__("os").system, "true")):
        for legacy in (False, True):
            torch.save({"model": state, "x": bomb}, path, _use_new_zipfile_serialization=not legacy)
            assert re.search(r"names (builtins|posix|os|nt)\.\w+, which .* could run commands", refusal(path))
    # Of any other function a placeholder is called.
    torch.save({"model": state, "x": Bomb(Path.write_text, mark, "ran")}, path)
    torch.save({"model": state, "x": Bomb(Attributes)}, path)
    load(path)
    assert not mark.exists()


def test_safe_classes_are_forgotten_after_reading(tmp_path: Path) -> None:
    before = torch.serialization.get_safe_globals()
    torch.save({"model": net().state_dict(), "x": argparse.Namespace()}, tmp_path / "a.pt")
    load(tmp_path / "a.pt")
    assert set(torch.serialization.get_safe_globals()) == set(before)


@MANY
@given(data=st.data(), form=st.sampled_from(["zip", "legacy", "safetensors"]))
def test_damage_is_told_or_harmless(tmp_path: Path, data: st.DataObject, form: str) -> None:
    torch.manual_seed(0)
    state = net().state_dict()
    path = tmp_path / "weights.pt"
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save({"model": state}, path, _use_new_zipfile_serialization=form == "zip")
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans(), label="cut"):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        # Formats without checksums cannot tell a changed number from a right one; what surrounds the numbers, they can.
        last = len(content) - 1 if form == "zip" else 600
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, last))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        found = load(path)
    except ModelError as error:
        assert "weights_only=False" not in str(error)
        return
    if form == "zip":
        assert all(torch.equal(value, state[name]) for name, value in found.items())


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"lr": 0.1}, "a dict of float, expected a state dict"),
        ({}, "an empty dict"),
        ([torch.zeros(1)], "a list"),
        (torch.zeros(3), "a Tensor"),
        (argparse.Namespace(a=1), r"object of argparse\.Namespace"),
        (nn.Linear(2, 2), r"object of torch\.nn\.modules\.linear\.Linear, a whole network"),
        ({"weight": np.zeros(3)}, "numpy arrays"),
        ({"student": {"a": torch.zeros(1)}, "teacher": {"a": torch.ones(1)}}, "several networks: student, teacher"),
        ({"model": {"a": torch.zeros(1)}, "net": {"a": torch.ones(1)}}, "several networks: model, net"),
    ],
)
def test_torch_files_of_other_things_are_named(tmp_path: Path, content: Any, told: str) -> None:
    torch.save(content, tmp_path / "a.pt")
    assert re.search(told, refusal(tmp_path / "a.pt")), refusal(tmp_path / "a.pt")


def test_the_trained_network_is_taken_before_its_average_and_numbers(tmp_path: Path) -> None:
    state = net().state_dict()
    other = {name: value + 1 for name, value in state.items()}
    torch.save(
        {"ema": other, "model": state, "epoch": torch.tensor(3), "best_val_loss": torch.tensor(0.1)}, tmp_path / "a"
    )
    assert all(torch.equal(value, state[name]) for name, value in load(tmp_path / "a").items())
    # torch.optim.swa_utils.AveragedModel counts beside its network.
    torch.save(
        {"n_averaged": torch.tensor(3), **{f"module.{name}": each for name, each in state.items()}}, tmp_path / "b"
    )
    assert all(torch.equal(value, state[name]) for name, value in load(tmp_path / "b").items())


def test_a_network_inside_a_larger_one_is_found_and_two_are_refused(tmp_path: Path) -> None:
    state = net().state_dict()
    trunk = {f"backbone.{name}": value for name, value in state.items()}
    torch.save({"state_dict": {**trunk, "decode_head.conv.weight": torch.zeros(1)}}, tmp_path / "a.pth")
    assert all(torch.equal(value, state[name]) for name, value in load(tmp_path / "a.pth").items())
    two = {f"{side}.{name}": value for side in ("query", "key") for name, value in state.items()}
    torch.save(two, tmp_path / "b.pth")
    assert "several networks of this kind, under the names query.*, key.*" in refusal(tmp_path / "b.pth")
    torch.save({**trunk, **{f"momentum.{name}": value + 1 for name, value in state.items()}}, tmp_path / "c.pth")
    assert all(torch.equal(value, state[name]) for name, value in load(tmp_path / "c.pth").items())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda s: s.update({"0.weight": s["0.weight"] * torch.nan}),
            r"NaN or infinite numbers in 0\.weight \(108 of 108\)",
        ),
        (lambda s: s["1.bias"].__setitem__(2, -torch.inf), r"infinite numbers in 1\.bias \(1 of 4\)"),
        (lambda s: s.update({"1.bias": s["1.bias"].double() + 1e300}), r"infinite numbers in 1\.bias"),
        (lambda s: s.update({"0.weight": s["0.weight"].to(torch.int8)}), r"0\.weight int8 instead of float32"),
        (lambda s: s.update({"0.weight": s["0.weight"].to(torch.complex64)}), "complex64 instead of float32"),
        (lambda s: s.update({"0.bias": s["0.bias"].to_sparse()}), r"0\.bias is torch\.sparse_coo"),
        (lambda s: s.update({"0.bias": torch.empty(4, device="meta")}), r"0\.bias has a shape but no numbers"),
        (lambda s: s.update({"1.num_batches_tracked": torch.tensor(1.5)}), "float32 instead of int64"),
        (lambda s: s.pop("0.bias"), r"Missing in the file: 0\.bias\. Unknown to the network: none"),
        (lambda s: s.update({"2.bias": torch.zeros(1)}), r"Unknown to the network: 2\.bias\. Other shape: none"),
        (lambda s: s.update({"0.bias": torch.zeros(5)}), r"Other shape: 0\.bias \(5,\) instead of \(4,\)"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
def test_numbers_and_names_that_do_not_fit_are_named(tmp_path: Path, change, told: str, prefix: str) -> None:
    state = net().state_dict()
    change(state)
    torch.save({"model": {prefix + name: value for name, value in state.items()}}, tmp_path / "a.pt")
    assert re.search(told, refusal(tmp_path / "a.pt")), refusal(tmp_path / "a.pt")


def test_a_refused_file_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    network = net()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = {name: value * torch.nan if value.is_floating_point() else value for name, value in before.items()}
    with pytest.raises(ModelError, match="NaN"):
        put_weights(network, state, source="x")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_mask_of_infinities_that_the_network_has_too_is_right() -> None:
    network = nn.Linear(2, 2)
    network.register_buffer("mask", torch.full((2, 2), -torch.inf).triu(1))
    put_weights(network, network.state_dict(), source="x")


def test_counts_in_another_precision_are_counts(tmp_path: Path) -> None:
    state = net().state_dict() | {"1.num_batches_tracked": torch.tensor(7.0)}
    torch.save(state, tmp_path / "a.pt")
    assert load(tmp_path / "a.pt")["1.num_batches_tracked"] == 7


def test_other_protocols_and_pickles_are_explained(tmp_path: Path) -> None:
    state = net().state_dict()
    torch.save({"model": state}, tmp_path / "a.pt", pickle_protocol=4)
    assert "pickle protocol 4" in refusal(tmp_path / "a.pt")
    (tmp_path / "b.pkl").write_bytes(pickle.dumps({"model": {"weight": np.zeros(2)}}))
    assert "a Python pickle that torch.save did not write" in refusal(tmp_path / "b.pkl")


@pytest.mark.parametrize("read", [lambda p: read_checkpoint(p), lambda p: load_backbone_weights(net(), str(p))])
@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 350000000\n", "git-lfs pointer"),
        (b"<!DOCTYPE html><html>sign in</html>", "a web page"),
        (b"", "empty"),
        (None, "does not exist|there is nothing at"),
    ],
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_every_reader_says_what_the_file_is(
    tmp_path: Path, read, content: bytes | None, told: str, suffix: str
) -> None:
    path = tmp_path / f"weights{suffix}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=told):
        read(path)
    with pytest.raises(ModelError, match="a folder"):
        read(tmp_path)


def test_rezipped_and_nested_archives(tmp_path: Path) -> None:
    torch.save(net().state_dict(), tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "b.pt", "w") as archive:
        archive.write(tmp_path / "a.pt", "a.pt")
    assert "a zip archive of other things (a.pt): unpack it" in refusal(tmp_path / "b.pt")


def test_the_cause_of_a_foreign_error_comes_without_its_advice() -> None:
    text = (
        "Weights only load failed. This file can still be loaded, to do so you have two options, do those steps only "
        "if you trust the source of the checkpoint.\n\t(1) In PyTorch 2.6, we changed the default value of the "
        "`weights_only` argument. Re-running `torch.load` with `weights_only` set to `False` will likely succeed, but "
        "it can result in arbitrary code execution.\n\tWeightsUnpickler error: Unsupported global: GLOBAL a.B was not "
        "an allowed global by default. Please use `torch.serialization.add_safe_globals([a.B])`."
    )
    expected = "Unsupported global: GLOBAL a.B was not an allowed global by default"
    assert cause_of(pickle.UnpicklingError(text)) == expected
    assert cause_of(KeyError()) == "KeyError"


def test_weights_are_read_in_one_place_and_no_message_advises_unsafe_loading() -> None:
    texts = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in PACKAGE.rglob("*.py")}
    readers = {
        name
        for name, text in texts.items()
        if re.search(r"\bload_file\b|(?<![(\[])torch\.load\(\w+, map|safe_open", text)
    }
    assert readers == {"models/weight_files.py"}
    assert not [name for name, text in texts.items() if "weights_only=False" in text]

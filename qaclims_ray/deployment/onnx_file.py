"""A network as one ONNX file with everything inside, and the script that runs it with onnxruntime and Pillow alone."""

import contextlib
import importlib.util
import logging
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from qaclims_ray.deployment.exported_graph import CamGraph, FinalGraph
from qaclims_ray.deployment.network_facts import NetworkFacts
from qaclims_ray.errors import ModelError

ONNX_NAME = "network.onnx"
"""The file."""
SCRIPT_NAME = "predict.py"
"""The script beside it."""
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_OPSET = 18
"""The oldest that the exporter writes without converting; onnxruntime has it since 1.14."""
_WHOLE_PX = 32
"""Sizes that no network has to pad."""


def require_onnx() -> None:
    """Refuse to begin where the packages that write ONNX are not installed.

    Raises:
        ModelError: naming what to install.
    """
    if absent := [name for name in _PACKAGES if importlib.util.find_spec(name) is None]:
        raise ModelError(
            f'{", ".join(absent)} is not installed, and writing ONNX needs it: pip install "qaclims-ray[onnx]"'
        )


def write_onnx(graph: FinalGraph | CamGraph, facts: NetworkFacts, folder: str) -> str:
    """Write a graph with what goes with it, and the script beside it; return the file.

    Args:
        graph: on the CPU, in evaluation mode.
        facts: become the file's metadata.
        folder: local; it is made if it is not there.

    Raises:
        ModelError: when a package is absent, or the network cannot be written as ONNX.
    """
    require_onnx()
    import onnx

    path = Path(folder, ONNX_NAME)
    path.parent.mkdir(parents=True, exist_ok=True)
    inputs, shapes, outputs = _interface(graph, facts)
    with _quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                graph,
                tuple(inputs.values()),
                dynamo=True,
                input_names=list(inputs),
                output_names=outputs,
                dynamic_shapes=shapes,
                opset_version=_OPSET,
                verbose=False,
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
            raise ModelError(
                f"{facts.architecture} cannot be written as ONNX: {str(error).strip().splitlines()[0]}. Take another "
                "final network, or use the run's folder with qaclims_ray.load"
            ) from error
    assert program is not None
    program.save(str(path))
    model = onnx.load(str(path), load_external_data=False)
    _name_sides(model, facts)
    onnx.helper.set_model_props(model, facts.metadata())
    onnx.save(model, str(path))
    shutil.copyfile(Path(__file__).with_name(SCRIPT_NAME), path.with_name(SCRIPT_NAME))
    return str(path)


def _interface(
    graph: FinalGraph | CamGraph, facts: NetworkFacts
) -> tuple[dict[str, torch.Tensor], dict[str, dict[int, Any]], list[str]]:
    """Return example inputs by name, which of their sides are free, and the outputs' names."""
    (height, width), free = facts.example_size, torch.export.Dim.AUTO
    is_any = facts.size is None
    # Two images: the exporter would take a side of one for fixed.
    inputs = {"image": torch.zeros(2 if is_any else 1, height, width, 3, dtype=torch.uint8)}
    batch = {0: free} if is_any else {}
    shapes: dict[str, dict[int, Any]] = {"image": {**batch, 1: free, 2: free}}
    if isinstance(graph, FinalGraph):
        return inputs, shapes, ["labels", "scores"]
    inputs["known"] = torch.full((inputs["image"].shape[0], len(facts.classes)), -1.0)
    return inputs, shapes | {"known": dict(batch)}, ["labels", "scores", "probabilities"]


def _name_sides(model: Any, facts: NetworkFacts) -> None:
    """Give the free sides their names, and refuse a file in which one of them is fixed.

    Raises:
        ModelError: when the network holds for one size of image only.
    """
    wanted = ("batch" if facts.size is None else "", "height", "width")
    sides = model.graph.input[0].type.tensor_type.shape.dim
    if fixed := [name for side, name in zip(sides, wanted, strict=False) if name and not side.dim_param]:
        raise ModelError(
            f"{facts.architecture} gives a graph whose {', '.join(fixed)} cannot vary; give it one size: "
            f"--size {_multiple(facts.example_size[0])} {_multiple(facts.example_size[1])}"
        )
    names = {side.dim_param: name for side, name in zip(sides, wanted, strict=False) if name}
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for side in value.type.tensor_type.shape.dim:
            if side.dim_param in names:
                side.dim_param = names[side.dim_param]


def _multiple(side: int) -> int:
    return -(-side // _WHOLE_PX) * _WHOLE_PX


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks about operators of other packages to itself."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)

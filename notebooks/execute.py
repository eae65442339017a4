"""Run the notebooks and write them with their outputs.

python notebooks/execute.py [NOTEBOOK ...] --out build/notebooks
"""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent


def execute(source: Path, folder: Path, parameters: Mapping[str, str]) -> nbformat.NotebookNode:
    """Run a notebook in a kernel of its own.

    Args:
        source: a file in jupytext's percent format.
        folder: where it works.
        parameters: values in place of those in its cell of parameters, by name.

    Returns:
        The notebook with its outputs.

    Raises:
        ValueError: when the notebook has no such parameter.
        CellExecutionError: when a cell fails.
    """
    notebook = jupytext.read(source)
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    lines = cell.source.splitlines()
    for name, value in parameters.items():
        places = [number for number, line in enumerate(lines) if line.startswith(f"{name} = ")]
        if not places:
            raise ValueError(f"{source.name} has no parameter {name}")
        lines[places[0]] = f"{name} = {value!r}"
    cell.source = "\n".join(lines)
    NotebookClient(
        notebook, timeout=3600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    return notebook


def main() -> None:
    """Run what is named, all of them without a name, one after the other."""
    os.environ.setdefault("PYTHONWARNINGS", "ignore:IProgress not found")  # of tqdm, where no widgets are installed
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="*", type=Path, default=sorted(HERE.glob("[0-9]*.py")))
    parser.add_argument("--out", type=Path, default=Path("build/notebooks"))
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    for source in asked.notebooks:
        print(source.stem, flush=True)
        nbformat.write(execute(source, Path.cwd(), {}), asked.out / f"{source.stem}.ipynb")


if __name__ == "__main__":
    main()

"""The page of weights and licences is what its command prints."""

import subprocess
import sys
from pathlib import Path

from benchmarks import weights_page
from qaclims_ray.models.weight_table import KNOWN_WEIGHTS
from qaclims_ray.presets.table import PRESETS

ROOT = Path(__file__).resolve().parents[3]


def test_the_page_holds_what_the_command_prints() -> None:
    text = (ROOT / "docs" / "weights.md").read_text()
    assert text.split(weights_page.START)[1].split(weights_page.END)[0].strip() == weights_page.page_body(), (
        "run: python benchmarks/weights_page.py --page docs/weights.md"
    )


def test_every_weight_and_preset_has_a_row() -> None:
    body = weights_page.page_body()
    assert all(body.count(f"\n| `{name}` | ") == 1 for name in PRESETS if name != "miniature")
    assert all(f"\n| `{weight.name}` | " in body for weight in KNOWN_WEIGHTS)
    rows = {line.split("`")[1]: line for line in weights_page.presets_table().splitlines()[2:]}
    assert "**restricted**: `ovseg`" in rows["voc12"] and "2.0 on [one H200]" in rows["voc12"]
    assert "| permissive | 8.3 GiB, RITC | not measured |" in rows["voc12_plain_clip"]
    assert "8.3 GiB, RITC; not counted: the final network |" in rows["voc12_deeplab_v1"]
    assert "| permissive | not counted | not measured |" in rows["voc12_weaktr"]
    assert "| `miniature` | permissive | no GPU | [miniature.md]" in rows["miniature"]


def test_it_writes_between_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{weights_page.START}\nold\n{weights_page.END}\nafter\n")
    command = [sys.executable, "benchmarks/weights_page.py", "--page", str(page)]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert page.read_text() == f"before\n{weights_page.START}\n{printed}{weights_page.END}\nafter\n"

"""Masks of photographs by network.onnx: python predict.py PHOTO ... --out DIR (pip install onnxruntime pillow)."""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def main() -> None:
    """Read photographs and write a mask of each, whose pixel values are label values and whose colours are VOC's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", nargs="+", type=Path, help="image files")
    parser.add_argument("--out", type=Path, default=Path("masks"), help="folder of the masks")
    parser.add_argument("--network", type=Path, default=Path(__file__).with_name("network.onnx"))
    parser.add_argument("--classes", nargs="*", help="CAM network only: the classes that the photographs show")
    asked = parser.parse_args()
    session = onnxruntime.InferenceSession(asked.network, providers=onnxruntime.get_available_providers())
    facts = session.get_modelmeta().custom_metadata_map
    names, palette, known = (json.loads(facts[key]) for key in ("labels", "palette", "class_names"))
    is_cam = facts["kind"] == '"cam"'
    if asked.classes is not None and not (is_cam and {*asked.classes} <= {*known}):
        parser.error(f"--classes takes {', '.join(known)}" if is_cam else "--classes is for a CAM network alone")
    if len({photo.stem for photo in asked.photos}) < len(asked.photos):
        parser.error("two photos have the same name, and so would their masks")
    if any(photo.resolve().parent == asked.out.resolve() for photo in asked.photos):
        parser.error("--out is the folder of a photo, which its mask could replace: give another")
    asked.out.mkdir(parents=True, exist_ok=True)
    for photo in asked.photos:
        image = ImageOps.exif_transpose(Image.open(photo)).convert("RGB")
        feeds = {"image": np.asarray(image)[None]}
        if is_cam:  # -1: its classifier tells
            feeds["known"] = np.array([[-1 if asked.classes is None else n in asked.classes for n in known]], "f4")
        labels = np.asarray(session.run(["labels"], feeds)[0])[0]
        mask = Image.fromarray(labels, mode="P")
        mask.putpalette(palette)
        mask.save(asked.out / f"{photo.stem}.png")
        shares = [f"{names[str(v)]} {(labels == v).mean():.1%}" for v in np.unique(labels) if str(v) in names]
        print(photo, ", ".join(shares))


if __name__ == "__main__":
    main()

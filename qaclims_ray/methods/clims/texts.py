"""CLIMS's background texts and class words, as its authors wrote them (rows C4, C6, C8)."""

from qaclims_ray.data.classes import VOC_CLASSES, VOC_FILE_NAMES

VOC_BACKGROUND = ("tree", "river", "sea", "lake", "water", "railway", "railroad", "track", "stone", "rocks")
"""The released version's ten for VOC, shared by all classes (C4)."""

CAMERA_READY_BACKGROUND = {
    "boat": ("river", "water", "lake", "sea", "building"),
    "train": ("railroad", "railway", "branches", "tree"),
}
"""The camera-ready version's for VOC: two classes have any (C4)."""

CAMERA_READY_WORDS = tuple((name, file) for name, file in zip(VOC_CLASSES, VOC_FILE_NAMES, strict=True) if name != file)
"""Classes that the camera-ready version calls as VOC's files do, "diningtable"; "person" stays (C6)."""

CAMERA_READY_WEIGHTS = (("sofa", 3.0), ("dining table", 3.0), ("chair", 3.0))
"""What both matching terms of a class weigh in the camera-ready version (C6)."""

COCO_BACKGROUND = (
    "street sign", "mountain", "video game", "men", "track", "bus stop", "cabinet", "tray", "plate", "shirt",
    "city street", "runway", "tower", "ramp", "grass", "pillow", "urinal", "lake", "brick", "fence",
    "shower", "airport", "animal", "shower curtain", "road", "mirror", "jacket", "church", "snow", "fruit",
    "hay", "floor", "field", "street", "mouth", "steam engine", "cheese", "river", "tree branch", "suit",
    "child", "soup", "desk", "tub", "tennis court", "teeth", "bridge", "sky", "officer", "sidewalk",
    "dock", "tree", "court", "rock", "board", "branch", "pan", "box", "body", "salad",
    "dirt", "leaf", "hand", "highway", "vegetable", "computer monitor", "door", "meat", "pair", "beach",
    "harbor", "ocean", "baseball player", "girl", "market", "window", "blanket", "boy", "woman", "bat",
    "baby", "flower", "wall", "bath tub", "tarmac", "tennis ball", "roll", "park",
)  # fmt: skip
"""The released version's 88 for COCO, shared by all classes (C8)."""

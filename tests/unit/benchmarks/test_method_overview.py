"""The picture of the method: everything stands on the page, whatever a run's words are."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from benchmarks.method_overview import AFTER, BEFORE, Story, draw


@pytest.mark.parametrize("name", ["cat", "traffic light"])
def test_all_words_stand_on_the_page_and_questions_beside_their_answers(name):
    tile = np.zeros((64, 64, 3), np.uint8)
    story = Story(
        class_names=[name, "pottedplant"],
        class_name=name,
        questions=[
            *[("background", f"what is on the left side of {name}? ({at})", f"answer {at}") for at in range(10)],
            *[("foreground", f"What kind of {name} is in the photo?", "kind") for _ in range(6)],
        ],
        foreground=[f"a photo of {name}."],
        background=[f"a photo of answer {at}." for at in range(10)],
        pictures=dict.fromkeys(("photograph", BEFORE, AFTER, "masks", "predictions"), tile),
    )
    figure = draw(story)
    FigureCanvasAgg(figure).draw()
    texts = figure.axes[0].texts
    boxes = [text.get_window_extent() for text in texts]
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
    assert all(figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1 for box in boxes)
    assert not [
        (one.get_text(), other.get_text())
        for at, one in enumerate(texts)
        for other in texts[:at]
        if one.get_window_extent().overlaps(other.get_window_extent())
    ]
    shown = [text.get_text() for text in texts]
    assert "answer 2" in shown and "answer 3" not in shown and shown.count("kind") == 1

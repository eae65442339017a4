import math

import pytest

from qaclims_ray.tracking.logged_points import LoggedPoints, all_points


def call(values, step=None, time=1, **more):
    return {"kind": "metrics", "run": "r", "time": time, "values": values, "step": step, **more}


class Server:
    """Keeps points as MLflow does, and counts how often it is asked."""

    def __init__(self):
        self.points, self.asked = {}, 0

    def history(self, run_id, name):
        self.asked += 1
        return [(step, value) for step, value in self.points.get(name, [])]

    def send(self, logged, entries):
        points = logged.missing("r", entries, self.history)
        for point in points:
            self.points.setdefault(point.name, []).append((point.step, point.value))
        logged.note("r", points)
        return [(point.name, point.step, point.value) for point in points]


def test_a_new_run_stores_all():
    points = all_points([call({"a": 1.0}, step=3), call({"b": 2.0})])
    assert [(point.name, point.step, point.time) for point in points] == [("a", 3, 1), ("b", 0, 1)]


def test_a_figure_without_a_step_is_one_point_after_any_number_of_reruns():
    server = Server()
    for _ in range(4):
        server.send(LoggedPoints(), [call({"miou": 0.5, "none": math.nan, "far": math.inf})])
    assert {name: len(points) for name, points in server.points.items()} == {"miou": 1, "none": 1, "far": 1}


def test_infinity_is_what_a_database_made_of_it():
    server = Server()
    server.points["far"] = [(0, 1.7976931348623157e308)]
    assert server.send(LoggedPoints(), [call({"far": math.inf})]) == []


def test_a_changed_figure_follows_at_the_next_step():
    server = Server()
    for value in (0.5, 0.6, 0.6, 0.5):
        server.send(LoggedPoints(), [call({"miou": value})])
    assert server.points["miou"] == [(0, 0.5), (1, 0.6), (2, 0.5)]


def test_repeated_steps_are_left_out_also_within_one_batch():
    server = Server()
    first = LoggedPoints()
    server.send(first, [call({"loss": 1.0}, step=step) for step in (0, 1, 2)])
    again = server.send(LoggedPoints(), [call({"loss": 9.0}, step=step) for step in (1, 2, 3, 3)])
    assert again == [("loss", 3, 9.0)]


def test_the_server_is_asked_once_for_each_metric():
    server, logged = Server(), LoggedPoints()
    for step in range(5):
        server.send(logged, [call({"loss": 1.0, "lr": 0.1}, step=step)])
    assert server.asked == 2


def test_a_batch_that_was_not_stored_is_planned_again():
    server, logged = Server(), LoggedPoints()
    planned = logged.missing("r", [call({"loss": 1.0}, step=0)], server.history)
    assert logged.missing("r", [call({"loss": 1.0}, step=0)], server.history) == planned


@pytest.mark.parametrize("step", [0, None])
def test_calls_of_a_dead_process_meet_what_others_logged_meanwhile(step):
    server, driver = Server(), LoggedPoints()
    server.send(driver, [call({"loss": 1.0}, step=7)])  # the driver has asked, and knows step 7 alone
    server.points["loss"].append((0, 3.0))  # the restarted worker
    server.points["loss"].append((8, 3.0))
    assert server.send(driver, [call({"loss": 3.0}, step=step, adopted=True)]) == []

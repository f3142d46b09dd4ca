import time

import pytest
import slicer

from Testing.slicer_standin.dialogs import press
from Testing.slicer_standin.problems import QtWarning, UnexpectedDialog


def kinds(problems):
    return [type(problem) for problem in problems]


def fails():
    raise ArithmeticError


class TestWhatFailsATest:
    def test_an_error_in_a_slot(self, desk, qt):
        button = qt.QPushButton()
        button.connect("clicked()", fails)
        button.click()
        assert kinds(desk.take_problems()) == [ArithmeticError]

    def test_an_error_in_a_timer(self, desk, qt):
        qt.QTimer.singleShot(0, fails)
        with pytest.raises(AssertionError, match="ArithmeticError"):
            desk.wait_until(lambda: False, 5)
        assert kinds(desk.take_problems()) == [ArithmeticError]

    def test_an_error_in_an_observer_of_vtk(self, desk):
        tag = desk.scene.AddObserver("ModifiedEvent", lambda *_: fails())
        desk.scene.Modified()
        desk.scene.RemoveObserver(tag)
        assert kinds(desk.take_problems()) == [ArithmeticError]

    def test_a_warning_of_qt(self, desk, qt):
        window = qt.QWidget()
        qt.QVBoxLayout(window)
        qt.QVBoxLayout(window)
        assert kinds(desk.take_problems()) == [QtWarning]

    def test_a_timer_of_a_test_that_is_over_does_not_fire(self, make_desk):
        first = make_desk()
        import qt

        qt.QTimer.singleShot(30, fails)
        assert not first.leave()
        second = make_desk()
        time.sleep(0.04)
        second.process_events()


class TestDialogs:
    def test_one_that_nobody_announced_fails_the_test(self, desk):
        with pytest.raises(UnexpectedDialog):
            slicer.util.errorDisplay("went wrong", detailedText="details")
        assert "details" in str(desk.take_problems()[0])

    def test_one_that_never_came_up_fails_the_test(self, make_desk):
        desk = make_desk()
        desk.answer_dialogs(press("Ok"))
        assert "never came up" in str(desk.leave()[0])

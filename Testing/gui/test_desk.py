"""What a test can do at the desk, and what makes it fail."""

import time

import pytest
import slicer

from Testing.mrml.slice_rig import add_volume
from Testing.slicer_standin.dialogs import press, use
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

    def test_an_error_in_a_virtual_function(self, desk, qt):
        class Window(qt.QWidget):
            def resizeEvent(self, event):
                fails()

        window = Window()
        window.show()
        assert set(kinds(desk.take_problems())) == {ArithmeticError}

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
    def test_a_message_is_answered(self, desk):
        desk.answer_dialogs(press("Ok", containing="really"), press("Cancel"))
        assert slicer.util.confirmOkCancelDisplay("Do you really?")
        assert not slicer.util.confirmOkCancelDisplay("And now?")
        assert [shown.text for shown in desk.dialogs] == ["Do you really?", "And now?"]

    def test_one_that_nobody_announced_fails_the_test(self, desk):
        with pytest.raises(UnexpectedDialog):
            slicer.util.errorDisplay("went wrong", detailedText="details")
        assert "details" in str(desk.take_problems()[0])

    def test_one_with_another_text_fails_the_test(self, desk, qt):
        desk.answer_dialogs(press("Yes", containing="delete"))
        with pytest.raises(UnexpectedDialog, match="install"):
            qt.QMessageBox.question(None, "t", "install?", qt.QMessageBox.Yes | qt.QMessageBox.No)
        assert desk.take_problems()

    def test_one_that_never_came_up_fails_the_test(self, make_desk):
        desk = make_desk()
        desk.answer_dialogs(press("Ok"))
        assert "never came up" in str(desk.leave()[0])

    def test_one_left_open_fails_the_test(self, desk, qt):
        desk.answer_dialogs(use(lambda dialog: None))
        assert qt.QDialog().exec_() == 0 and kinds(desk.take_problems()) == [UnexpectedDialog]


class TestHands:
    def test_a_user_cannot_click_what_is_disabled_or_hidden(self, desk, qt):
        button = qt.QPushButton("b")
        with pytest.raises(AssertionError, match="shown False"):
            desk.click(button)
        button.show()
        button.enabled = False
        with pytest.raises(AssertionError, match="enabled False"):
            desk.click(button)

    def test_a_shortcut_of_a_view_lives_while_the_view_has_the_focus(self, desk, qt):
        view = slicer.app.layoutManager().sliceWidget("Red").sliceView()
        field = qt.QLineEdit(slicer.util.mainWindow())
        field.show()
        pressed = []
        shortcut = qt.QShortcut(qt.QKeySequence("n"), view)
        shortcut.context = qt.Qt.WidgetWithChildrenShortcut
        shortcut.connect("activated()", lambda: pressed.append("n"))
        desk.press_key(field, "n")
        assert (field.text, pressed) == ("n", [])
        desk.press_key("Red", "n")
        assert (field.text, pressed) == ("n", ["n"])

    def test_a_place_that_the_view_does_not_show(self, desk):
        desk.show_volume(add_volume(desk.scene), "Red")
        with pytest.raises(AssertionError, match="not in the slice"):
            desk.mouse("Red").click((-10, -10, 900))


def test_settings_survive_a_restart_as_texts(make_desk):
    first = make_desk()
    import qt

    qt.QSettings().setValue("FoundationSeg/on", True)
    assert qt.QSettings().value("FoundationSeg/on") is True and not first.leave()
    make_desk(settings_of=first)
    import qt

    assert qt.QSettings().value("FoundationSeg/on") == "true"
    assert slicer.util.settingsValue("FoundationSeg/on", False, converter=slicer.util.toBool) is True


def test_a_desk_starts_without_settings_and_nodes(make_desk):
    first = make_desk()
    import qt

    qt.QSettings().setValue("FoundationSeg/x", 1)
    first.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    assert not first.leave()
    second = make_desk()
    import qt

    assert qt.QSettings().value("FoundationSeg/x") is None
    assert second.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0

"""CTK's and MRML's widgets for a number or a range, with the signals as they were seen in Slicer."""

from typing import Any, ClassVar

from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import Signal

from Testing.slicer_standin.standin import Standin, standin

_STEPS = 1000  # of the slider in the picture


class _Number(Standin, QtWidgets.QWidget):
    """A number between two others; a bound that passes the other one takes it along."""

    valueChanged = Signal(float)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._minimum, self._maximum, self._value = 0.0, 99.99, 0.0
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        self._slider = QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal, self)
        self._slider.setRange(0, _STEPS)
        self._slider.sliderMoved.connect(self._moved)
        self._shown = QtWidgets.QLabel("0", self)
        row.addWidget(self._slider)
        row.addWidget(self._shown)

    @property
    def minimum(self) -> float:
        return self._minimum

    @minimum.setter
    def minimum(self, value: float) -> None:
        self._minimum, self._maximum = value, max(value, self._maximum)
        self.setValue(self._value)

    @property
    def maximum(self) -> float:
        return self._maximum

    @maximum.setter
    def maximum(self, value: float) -> None:
        self._minimum, self._maximum = min(value, self._minimum), value
        self.setValue(self._value)

    @property
    def value(self) -> float:
        return self._value

    @value.setter
    def value(self, value: float) -> None:
        self.setValue(value)

    def setValue(self, value: float) -> None:
        value = min(max(value, self._minimum), self._maximum)
        if value != self._value:
            self._value = value
            self._shown.setText(f"{value:g}")
            if 0 < self._maximum - self._minimum < float("inf"):
                self._slider.setValue(round((value - self._minimum) / (self._maximum - self._minimum) * _STEPS))
            self.valueChanged.emit(value)

    def _moved(self, step: int) -> None:
        self.setValue(self._minimum + (self._maximum - self._minimum) * step / _STEPS)


class _Decimals:
    """Changing the decimals shows the number anew, and does not round it."""

    decimalsChanged = Signal(int)
    _decimals = 2

    @property
    def decimals(self) -> int:
        return self._decimals

    @decimals.setter
    def decimals(self, value: int) -> None:
        self.setDecimals(value)

    def setDecimals(self, value: int) -> None:
        if value != self._decimals:
            self._decimals = value
            self.decimalsChanged.emit(value)


@standin("ctkSliderWidget")
class SliderWidget(_Decimals, _Number):
    valueIsChanging = Signal(float)
    decimalsChanged = Signal(int)
    remembered: ClassVar[dict[str, Any]] = {
        "singleStep": 1.0,
        "pageStep": 10.0,
        "prefix": "",
        "suffix": "",
        "tickInterval": 0.0,
        "tickPosition": 0,
        "synchronizeSiblings": 0,
        "spinBoxAlignment": 1,
        "tracking": True,
        "spinBoxVisible": True,
        "popupSlider": False,
        "invertedAppearance": False,
        "invertedControls": False,
    }

    def setSpinBoxVisible(self, visible: bool) -> None:
        self.write_property("spinBoxVisible", visible)

    def reset(self) -> None:
        self.setValue(self._minimum)


@standin("qMRMLSliderWidget")
class MRMLSliderWidget(SliderWidget):
    remembered: ClassVar[dict[str, Any]] = {"quantity": "", "unitAwareProperties": 0}

    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene

    def mrmlScene(self) -> Any:
        return getattr(self, "_scene", None)


@standin("ctkDoubleSpinBox")
class DoubleSpinBox(_Decimals, _Number):
    editingFinished = Signal()
    decimalsChanged = Signal(int)
    remembered: ClassVar[dict[str, Any]] = {
        "alignment": 1,
        "frame": True,
        "readOnly": False,
        "prefix": "",
        "suffix": "",
        "decimalsOption": 0,
        "singleStep": 1.0,
        "setMode": 1,
        "invertedControls": False,
        "sizeHintPolicy": 0,
    }

    def setReadOnly(self, value: bool) -> None:
        self.write_property("readOnly", value)

    def setValueIfDifferent(self, value: float) -> None:
        self.setValue(value)

    def stepUp(self) -> None:
        self.setValue(self._value + self.read_property("singleStep"))

    def stepDown(self) -> None:
        self.setValue(self._value - self.read_property("singleStep"))


class _Range(Standin, QtWidgets.QWidget):
    """Two numbers within bounds, the smaller first."""

    valuesChanged = Signal(float, float)
    minimumValueChanged = Signal(float)
    maximumValueChanged = Signal(float)
    rangeChanged = Signal(float, float)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*[value for value in arguments if isinstance(value, QtWidgets.QWidget)])
        self._bounds = self._values = (0.0, 99.0)

    @property
    def minimum(self) -> float:
        return self._bounds[0]

    @minimum.setter
    def minimum(self, value: float) -> None:
        self._bounds = (value, max(value, self._bounds[1]))
        self.setValues(*self._values)

    @property
    def maximum(self) -> float:
        return self._bounds[1]

    @maximum.setter
    def maximum(self, value: float) -> None:
        self._bounds = (min(value, self._bounds[0]), value)
        self.setValues(*self._values)

    @property
    def minimumValue(self) -> float:
        return self._values[0]

    @minimumValue.setter
    def minimumValue(self, value: float) -> None:
        self.setMinimumValue(value)

    @property
    def maximumValue(self) -> float:
        return self._values[1]

    @maximumValue.setter
    def maximumValue(self, value: float) -> None:
        self.setMaximumValue(value)

    def setRange(self, low: float, high: float) -> None:
        changed = (low, high) != self._bounds
        self._bounds = (min(low, high), max(low, high))
        self.setValues(*self._values)
        if changed:
            self.rangeChanged.emit(*self._bounds)

    def setValues(self, low: float, high: float) -> None:
        """As in CTK, the pair is told before its members."""
        low, high = (min(max(value, self._bounds[0]), self._bounds[1]) for value in sorted((low, high)))
        before, self._values = self._values, (low, high)
        if before != self._values:
            self.valuesChanged.emit(low, high)
        if before[0] != low:
            self.minimumValueChanged.emit(low)
        if before[1] != high:
            self.maximumValueChanged.emit(high)


@standin("ctkRangeWidget")
class RangeWidget(_Decimals, _Range):
    minimumValueIsChanging = Signal(float)
    maximumValueIsChanging = Signal(float)
    remembered: ClassVar[dict[str, Any]] = {
        "singleStep": 1.0,
        "prefix": "",
        "suffix": "",
        "tickInterval": 0.0,
        "autoSpinBoxWidth": True,
        "spinBoxTextAlignment": 130,
        "spinBoxAlignment": 2,
        "tracking": True,
        "symmetricMoves": False,
    }

    def setMinimumValue(self, value: float) -> None:
        """It stops at the larger value."""
        self.setValues(min(value, self._values[1]), self._values[1])

    def setMaximumValue(self, value: float) -> None:
        """It stops at the smaller value."""
        self.setValues(self._values[0], max(value, self._values[0]))

    def reset(self) -> None:
        self.setValues(*self._bounds)


@standin("ctkDoubleRangeSlider")
class DoubleRangeSlider(_Range):
    sliderPressed = Signal()
    sliderReleased = Signal()
    remembered: ClassVar[dict[str, Any]] = {
        "singleStep": 1.0,
        "tracking": True,
        "orientation": 2,
        "tickInterval": 0.0,
        "tickPosition": 0,
        "symmetricMoves": False,
    }

    def setMinimumValue(self, value: float) -> None:
        """It takes the larger value along."""
        self.setValues(value, max(value, self._values[1]))

    def setMaximumValue(self, value: float) -> None:
        """It takes the smaller value along."""
        self.setValues(min(value, self._values[0]), value)

"""Slicer's table of segments and its segment selector, on real segmentation nodes."""

from typing import Any, ClassVar

import slicer
import vtk
from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Signal

from Testing.slicer_standin.standin import Observed, SceneUser, standin

_SEGMENT_ID = QtCore.Qt.ItemDataRole.UserRole + 1
_HEADINGS = ("", "", "Opacity", "Name", "Layer", "")
_COLUMN_PROPERTIES = {
    0: "visibilityColumnVisible",
    1: "colorColumnVisible",
    2: "opacityColumnVisible",
    4: "layerColumnVisible",
    5: "statusColumnVisible",
}


@standin("qMRMLSegmentsTableView")
class SegmentsTableView(SceneUser):
    """It keeps a removed scene's node after a close, and tells a selection of several segments one by one."""

    selectionChanged = Signal(object, object)
    segmentAboutToBeModified = Signal(str)
    remembered: ClassVar[dict[str, Any]] = {
        "selectionMode": 3,
        "readOnly": False,
    }

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._node: Any = None
        self._segments_observed = Observed()
        self.destroyed.connect(self._segments_observed.stop)
        column = QtWidgets.QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        self._table = QtWidgets.QTableView(self)
        self._model = QtGui.QStandardItemModel(0, len(_HEADINGS), self)
        self._model.setHorizontalHeaderLabels(_HEADINGS)
        self._proxy = QtCore.QSortFilterProxyModel(self)
        self._proxy.setSourceModel(self._model)
        self._table.setModel(self._proxy)
        self._table.setSelectionBehavior(QtWidgets.QAbstractItemView.SelectionBehavior.SelectRows)
        self._table.horizontalHeader().setVisible(False)
        self._table.verticalHeader().setVisible(False)
        self._table.horizontalHeader().setSectionResizeMode(3, QtWidgets.QHeaderView.ResizeMode.Stretch)
        for place, width in enumerate((24, 24, 60, 120, 50, 24)):
            self._table.setColumnWidth(place, width)
        self._table.setColumnHidden(4, True)
        self._model.itemChanged.connect(self._edited)
        self._table.selectionModel().selectionChanged.connect(self._selected)
        column.addWidget(self._table)
        self._told: tuple[str, ...] = ()
        self._is_filling = False

    def setMRMLScene(self, scene: Any) -> None:
        super().setMRMLScene(scene)
        if scene is None:
            self.setSegmentationNode(None)
            return
        self._observed.add(scene, slicer.vtkMRMLScene.NodeAboutToBeRemovedEvent, self._on_removal)

    def _follow(self, node: Any) -> None:
        self._segments_observed.stop()
        self._node = node
        if node is not None:
            segmentation = slicer.vtkSegmentation
            for event in (segmentation.SegmentAdded, segmentation.SegmentRemoved, segmentation.SegmentModified):
                self._segments_observed.add(node, event, lambda *_: self._fill())

    def _ids(self) -> list[str]:
        return list(self._node.GetSegmentation().GetSegmentIDs()) if self._node else []

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _on_removal(self, _caller: Any, _event: str, node: Any) -> None:
        if node is self._node and not self._scene.IsClosing():
            self._follow(None)
            self._fill()

    def segmentationNode(self) -> Any:
        return self._node

    def setSegmentationNode(self, node: Any) -> None:
        if node is not self._node:
            self._follow(node)
            self._told = ()  # it does not say that nothing is chosen any more
            self._table.clearSelection()
            self._fill()

    def displayedSegmentIDs(self) -> list[str]:
        return [self.segmentIDForRow(row) for row in range(self._proxy.rowCount())]

    def selectedSegmentIDs(self) -> list[str]:
        rows = sorted({index.row() for index in self._table.selectionModel().selectedRows()})
        return [self.segmentIDForRow(row) for row in rows]

    def setSelectedSegmentIDs(self, segment_ids: list[str]) -> None:
        rows = [self.rowForSegmentID(segment_id) for segment_id in segment_ids]
        flag = QtCore.QItemSelectionModel.SelectionFlag
        rows = [row for row in rows if row >= 0]
        if not rows:
            self._table.clearSelection()
        if rows and tuple(segment_ids) == tuple(self.selectedSegmentIDs()):
            return
        for n, row in enumerate(rows):
            how = flag.Select if n else flag.ClearAndSelect
            self._table.selectionModel().select(self._proxy.index(row, 0), how | flag.Rows)

    def clearSelection(self) -> None:
        self._table.clearSelection()

    def segmentIDForRow(self, row: int) -> str:
        return self._proxy.index(row, 0).data(_SEGMENT_ID) or ""

    def rowForSegmentID(self, segment_id: str) -> int:
        shown = self.displayedSegmentIDs()
        return shown.index(segment_id) if segment_id in shown else -1

    def tableWidget(self) -> QtWidgets.QTableView:
        return self._table

    def model(self) -> QtGui.QStandardItemModel:
        return self._model

    def sortFilterProxyModel(self) -> QtCore.QSortFilterProxyModel:
        return self._proxy

    def showOnlySelectedSegments(self) -> None:
        chosen, display = self.selectedSegmentIDs(), self._node.GetDisplayNode()
        for segment_id in self._ids():
            display.SetSegmentVisibility(segment_id, segment_id in chosen)

    def _selected(self, *_: Any) -> None:
        now = tuple(self.selectedSegmentIDs())
        if now != self._told:
            self._told = now
            self.selectionChanged.emit(QtCore.QItemSelection(), QtCore.QItemSelection())

    def _fill(self) -> None:
        """Rows that are there stay, also what others have put into further columns (qMRMLSegmentsModel)."""
        chosen, shown = self.selectedSegmentIDs(), self._ids()
        self._is_filling = True
        for row in reversed(range(self._model.rowCount())):
            if self._model.item(row, 0).data(_SEGMENT_ID) not in shown:
                self._model.removeRow(row)
        rows = [self._model.item(row, 0).data(_SEGMENT_ID) for row in range(self._model.rowCount())]
        display = self._node.GetDisplayNode() if self._node else None
        for row, segment_id in enumerate(shown):
            segment = self._node.GetSegmentation().GetSegment(segment_id)
            if segment_id not in rows:
                items = [QtGui.QStandardItem() for _ in range(self._model.columnCount())]
                for place, item in enumerate(items):
                    item.setData(segment_id, _SEGMENT_ID)
                    item.setEditable(place not in (0, 4, 5))
                self._model.insertRow(row, items)
                rows.insert(row, segment_id)
            at = rows.index(segment_id)
            is_visible = display is None or display.GetSegmentVisibility(segment_id)
            self._model.item(at, 0).setText("o" if is_visible else "-")
            self._model.item(at, 1).setBackground(QtGui.QColor.fromRgbF(*segment.GetColor()))
            self._model.item(at, 3).setText(segment.GetName())
        self._is_filling = False
        if chosen:
            kept = [segment_id for segment_id in chosen if segment_id in shown]
            self.setSelectedSegmentIDs(kept)
            self._selected()

    def _edited(self, item: QtGui.QStandardItem) -> None:
        segment_id = item.data(_SEGMENT_ID)
        if segment_id and item.column() == 3 and not self._is_filling:
            self.segmentAboutToBeModified.emit(segment_id)
            self._node.GetSegmentation().GetSegment(segment_id).SetName(item.text())


def _column(place: int) -> property:
    def read(self: SegmentsTableView) -> bool:
        return not self._table.isColumnHidden(place)

    def write(self: SegmentsTableView, visible: bool) -> None:
        self._table.setColumnHidden(place, not visible)

    return property(read, write)


def _column_setter(name: str) -> Any:
    return lambda self, visible: setattr(self, name, visible)


for _place, _name in _COLUMN_PROPERTIES.items():
    setattr(SegmentsTableView, _name, _column(_place))
    setattr(SegmentsTableView, f"set{_name[0].upper()}{_name[1:]}", _column_setter(_name))
SegmentsTableView.headerVisible = property(
    lambda self: not self._table.horizontalHeader().isHidden(),
    lambda self, visible: self._table.horizontalHeader().setVisible(visible),
)
SegmentsTableView.setHeaderVisible = _column_setter("headerVisible")
standin("qMRMLSegmentsTableView")(SegmentsTableView)

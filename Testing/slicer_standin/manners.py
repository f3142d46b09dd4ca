"""What PythonQt and Slicer's widgets do, line by line: the stand-in must do the same.

Slicer runs this file too and prints what differs there: `Slicer --python-script Testing/slicer_standin/manners.py`.
"""

import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # in Slicer
    sys.path.insert(
        0, str(Path(sys.argv[-1] if sys.argv[-1].endswith("manners.py") else __file__).resolve().parents[2])
    )

# Lines that run one after the other, with the value of an expression, or the class of the error that it raises.
LINES: dict[str, list[tuple[str, Any]]] = {
    "properties are attributes": [
        ("b = qt.QPushButton('x'); b.text", "x"),
        ("b.text()", TypeError),
        ("b.text = 'y'; b.setText('z'); b.text", "z"),
        ("b.enabled, b.isEnabled(), b.visible, b.isVisible()", (True, True, False, False)),
        ("b.width", 640),
        ("b.width = 5", AttributeError),
        ("b.nope", AttributeError),
        ("b.nope = 3", AttributeError),
        ("b.setText = 3", AttributeError),
        ("b.clicked = 3", AttributeError),
        ("b.exec_", AttributeError),
        ("b.raise_(); b.layout(), b.parent(), b.parentWidget()", (None, None, None)),
        ("b.className(), b.inherits('QWidget'), b.inherits('QLabel')", ("QPushButton", True, False)),
        ("type(b) is qt.QPushButton, isinstance(b, qt.QPushButton), isinstance(b, qt.QWidget)", (True, True, False)),
        ("issubclass(qt.QPushButton, qt.QWidget)", False),
        ("b == b, b == qt.QPushButton('x'), b == None", (True, False, False)),
    ],
    "arguments": [
        ("b = qt.QPushButton('x'); s = qt.QSpinBox(); d = qt.QDoubleSpinBox()", None),
        ("b.setText(text='a')", ValueError),
        ("qt.QPushButton(text='a')", ValueError),
        ("qt.QStyle()", ValueError),
        ("b.setText(5); b.text", "5"),
        ("b.text = None; b.text", "None"),
        ("b.setText(pathlib.Path('/a')); b.text", "/a"),
        ("b.enabled = 0; b.enabled", False),
        ("b.setEnabled('a'); b.enabled", True),
        ("s.value = 3.7; s.value", 3),
        ("s.setValue(4.9); s.value", 4),
        ("s.value = np.int64(5); s.value", 5),
        ("s.setValue(np.int64(6)); s.value", 6),
        ("s.value = '8'", AttributeError),
        ("s.setValue('8')", ValueError),
        ("d.value = np.float32(4.5); d.value", 4.5),
        ("d.setValue(2); d.value", 2.0),
        ("b.shortcut = 'Ctrl+N'", AttributeError),
        ("b.setText()", ValueError),
        ("b.setText('a', 'b')", ValueError),
    ],
    "names of objects": [
        ("w = qt.QWidget(); k = qt.QPushButton('k', w); k.name = 'kid'; k.objectName, k.name", ("kid", "kid")),
        ("w.kid is k, w.children() == (k,), k.parent() is w", (True, True, True)),
        ("w.findChildren(qt.QPushButton) == (k,), w.findChild(qt.QPushButton, 'kid') is k", (True, True)),
        ("k.property('SlicerParameterName')", None),
        ("k.SlicerParameterName", AttributeError),
        ("k.setProperty('SlicerParameterName', 'x')", False),
        ("k.SlicerParameterName, k.property('SlicerParameterName')", ("x", "x")),
        ("k.SlicerParameterName = 'y'; k.property('SlicerParameterName')", "y"),
        ("w.delete(); bool(w), bool(k)", (False, False)),
        ("k.text", ValueError),
        ("k.parent()", ValueError),
    ],
    "enums are ints": [
        ("qt.Qt.AlignLeft, qt.Qt.AlignLeft | qt.Qt.AlignTop", (1, 33)),
        ("isinstance(qt.Qt.AlignLeft, int), type(qt.Qt.AlignLeft | qt.Qt.AlignTop) is int", (True, True)),
        ("qt.QMessageBox.Yes == 0x4000, isinstance(qt.QMessageBox.Yes, int)", (True, True)),
        ("lab = qt.QLabel(); lab.alignment", 129),
        ("lab.alignment = qt.Qt.AlignRight | qt.Qt.AlignTop; lab.alignment", 34),
        ("lab.setAlignment(0x82); lab.alignment", 130),
        ("lab.textInteractionFlags", 4),
        ("qt.QDialog.Nope", AttributeError),
        ("lab.setSizePolicy(7, 5); lab.setSizePolicy(qt.QSizePolicy.Expanding, qt.QSizePolicy.Fixed)", None),
        ("lab.sizePolicy.horizontalPolicy()", 7),
        ("lab.setCursor(qt.Qt.WaitCursor); lab.cursor.shape()", 3),
        ("slicer.app.setOverrideCursor(qt.Qt.WaitCursor); slicer.app.restoreOverrideCursor()", None),
        ("qt.QTableWidgetItem('a').setForeground(qt.Qt.red)", None),
        ("qt.QEvent.Enter, qt.QEvent(qt.QEvent.Enter).type()", (10, 10)),
        ("it = qt.QTableWidgetItem('a'); it.setFlags(it.flags() & ~qt.Qt.ItemIsEditable); it.flags()", 61),
        ("ctk.ctkPathLineEdit.Dirs, ctk.ctkPathLineEdit.Files, ctk.ctkPathLineEdit.Executable", (1, 2, 64)),
    ],
    "what the modules show": [
        ("qt.QtWidgets", AttributeError),
        ("slicer.qMRMLSimpleMarkupsWidget", AttributeError),
        ("slicer.qSlicerApplication", AttributeError),
        ("ctk.ctkCollapsibleButton().setCollapsed", AttributeError),
        ("ctk.ctkSliderWidget().setRange", AttributeError),
        ("slicer.qMRMLNodeComboBox().setNodeTypes", AttributeError),
        ("slicer.app.mainWindow", AttributeError),
        ("slicer.app.testingEnabled(), slicer.app.applicationName", (False, "Slicer")),
        ("slicer.app.translate('a', 'b')", "b"),
        ("slicer.app.processEvents(); slicer.app.pauseRender(); slicer.app.resumeRender()", None),
        ("qt.QThread.currentThread() == slicer.app.thread()", True),
        ("sorted(slicer.app.layoutManager().sliceViewNames())", ["Green", "Red", "Yellow"]),
        ("slicer.app.layoutManager().sliceWidget('Nope')", None),
        ("slicer.app.layoutManager().sliceWidget('Red').sliceLogic().GetClassName()", "vtkMRMLSliceLogic"),
        ("slicer.app.layoutManager().sliceWidget('Red').sliceView().mrmlSliceNode().GetName()", "Red"),
        ("bar = slicer.util.mainWindow().statusBar(); bar.showMessage('hi'); bar.currentMessage()", "hi"),
    ],
    "lists are tuples": [
        ("c = qt.QComboBox(); c.addItems(['a', 'b']); c.addItems(('c',)); c.count", 3),
        ("c.itemText(1), c.findText('b'), c.currentText, c.currentData", ("b", 1, "a", None)),
        ("c.currentData()", TypeError),
        ("c.addItem('d', 5); c.itemData(3)", 5),
        ("c.addItem('e', {'a': 1}); c.itemData(4)", {"a": 1}),
        ("c.addItem('l', [1, 'a']); c.itemData(5)", (1, "a")),
        ("qt.QWidget().children()", ()),
    ],
    "tables and items": [
        ("t = qt.QTableWidget(2, 2); it = qt.QTableWidgetItem('a'); t.setItem(0, 0, it)", None),
        ("t.item(0, 0) is it, t.item(1, 1), t.rowCount, t.columnCount", (True, None, 2, 2)),
        ("it.text()", "a"),
        ("it.foo = 1", AttributeError),
        ("it.setData(qt.Qt.UserRole, 'k'); it.data(256)", "k"),
        ("t.setHorizontalHeaderLabels(('a', 'b'))", None),
        ("t.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.Stretch)", None),
        ("t.setEditTriggers(0); t.selectedItems(), t.currentRow()", ((), -1)),
        ("b = qt.QPushButton(); t.setCellWidget(0, 1, b); t.cellWidget(0, 1) is b", True),
        ("it.setForeground(qt.QBrush(qt.QColor(1, 2, 3))); it.setForeground(qt.QColor(1, 2, 3))", None),
    ],
    "values": [
        ("qt.QColor(1, 2, 3).name(), qt.QColor(1, 2, 3) == qt.QColor(1, 2, 3)", ("#010203", True)),
        ("qt.QSize(1, 2).width(), qt.QSize(1, 2) == qt.QSize(1, 2), qt.QRect(1, 2, 3, 4).width()", (1, True, 3)),
        ("qt.QKeySequence('Ctrl+Z').toString(), qt.QKeySequence(qt.Qt.Key_Escape).toString()", ("Ctrl+Z", "Esc")),
        ("qt.QUrl('file:///a').toLocalFile()", "/a"),
        ("qt.QIcon().isNull(), qt.QPixmap(3, 4).width()", (True, 3)),
        ("x = qt.QTimer(); x.setInterval(5); x.setSingleShot(True); x.isSingleShot(), x.active", (True, False)),
        ("callable(x.singleShot), callable(qt.QTimer.singleShot)", (True, True)),
    ],
    "settings": [
        ("s = qt.QSettings(); s.value('FS/none'), s.value('FS/none', 7), s.contains('FS/none')", (None, 7, False)),
        ("s.setValue('FS/a', True); qt.QSettings().value('FS/a')", True),
        ("s.setValue('FS/b', [1, 2]); qt.QSettings().value('FS/b')", (1, 2)),
        ("s.setValue('FS/d', 1.5); qt.QSettings().value('FS/d')", 1.5),
        ("slicer.util.settingsValue('FS/a', False, converter=slicer.util.toBool)", True),
        ("s.remove('FS/a'); slicer.util.settingsValue('FS/a', 'default')", "default"),
        ("s.remove('FS'); s.contains('FS/b')", False),
    ],
    "tabs": [
        ("log = []; t = qt.QTabWidget(); t.addTab(qt.QWidget(), 'a'); t.addTab(qt.QWidget(), 'b')", 1),
        ("t.currentChanged.connect(log.append); t.currentIndex = 1; log[-1], t.count, t.tabText(0)", (1, 2, "a")),
        ("e = qt.QLineEdit(); del log[:]; e.textChanged.connect(log.append); e.text = 'a'; e.clear(); log", ["a", ""]),
    ],
    "signals": [
        ("b = qt.QPushButton(); b.checkable = True; lab = qt.QLabel(); e = qt.QLineEdit(); d = qt.QDialog()", None),
        ("b.connect(' clicked( bool ) ', lambda on: None), b.clicked.connect(lambda: 1)", (True, True)),
        ("b.connect('clicked')", ValueError),
        ("b.disconnect('clicked()', print), b.clicked.disconnect(print)", (False, False)),
        ("e.connect('textChanged(QString)', lab.setText); e.text = 'hi'; lab.text", "hi"),
        ("d.show(); b.connect('clicked()', d.close); b.click(); d.visible", False),
        ("b.connect('clicked()', d, 'show()'); b.disconnect('clicked()', d.close); b.clicked(); d.visible", True),
        ("d.close(); b.clicked.emit(); d.visible", True),
        ("d.close()", True),
    ],
}

# Where the stand-in complains and Slicer goes on, silently or with a line in its log: (set-up, line, Slicer's value).
STRICTER = [
    ("b = qt.QPushButton()", "b.connect('nope()', print)", False),
    ("b = qt.QPushButton()", "b.connect('clicked(int)', print)", False),
    ("b = qt.QPushButton()", "b.connect('clicked', print)", False),
    ("b = qt.QPushButton()", "b.connect('clicked()', 5)", True),
    ("b = qt.QPushButton()", "b.clicked.connect(5)", True),
    ("w = qt.QWidget()", "bool(qt.QShortcut(qt.QKeySequence('n'), w, w.close))", True),
    ("w = qt.QWidget()", "qt.QPushButton.text", None),
]


def names() -> dict[str, Any]:
    """What the lines use."""
    import functools
    import pathlib

    import ctk
    import numpy as np
    import qt
    import slicer

    return {"qt": qt, "ctk": ctk, "slicer": slicer, "np": np, "pathlib": pathlib, "functools": functools}


def outcome(line: str, known: dict[str, Any]) -> Any:
    """The value of the last expression of a line, None after a statement, or the class of the error."""
    *before, last = line.split("; ")
    try:
        for part in before:
            exec(part, known)
        try:
            code = compile(last, line, "eval")
        except SyntaxError:
            exec(last, known)
            return None
        return eval(code, known)
    except Exception as error:
        return type(error)


def report() -> None:
    """In Slicer: write what differs from the table."""
    known = names()
    for lines in LINES.values():
        for line, wanted in lines:
            found = outcome(line, known)
            if found != wanted:
                print(f"differs: {line}\n   wanted {wanted!r}\n   found  {found!r}")
    for before, line, wanted in STRICTER:
        exec(before, known)
        if outcome(line, known) != wanted:
            print(f"differs: {line}: {outcome(line, known)!r}, wanted {wanted!r}")
    from Testing.slicer_standin import node_stories  # noqa: F401 - it adds its own
    from Testing.slicer_standin.stories import STORIES

    for story, wanted in STORIES:
        found = story()
        for one, other in zip(found, wanted, strict=False):
            if one != other:
                print(f"differs: {story.__name__}\n   wanted {other!r}\n   found  {one!r}")
        if len(found) != len(wanted):
            print(f"differs: {story.__name__}: {len(found)} steps, wanted {len(wanted)}")
    print("manners: all looked at")


if __name__ == "__main__":
    report()
    import slicer

    slicer.util.exit(0)

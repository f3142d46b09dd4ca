"""What methods of Qt do in PythonQt's way rather than in PySide6's."""

from collections.abc import Callable
from typing import Any

from PySide6 import QtCore

from Testing.slicer_standin.inventory import lineage, members, signal_overloads
from Testing.slicer_standin.methods import behaves
from Testing.slicer_standin.problems import NotModelled
from Testing.slicer_standin.proxy import Wrapper, unwrap, wrap
from Testing.slicer_standin.signals import BoundSignal, make_slot, normalised

opened_urls: list[str] = []  # what the product asked the desktop to open; the desk empties it
_pending: list[QtCore.QTimer] = []
_dying: list[Wrapper] = []


def find_signal(proxy: Wrapper, text: str) -> BoundSignal:
    """The signal named in ``connect("clicked()", ...)``.

    Raises:
        ValueError: the object has no such signal. Slicer only prints that, and the slot is never called.
    """
    name, types = normalised(text)
    member = members(type(proxy)._class_name).get(name)
    if member is None or member.kind != "signal" or types not in signal_overloads(member):
        raise ValueError(f"signal {text!r} does not exist on {type(proxy)._class_name}; Slicer would only print that")
    return BoundSignal(proxy, member, types)


@behaves("QObject", "connect")
def connect(proxy: Wrapper | None, *arguments: Any) -> bool:
    sender, signal, *target = arguments if proxy is None else (proxy, *arguments)
    if len(target) == 2 and isinstance(target[0], Wrapper) and isinstance(target[1], str):
        target = [slot_named(*target)]
    if not isinstance(signal, str) or len(target) != 1:
        raise ValueError(f"Could not find matching overload of connect for given arguments: {arguments!r}")
    return find_signal(sender, signal).connect(target[0])


@behaves("QObject", "disconnect")
def disconnect(proxy: Wrapper | None, *arguments: Any) -> bool:
    sender, signal, *target = arguments if proxy is None else (proxy, *arguments)
    return find_signal(sender, signal).disconnect(*target)


def slot_named(receiver: Wrapper, text: str) -> Callable:
    """The method of an object for a slot like ``"setMRMLScene(vtkMRMLScene*)"``."""
    name, types = normalised(text)
    member = members(type(receiver)._class_name).get(name)
    if member is None or member.kind not in ("method", "property"):
        raise ValueError(f"slot {text!r} does not exist on {type(receiver)._class_name}")
    method = getattr(receiver, name)
    count = len(types or ())
    return lambda *arguments: method(*arguments[:count])


@behaves("QObject", "findChildren")
def find_children(proxy: Wrapper, kind: Any, name: str = "") -> tuple[Wrapper, ...]:
    wanted = kind if isinstance(kind, str) else kind._class_name
    children = (wrap(child) for child in proxy._live("search").findChildren(QtCore.QObject))
    return tuple(
        child
        for child in children
        if isinstance(child, Wrapper) and wanted in lineage(type(child)._class_name) and name in ("", child.objectName)
    )


@behaves("QObject", "findChild")
def find_child(proxy: Wrapper, kind: Any, name: str = "") -> Wrapper | None:
    return next(iter(find_children(proxy, kind, name)), None)


@behaves("QObject", "property")
def read_property(proxy: Wrapper, name: str) -> Any:
    member = members(type(proxy)._class_name).get(name)
    if member is not None and member.kind == "property":
        return getattr(proxy, name)
    return wrap(proxy._live("read").property(name))


@behaves("QObject", "setProperty")
def set_property(proxy: Wrapper, name: str, value: Any) -> bool:
    member = members(type(proxy)._class_name).get(name)
    if member is not None and member.kind == "property":
        setattr(proxy, name, value)
        return True
    proxy._live("write").setProperty(name, unwrap(value))
    return False


@behaves("QTimer", "singleShot")
def single_shot(_: None, milliseconds: int, target: Callable) -> None:
    if not callable(target):
        raise NotModelled("QTimer.singleShot with a receiver and the name of a slot")
    timer = QtCore.QTimer(singleShot=True, interval=int(milliseconds))
    _pending.append(timer)
    slot = make_slot(target, 0, wrap)

    def fire() -> None:
        _pending.remove(timer)
        slot()

    timer.timeout.connect(fire)
    timer.start()


def forget_pending() -> None:
    """Stop what waits in ``QTimer.singleShot``: it belongs to a test that is over."""
    for timer in _pending:
        timer.stop()
    _pending.clear()


@behaves("QObject", "deleteLater")
def delete_later(proxy: Wrapper) -> None:
    """When the work at hand is done. Slicer's event loop always runs; here a dialog's may be the first to run."""
    q = proxy._live("delete")
    if QtCore.QThread.currentThread().loopLevel():
        q.deleteLater()
    else:
        _dying.append(proxy)


def delete_now() -> None:
    """Delete what waits for it, unless a dialog is open: its event loop would not do it either."""
    if QtCore.QThread.currentThread().loopLevel():
        return
    while _dying:
        proxy = _dying.pop()
        if proxy:
            proxy._q.deleteLater()
    QtCore.QCoreApplication.sendPostedEvents(None, QtCore.QEvent.Type.DeferredDelete)


@behaves("QDesktopServices", "openUrl")
def open_url(_: None, url: Wrapper) -> bool:
    opened_urls.append(url._q.toString())
    return True

"""What every test shares: `--full`, how many examples hypothesis tries, real images, and the table of bars."""

import gc
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from FoundationSegLib.catalog.catalogue import CARDS_VARIABLE
from FoundationSegLib.folders import PACKAGES_VARIABLE
from FoundationSegLib.installation.packages import INSTALLATIONS_VARIABLE
from FoundationSegLib.monitoring import MONITORING_VARIABLE
from FoundationSegLib.mrml.scene_recovery import FOLDER_VARIABLE
from FoundationSegLib.requests.heads import HEADS_VARIABLE

# On a machine under load, making examples may be slow.
PATIENT = (HealthCheck.too_slow, HealthCheck.data_too_large)
settings.register_profile("reduced", max_examples=16, deadline=None, derandomize=True, suppress_health_check=PATIENT)
settings.register_profile("full", max_examples=1000, deadline=None, derandomize=True, suppress_health_check=PATIENT)

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="the full counts instead of the reduced ones")


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a job that a shell started in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput"):  # one of several processes: any test may come first
        import torch  # noqa: F401  (Triton's LLVM crashes where Mesa's, of off-screen windows, is loaded already)
    settings.load_profile("full" if config.getoption("--full") else "reduced")


# Long files of the folder that comes last: at the end the processes have short ones.
LONG_FILES = ("test_conformance.py", "test_lite_medsam.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep each file in one process, which makes what its tests share once.

    All tests with Qt stay in one process, and nothing of Slicer's views comes after them in it: it would crash.
    """
    models = ROOT / "Testing" / "models"
    items.sort(key=lambda item: (item.path.parent == models) * (1 + (item.path.name not in LONG_FILES)))
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            own = f"{item.path.parent.name}-{item.path.stem}"
            item.add_marker(pytest.mark.xdist_group("gui" if "gui" in item.path.parts else own))


def pytest_collection_finish() -> None:
    """No search for garbage goes through thousands of tests and the libraries: the product searches in earnest."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def nothing_of_the_developers_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests see the cards that come along and nothing of the user; a process that a test starts does so too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CARDS_VARIABLE, str(tmp_path_factory.mktemp("cards")))
        patch.setenv(FOLDER_VARIABLE, str(tmp_path_factory.mktemp("recovery")))
        patch.setenv(INSTALLATIONS_VARIABLE, str(tmp_path_factory.mktemp("installations")))
        patch.setenv(HEADS_VARIABLE, str(tmp_path_factory.mktemp("heads")))
        patch.setenv(MONITORING_VARIABLE, str(tmp_path_factory.mktemp("monitoring")))
        patch.delenv(PACKAGES_VARIABLE, raising=False)
        yield


@pytest.fixture
def only_in_the_full_run(full: bool) -> None:
    """For what takes too long for every run."""
    if not full:
        pytest.skip("takes long: run with --full")


@pytest.fixture(scope="session")
def opengl() -> None:
    """Windows can be opened off screen; where they cannot, a test that needs one skips."""
    from FoundationSegLib.errors import OutputError
    from FoundationSegLib.mrml.rendering.stage import open_window

    try:
        open_window(64, 64)
    except OutputError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Real images with ground truth, read in place beside the project; a test that lacks one skips."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"shared test data not present: {name}")
        return path

    return find


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    """True for the full counts."""
    return bool(request.config.getoption("--full"))


@pytest.fixture
def bar(request: pytest.FixtureRequest) -> Callable[[str, float, str], None]:
    """Note a measured value beside the bar it is held against, for the table at the end."""

    def note(name: str, value: float, wanted: str) -> None:
        request.node.user_properties.append(("bar", (name, float(value), wanted)))

    return note


@pytest.hookimpl(wrapper=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    yield
    reports = [report for group in terminalreporter.stats.values() for report in group]
    calls = [report for report in reports if getattr(report, "when", "") == "call"]
    rows = [value for report in calls for key, value in report.user_properties if key == "bar"]
    if not rows:
        return
    terminalreporter.section("bars")
    width = max(len(name) for name, _, _ in rows)
    for name, value, wanted in rows:
        terminalreporter.write_line(f"{name.ljust(width)}  {value:9.4f}  bar {wanted}")

"""What opening the module costs, in a process of its own: nothing of the library has been imported there before."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "transformers", "huggingface_hub", "timm", "monai", "open_clip", "requests"}
SCRIPT = """
import json, sys, tempfile, time
from pathlib import Path
from Testing.slicer_standin.user import SlicerUser
from Testing.gui.test_module import MODULE

sys.dont_write_bytecode, sys.pycache_prefix = False, sys.argv[1]  # of ours; what came before has its own
desk = SlicerUser(Path(tempfile.mkdtemp(dir=sys.argv[1])), main_window=False, testing=True)


def forget():
    for name in [name for name in sys.modules if name.split(".")[0] in ("FoundationSegLib", "FoundationSegPanel")]:
        del sys.modules[name]


forget()
desk.open_module(MODULE)  # compiles what is compiled once for an installation
desk.close_module("FoundationSeg")
forget()
before = set(sys.modules)
start = time.perf_counter()
desk.load_module(MODULE)
loaded = time.perf_counter()
at_import = sorted({name.split(".")[0] for name in set(sys.modules) - before})
burnt = time.process_time()
desk.open_module(MODULE, entered=False)
opened = time.perf_counter()
burnt = time.process_time() - burnt
problems = [str(one) for one in desk.take_problems()]
print(json.dumps([loaded - start, opened - loaded, burnt, at_import, sorted(sys.modules), problems]))
"""


@pytest.fixture(scope="module")
def opened(opengl, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bars")
    command = [sys.executable, "-c", SCRIPT, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_import_and_building(opened, bar):
    import_s, build_s, burnt_s, at_import, modules, problems = opened
    bar("import of the module, ms", import_s * 1000, "< 50")
    bar("building of the panel off screen, without a main window, ms", build_s * 1000, "< 200")
    bar("the same, of a processor's own time, ms", burnt_s * 1000, "< 200")
    assert problems == [] and not {"FoundationSegLib", "FoundationSegPanel"} & set(at_import)
    assert not HEAVY & set(at_import) and not HEAVY & {name.split(".")[0] for name in modules}

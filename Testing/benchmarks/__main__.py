"""`run.py bench [NAME]`: every claim of speed, against its yardstick in the same run. Above 1 means ours is faster."""

import argparse

from . import lite_medsam, segments

BENCHMARKS = {
    "encode": lite_medsam.encode,
    "prompt": lite_medsam.prompt,
    "organ": lite_medsam.organ,
    "write": segments.write,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="run.py bench", description=__doc__)
    parser.add_argument("name", nargs="?", choices=BENCHMARKS, help="only this one")
    name = parser.parse_args().name
    for benchmark in [BENCHMARKS[name]] if name else BENCHMARKS.values():
        for c in benchmark():
            theirs = f"{c.yardstick}: {c.yardstick_s * 1000:.1f} ms; {c.yardstick_s / c.ours_s:.2f} x"
            print(f"{c.what}: {c.ours_s * 1000:.1f} ms; {theirs}{c.note}")


if __name__ == "__main__":
    main()

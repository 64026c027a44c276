"""Choose the temperature and the share of rebalancing of a trained network, and ship it where it is better.

    choose_default.py MODEL PHOTOS... [-o OUT] [--ship [NAME]] [--count N]

Half of the held-out photographs choose; on the other half the outcome is measured beside the shipped default. It is
written to OUT, and with --ship also becomes model/pretrained/NAME.safetensors, by default that of the default itself,
but only if it meets the targets and either there is none of that name, or that one does not, or its rebalanced AuC is
higher beyond doubt (see `model.tuning`).
"""

import argparse
import contextlib
import json
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import torch

from jobs.chosen import Chosen, bootstrap_units
from model.baselines import all_grey
from model.cache import cache_folder
from model.data import open_photos
from model.engines import open_engine
from model.evaluate import Replicates, compare, intervals
from model.measures import ClassWeights, Interval
from model.registry import PRETRAINED, known
from model.sources import SourceConfig
from model.tuning import SETTINGS, Setting, better, choose, halves, repack, score_of, sweep
from model.weights import Model, load_model
from pipeline.errors import ReelcolorError

MOST_BYTES = 16_000_000
SHOWN = ("auc", "auc_rebalanced", "psnr", "delta_e", "colourfulness", "chroma")


def plus_minus(measured: Interval) -> str:
    if measured.low is None or measured.high is None:
        return f"{measured.value:.2f}"
    return f"{measured.value:.2f} ±{(measured.high - measured.low) / 2:.2f}"


def table(found: dict[str, Replicates]) -> str:
    lines = ["| | " + " | ".join(SHOWN) + " | rebalanced from gray |", "|---" * (len(SHOWN) + 2) + "|"]
    for name, values in found.items():
        measured = intervals(values)
        cells = [plus_minus(measured[key]) if key in measured else "" for key in SHOWN]
        apart = intervals(values, found["gray"])["auc_rebalanced"] if "auc_rebalanced" in values else None
        lines.append(f"| {name} | {' | '.join(cells)} | {plus_minus(apart) if apart else ''} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("photos", nargs="+")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/default-tuned.safetensors"), metavar="OUT")
    parser.add_argument(
        "--ship", nargs="?", const="default", metavar="NAME", help="replace the shipped model where this one is better"
    )
    parser.add_argument("--count", type=int, help="photographs of each half, at most")
    args = parser.parse_args()
    torch.set_num_threads(2)
    cv2.setNumThreads(1)
    photos = open_photos([SourceConfig(path) for path in args.photos], cache_folder() / "photos")
    shuffled = np.random.default_rng(0).permutation(photos.split()[1])
    chooses, reports = (Chosen(photos, half[: args.count]) for half in halves(photos, shuffled))
    shipped, trained = load_model("default"), load_model(args.model)
    if "objective" not in json.loads(trained.metadata["training"]).get("recipe", {}) or not len(trained.bins):
        sys.exit(f"{args.model}: expected a classifying network by this trainer; train one with scripts/train_default")
    weights = ClassWeights(shipped.bins.centers, shipped.prior)
    setting = chosen(trained, chooses, weights)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    repack(trained, setting, args.output, {})
    others = {name: load_model(name) for name in ("default", args.ship) if name in known()}
    with contextlib.ExitStack() as engines:
        models = {**others, "candidate": load_model(str(args.output))}
        opened = {name: engines.enter_context(open_engine(model)) for name, model in models.items()}
        ways = {"truth": None, "gray": all_grey, **opened}
        found = compare(ways, reports, weights, area=192**2, units=bootstrap_units(reports)[0])
    print(f"\nmeasured on {len(reports)} other held-out photographs:\n\n{table(found)}\n")
    measures = {name: round(float(values[0]), 3) for name, values in found["candidate"].items()}
    repack(trained, setting, args.output, {"pictures": len(reports), "area": 192**2, **measures})
    ship(args.output, found, args.ship)


def chosen(model: Model, pictures: Chosen, weights: ClassWeights) -> Setting:
    scores = sweep(model, SETTINGS, pictures, weights)
    print(
        "| T | taken back | raw AuC from gray | rebalanced AuC from gray | colourfulness/truth |\n|---|---|---|---|---|"
    )
    for at, score in scores.items():
        measured = f"{score.raw:+.2f} | {score.rebalanced:+.2f} | {score.colourful:.3f}"
        print(f"| {at.temperature:g} | {at.taken_back:g} | {measured} |")
    setting = choose(scores)
    print(f"\nchosen on {len(pictures)} photographs: T = {setting.temperature:g}, taken back {setting.taken_back:g}")
    return setting


def ship(tuned: Path, found: dict[str, Replicates], name: str | None) -> None:
    if (name or "default") in found:
        wins, ahead = better(found["candidate"], found[name or "default"], found["gray"], found["truth"])
        print(f"{'better' if wins else 'not better'} than what is shipped: rebalanced AuC {plus_minus(ahead)} from its")
    else:
        wins = score_of(found["candidate"], found["gray"], found["truth"]).holds()
        print(f"{'fit' if wins else 'not fit'} to be shipped; there is no {name} yet")
    if tuned.stat().st_size > MOST_BYTES:
        sys.exit(f"{tuned} has {tuned.stat().st_size} bytes, expected at most {MOST_BYTES}; give it fewer weights")
    if wins and name:
        shutil.copyfile(tuned, PRETRAINED / f"{name}.safetensors")
        print(f"shipped; its card, {PRETRAINED / name}.md, and the figures of BENCHMARKS.md are to follow")


if __name__ == "__main__":
    try:
        main()
    except ReelcolorError as e:
        sys.exit(str(e))

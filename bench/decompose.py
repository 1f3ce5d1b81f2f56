"""Low-rank decomposition, whitened and plain, before and after the re-fit: the tables of docs/decompose.md.

usage: python bench/decompose.py [resnet20] [resnet56] [nin] [--images 500] [--threads 1]
"""

from __future__ import annotations

import argparse

from pruning import HEAD, IMAGENET, Case

NETWORKS = {"resnet20": "resnet20_cifar10", "resnet56": "resnet56_cifar10", "nin": "nin_cifar10"}
REFIT = " recover-lsq{joint=0}"


def main() -> None:
    """Print a table per network."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", help=", ".join(NETWORKS))
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    for network in given.networks or NETWORKS:
        case = Case.of(NETWORKS[network], "cifar10", IMAGENET, given.images, given.threads)
        passes = ("decompose-channel", "decompose-svd") if network == "nin" else ("decompose-channel",)
        print(f"\n## {network}, {given.images} images\n\n{HEAD}", flush=True)
        for share in ("65%", "50%"):
            for name in passes:
                for choice, label in (("yes", "whitened"), ("no", "plain")):
                    text = f"{name}{{macs={share} whitened={choice}}}"
                    case.row(f"`{name}`, {label}", text)
                    case.row(f"`{name}`, {label}, re-fitted", text + REFIT)
            case.row("`prune-channels`, re-fitted", f"prune-channels{{macs={share}}}{REFIT}")


if __name__ == "__main__":
    main()

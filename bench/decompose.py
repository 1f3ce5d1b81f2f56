"""Low-rank decomposition, whitened and plain, before and after the re-fit: the tables of docs/decompose.md.

usage: python bench/decompose.py [resnet20] [resnet56] [nin] [--images 500] [--threads 1]
"""

from __future__ import annotations

import argparse

from pruning import HEAD, IMAGENET, Case

NETWORKS = {"resnet20": "resnet20_cifar10", "resnet56": "resnet56_cifar10", "nin": "nin_cifar10"}
FORMS = ("channel", "spatial", "tucker", "depthwise")


def main() -> None:
    """Print a table per network."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", help=", ".join(NETWORKS))
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--macs", nargs="+", default=["65%", "50%"])
    parser.add_argument("--forms", nargs="+", default=FORMS)
    parser.add_argument("--refit", default=" recover-lsq")
    given = parser.parse_args()
    for network in given.networks or NETWORKS:
        case = Case.of(NETWORKS[network], "cifar10", IMAGENET, given.images, given.threads)
        print(f"\n## {network}, {given.images} images\n\n{HEAD}", flush=True)
        for share in given.macs:
            for form in given.forms:
                for choice, label in (("yes", "whitened"), ("no", "plain")):
                    text = f"decompose-{form}{{macs={share} whitened={choice}}}"
                    case.row(f"{form}, {label}", text)
                    case.row(f"{form}, {label}, re-fitted", text + given.refit)
            case.row("prune-channels, re-fitted", f"prune-channels{{macs={share}}}{given.refit}")


if __name__ == "__main__":
    main()

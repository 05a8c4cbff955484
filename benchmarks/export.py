"""Write a workload's network, with its first weights, as ONNX; needs PyTorch.

python benchmarks/export.py lenet lenet.onnx --opset 17
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from benchmarks.workloads import WORKLOADS  # noqa: E402  (after the path is set)


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload", choices=list(WORKLOADS))
    parser.add_argument("path")
    parser.add_argument("--opset", type=int, default=17)
    args = parser.parse_args()
    from benchmarks.engines.torch_engine import export

    export(WORKLOADS[args.workload], args.path, args.opset)


if __name__ == "__main__":
    main()

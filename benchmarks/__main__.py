"""`python -m benchmarks NAME [--smoke] [--out FILE.json]`: measures, prints a table, writes JSON."""

import argparse
import sys
from importlib import import_module
from pathlib import Path

from rich.console import Console

RESULTS = Path(__file__).parent / "results"
TABLE_WIDTH = 150  # a narrower terminal wraps lines; it does not lose columns
NAMES = {
    "chain": "the MPS layer against a plain loop and the peers: time, memory, share of the GEMM peak",
    "compress": "what a smaller bond dimension costs a trained classifier, truncated and fine-tuned",
    "density": "Born machines: a step beside a plain loop; binarised MNIST by gradients and by sweeps",
    "dmrg": "training by sweeps: time against sizes, share of matrix products, MNIST against Adam",
    "double_descent": "test error of least squares against bond dimension, on data from a random MPS",
    "explain": "exact Shapley values on MNIST: errors, times, beside sampled ones; insertion and deletion",
    "imports": "what `import tnml` and `tnml --help` add to `import torch`",
    "missing": "accuracy on MNIST with missing pixels: exact averages, imputation, training with dropout",
    "mnist": "accuracy and seconds of the recipes behind `tnml train mnist`, several seeds",
    "networks": "rings, uniform chains, trees, patches and convolutions beside other libraries' methods",
    "overfitting": "the studies of overfitting against bond dimension, run or continued, and what they say",
    "own_pdes": "equations of one's own with the defaults and a minute: value, interval, doubts in words",
    "pde": "equations in many dimensions: speed, accuracy, schemes, tensor networks against dense ones, cost",
    "replicas": "equal layers trained together against one by one: equal losses, steps per second",
    "small": "fits of small tables by native steps and by autograd, equal answers, two peers",
    "streams": "training on a file that does not fit in memory: peak memory, time of a step",
    "tables": "the estimators on 83 tables of labels and numbers, beside scikit-learn's: scores, ranks, time",
    "tnn": "networks of tensor-train layers on Fashion-MNIST against dense ones, and the effect of depth",
    "tt_compress": "what `tnml.nn.compress` costs a trained MLP, compared with truncated SVD",
    "tt_linear": "the tensor-train layer against the dense one and two other libraries: time, memory",
    "uncertainty": "coverage of conformal sets, calibration before and after, ensembles of five against one",
}


def main(arguments: list[str] | None = None) -> int:
    """The exit status; 1 where a measurement could not be made. A missed bar is a result, not an error."""
    listing = "\n".join(f"  {name:14} {text}" for name, text in NAMES.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=f"names:\n{listing}\n\n`NAME --help` shows the options of that benchmark.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    parser.add_argument("name", choices=sorted(NAMES), metavar="NAME")
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help"):
        parser.print_help()
        return 0
    name = parser.parse_args(words[:1]).name
    module = import_module(f"benchmarks.{name}")

    own = argparse.ArgumentParser(prog=f"python -m benchmarks {name}", description=NAMES[name])
    own.add_argument("--smoke", action="store_true", help="tiny sizes, a few seconds; checks that it works")
    own.add_argument(
        "--out", type=Path, help="where the JSON goes (default: benchmarks/results/, not with --smoke)"
    )
    module.add_arguments(own)
    options = own.parse_args(words[1:])
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    result = module.measure(options, console)
    module.show(result, console)
    out = options.out or (None if options.smoke else RESULTS / f"{name}.json")
    if out is not None:
        import_module("benchmarks.machine").write_json(out, result)
        console.print(f"written: {out.name}")
    return 1 if result["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())

"""Options that several commands share, spelled the same everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., object]")

model = click.argument("model", type=click.Path())

loss = click.option(
    "--loss",
    "loss_text",
    default="cross_entropy",
    show_default=True,
    metavar="LOSS",
    help="cross_entropy, nll, mse, l1, huber, bce_with_logits, with options as in "
    "cross_entropy:label_smoothing=0.1, or the name of a scalar output of the model.",
)
labels = click.option(
    "--labels",
    metavar="NAME",
    help="What the loss calls the labels (or targets); default: labels or target.",
)
optimizer = click.option(
    "--optimizer",
    "optimizer_text",
    default="adam",
    show_default=True,
    metavar="OPT",
    help="sgd, adam or adamw, with options as in sgd:momentum=0.9,nesterov=true or adam:betas=0.9/0.98.",
)
lr = click.option(
    "--lr", type=float, metavar="X", help="Learning rate; default: 0.001 for adam and adamw."
)
clip_norm = click.option(
    "--clip-norm",
    type=float,
    metavar="X",
    help="Scale all gradients together to at most this norm.",
)
trainable = click.option(
    "--trainable",
    multiple=True,
    metavar="GLOB",
    help="Which parameters train, as in 'head.*' or '!bn*'; may be given several times, the last that fits decides. "
    "The others are frozen: no gradient, no memory. Default: all.",
)
mode = click.option(
    "--mode",
    "modes",
    multiple=True,
    metavar="[GLOB=]MODE",
    help="How dropout and batch normalisation behave in the training step: train, eval (no dropout; normalise by the "
    "running statistics and leave them alone, as suits a frozen layer) or as-exported. 'encoder.*=eval' is for layers "
    "by name, of the node or of a parameter; may be given several times. Default: train.",
)
precision = click.option(
    "--precision",
    "precisions",
    multiple=True,
    metavar="[GLOB=]PRECISION",
    help="bf16: products and convolutions read bf16 and add in f32, and activations are kept in bf16; weights, their gradients, "
    "optimiser states, statistics and losses stay f32. 'head*=f32' excepts layers by name, of the node or of a weight; may be "
    "given several times, the last that fits decides. Default: f32.",
)
replace_head = click.option(
    "--replace-head",
    "classes",
    type=click.IntRange(min=1, max=1 << 20),
    metavar="N",
    help="Give the model a new last layer of N classes before anything else; names and the rest of the file stay.",
)
changes = (trainable, mode, replace_head)
"""What is changed of a model before it is trained on."""
dims = click.option(
    "--dims", multiple=True, metavar="N=64", help="Bind named dimensions of the model."
)
data = click.option(
    "--data",
    "data_text",
    required=True,
    metavar="D",
    help=".npz, .npy (x=a.npy,labels=b.npy), IDX files, CSV, a folder of classes with pictures, "
    "or mnist5k:train; 'd.npz[:5000]' for some of the samples.",
)
rename = click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NEW=OLD",
    help="Call the array OLD of the data NEW, as in x=image.",
)
transform = click.option(
    "--transform",
    "transforms",
    multiple=True,
    metavar="X=EXPR",
    help='Arithmetic on an array, as in "x=(x-127.5)/127.5"; for pictures also pad(x, 2), resize(x, 32, 32) and '
    "channels(x, 3).",
)
batch_size = click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    metavar="B",
    help="Samples in a batch.",
)
threads = click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="T",
    help="Threads to run with; default: TAPEOUT_THREADS or all cores. Results do not depend on it.",
)
target = click.option(
    "--target",
    default="native",
    show_default=True,
    metavar="CLASS",
    help="What to generate code for: native (the best that this machine runs), avx512-bf16, avx512, avx2, generic, or the least "
    "processor of a level, x86-64-v3 or x86-64-v4.",
)
seed = click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="S",
    help="Seed of the order of samples and of random operations.",
)
as_json = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as JSON, lines for people to stderr."
)


def together(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Return a decorator that adds several options, listed by --help in this order."""

    def add(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return add

"""The data sets tnml knows by name: their files, checksums, mirrors and origin."""

from dataclasses import dataclass

from tnml.errors import InputError, choose


@dataclass(frozen=True)
class RemoteFile:
    """One file to download: its name, its size in bytes and its sha256.

    Example:
        >>> SHIPPED["mnist"].files[1].size
        28881
    """

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ShippedSet:
    """A set of grey images in four IDX files, and where it comes from.

    Attributes:
        files: image and label files of the train part, then of the test part.
        counts: number of samples of each part.
        image_shape: (height, width).
        origin: authors and publication.
        licence: as stated by its authors or by convention.

    Example:
        >>> SHIPPED["fashion-mnist"].counts
        {'train': 60000, 'test': 10000}
    """

    files: tuple[RemoteFile, ...]
    counts: dict[str, int]
    image_shape: tuple[int, int]
    origin: str
    licence: str


MNIST = ShippedSet(
    files=(
        RemoteFile(
            "train-images-idx3-ubyte.gz",
            9912422,
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        RemoteFile(
            "train-labels-idx1-ubyte.gz",
            28881,
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        ),
        RemoteFile(
            "t10k-images-idx3-ubyte.gz",
            1648877,
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
        RemoteFile(
            "t10k-labels-idx1-ubyte.gz",
            4542,
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    ),
    counts={"train": 60000, "test": 10000},
    image_shape=(28, 28),
    origin="MNIST: LeCun, Bottou, Bengio, Haffner, Proceedings of the IEEE 86 (1998) 2278",
    licence="none stated; commonly CC BY-SA 3.0",
)

FASHION_MNIST = ShippedSet(
    files=(
        RemoteFile(
            "train-images-idx3-ubyte.gz",
            26421880,
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        ),
        RemoteFile(
            "train-labels-idx1-ubyte.gz",
            29515,
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        ),
        RemoteFile(
            "t10k-images-idx3-ubyte.gz",
            4422102,
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        ),
        RemoteFile(
            "t10k-labels-idx1-ubyte.gz",
            5148,
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    ),
    counts={"train": 60000, "test": 10000},
    image_shape=(28, 28),
    origin="Fashion-MNIST: Xiao, Rasul, Vollgraf, arXiv:1708.07747 (2017)",
    licence="MIT",
)

SHIPPED: dict[str, ShippedSet] = {"mnist": MNIST, "fashion-mnist": FASHION_MNIST}

# base addresses tried in this order; a file's name is appended
MIRRORS: dict[str, tuple[str, ...]] = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    "fashion-mnist": (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
}


def shipped_set(name: str) -> ShippedSet:
    """The record of a downloadable set.

    Raises:
        InputError: there is no such set, or it needs no download.

    Example:
        >>> shipped_set("mnist").image_shape
        (28, 28)
    """
    if name == "digits":
        raise InputError("digits come with scikit-learn; there is nothing to download: use it as it is")
    return choose("data set to download", name, SHIPPED)

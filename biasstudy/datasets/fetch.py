"""Downloads of the real data sets, by the libraries that know them: mirrors, checksums and progress are theirs."""

from ..store import data_folder


def mnist() -> str:
    """The four MNIST files, through torchvision (its mirror list, its md5 sums), then checked against our sha256 sums."""
    from torchvision.datasets import MNIST

    from .colorized_mnist import check_files
    MNIST(str(data_folder()), train=True, download=True)
    check_files(data_folder() / "MNIST" / "raw")
    return "MNIST: 60,000 + 10,000 digits"


def cifar100() -> str:
    """The files of CIFAR-100, through torchvision (its archive, its md5 sums), then checked one by one."""
    from torchvision.datasets import CIFAR100

    from .cifar import check_files
    CIFAR100(str(data_folder()), train=True, download=True)
    check_files(data_folder() / "cifar-100-python")
    return "CIFAR-100: 50,000 + 10,000 photographs"


FETCHERS = {"mnist": mnist, "cifar100": cifar100}


def fetch(name: str) -> None:
    """Download a data set into the data folder and check it.

    raises   ValueError   for an unknown name; OSError with one sentence if no mirror answers
    """
    if name not in FETCHERS:
        raise ValueError(f"unknown data set {name!r}; known: {', '.join(FETCHERS)}")
    try:
        print(f"{FETCHERS[name]()} in {data_folder()}")
    except RuntimeError as error:  # torchvision's word for: every mirror failed, or a checksum did
        reason = " ".join(str(error).split()).rstrip(".")
        raise OSError(f"could not download {name}: {reason}; put its files into {data_folder()} by hand") from error

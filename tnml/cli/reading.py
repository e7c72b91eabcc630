"""Data sets for runs and for models, read and prepared like the training data."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tnml.cli.console import complain, say
from tnml.cli.options import RunOptions
from tnml.cli.saved import SavedModel
from tnml.data import Dataset, available, fetch, load
from tnml.data.dataset import PIXELS, Scale
from tnml.data.shipped import SHIPPED
from tnml.data.tables import Table, is_table, read_table, shortened
from tnml.errors import InputError


def read_data(
    name: str,
    *,
    split: str,
    pool: int = 1,
    resize: tuple[int, int] | None = None,
    scale: Scale = "auto",
    download: bool = True,
    real_targets: bool = False,
    option: str = "--scale",
) -> Dataset:
    """The data set from `tnml.data.load`; errors about scaling name the option of the command line.

    Raises:
        InputError: as in `load`.

    Example:
        >>> read_data("digits", split="test", pool=2).image_shape
        (4, 4)
    """
    with scaling_advice(option):
        if download and name in {record.name for record in available() if not record.present}:
            fetch(name, report=say)  # may take minutes, so report it
        return load(
            name,
            split=split,
            pool=pool,
            resize=resize,
            scale=scale,
            download=download,
            real_targets=real_targets,
        )


def read_parts(options: RunOptions, *, real_targets: bool) -> tuple[Dataset, Dataset]:
    """Training and test part of the data of a run.

    Raises:
        InputError: they cannot be read, or an option does not apply to data of their kind.

    Example:
        >>> [len(part) for part in read_parts(RunOptions(dataset="digits"), real_targets=False)]
        [1346, 451]
    """
    data = options.data
    if not is_table(options.dataset):
        _refuse_columns(options)
        train, test = (read_part(options, split, real_targets=real_targets) for split in ("train", "test"))
        return train, test
    if data.pool != 1 or data.resize is not None:
        raise InputError(f"{options.dataset} is a table; --data.pool and --data.resize are for images")
    table = read_table(options.dataset)  # once for both parts
    if options.target is None:
        raise InputError(
            f"{table.source} is a table; name the column to predict with --target, one of: "
            f"{shortened(table.names)}"
        )
    train, test = (
        table.dataset(
            split, target=options.target, drop=data.dropped, scale=data.scale, real_targets=real_targets
        )
        for split in ("train", "test")
    )
    return train, test


def read_part(options: RunOptions, split: str, *, real_targets: bool) -> Dataset:
    """One part of data that are not a table, read as the options of a run say.

    Example:
        >>> len(read_part(RunOptions(dataset="digits"), "all", real_targets=True))
        1797
    """
    data = options.data
    return read_data(
        options.dataset,
        split=split,
        pool=data.pool,
        resize=data.resize,
        scale=data.scale,
        download=data.download,
        real_targets=real_targets,
        option="--data.scale",
    )


def _refuse_columns(options: RunOptions) -> None:
    """Raises if an option names columns of data that are not a table."""
    if options.target is not None or options.data.drop:
        option = "--data.drop" if options.target is None else f"--target {options.target}"
        raise InputError(
            f"{option} names columns of a table, a .csv or .parquet file; {options.dataset} has its own "
            "targets, so leave it out"
        )


def data_for(
    model: SavedModel, name: str | None, split: str, scale: Scale | None, target: str | None = None
) -> Dataset:
    """A data set read as the model's training data were: same columns or pooling, size and scaling.

    Args:
        model: its file says how to read the data.
        name: of the data set; None takes the one that the model was trained on.
        split: "train", "test" or "all".
        scale: used instead of the stored one.
        target: column of a table, used instead of the stored one.

    Raises:
        InputError: the data cannot be read, or their number of values differs from the number of sites.
    """
    name = name or model.data.get("name")
    if name is None:
        raise InputError(f"{model.path} does not say what it was trained on; name the data")
    if is_table(name):
        return _table_for(model, name, split, scale, target)
    if target is not None:
        raise InputError(f"--target names a column of a table, and {name} is not a table; leave it out")
    if model.scales_itself:
        raise InputError(
            f"{model.path} was trained on a table; give a .csv or .parquet file with its columns"
            if model.names is not None
            else f"{model.path} was fitted in Python and scales values itself, but data sets are in [0, 1]; "
            "use model.score(X, y) in Python"
        )
    known = name in ("digits", *SHIPPED)
    data = read_data(
        name,
        split=split,
        pool=model.data.get("pool", 1),
        resize=pair(model.data.get("resize")),
        scale="auto" if known and scale is None else chosen_scale(model, scale),
        real_targets=model.real_targets,
    )
    if data.x.shape[1] != model.layer.n_sites:
        raise InputError(
            f"{data.name} has {data.x.shape[1]} values in each sample, but {model.path} has "
            f"{model.layer.n_sites} sites; give data like those the model was trained on"
        )
    return data


def _table_for(model: SavedModel, name: str, split: str, scale: Scale | None, target: str | None) -> Dataset:
    """The columns of a table that the model was trained on, found by name and scaled as in training."""
    if model.names is None:
        raise InputError(
            f"{model.path} has no column names, so it was not trained on a table; give arrays, such as .npz"
        )
    if scale is not None:
        raise InputError(f"{model.path} scales the columns of a table itself; leave --scale out")
    table = read_table(name)
    target = target or model.data.get("target")
    if target is None:
        raise InputError(
            f"{model.path} does not say which column is the target; choose one with --target: "
            f"{shortened(table.names)}"
        )
    data = table.dataset(
        split,
        target=target,
        columns=model.names,
        scale=(0, 1) if model.limits is None else model.limits,
        real_targets=model.real_targets,
    )
    note_unused(table, [*model.names, target, *model.data.get("drop", ())])
    return data


def note_unused(table: Table, used: list[str]) -> None:
    r"""Reports which columns of a table are not used.

    Example:
        >>> import contextlib, io, pathlib
        >>> with contextlib.redirect_stderr(io.StringIO()) as stream:
        ...     note_unused(Table(source=pathlib.Path("t.csv"), columns={"a": None, "id": None}), ["a"])
        >>> stream.getvalue()
        'note: column id of t.csv is not used\n'
    """
    spare = [name for name in table.names if name not in used]
    if spare:
        several = len(spare) > 1
        complain(
            f"column{'s' if several else ''} {shortened(spare)} of {table.source} "
            f"{'are' if several else 'is'} not used",
            title="note",
        )


@contextmanager
def scaling_advice(option: str = "--scale") -> Iterator[None]:
    """Rewords errors about values outside [0, 1], so that they name the option of the command line.

    Example:
        >>> with scaling_advice():
        ...     raise InputError("x must lie in [0, 1], got 16; pass scale=(low, high)")
        Traceback (most recent call last):
        tnml.errors.InputError: x must lie in [0, 1], got 16; give their range, as in --scale [0,255]
    """
    try:
        yield
    except InputError as error:
        fact, _, advice = str(error).partition("; ")
        if "scale=(low, high)" not in advice:
            raise
        raise InputError(f"{fact}; give their range, as in {option} [0,255]") from error


def chosen_scale(model: SavedModel, asked: Scale | None) -> Scale:
    """The given scaling, or that of the model's training data."""
    stored = asked if asked is not None else model.data.get("scale", "auto")
    if stored == "auto" and f"; {PIXELS}" in model.data.get("provenance", ""):
        return "pixels"
    return stored if isinstance(stored, str) else (float(stored[0]), float(stored[1]))


def pair(values: Any) -> tuple[int, int] | None:
    """Two numbers from a JSON list, or None.

    Example:
        >>> pair([2, 3])
        (2, 3)
    """
    return None if values is None else (int(values[0]), int(values[1]))

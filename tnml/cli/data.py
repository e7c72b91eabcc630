"""`tnml data`: the data sets known by name."""

from collections.abc import Sequence

from tnml.cli.console import say, table
from tnml.cli.parsing import new_parser, parse
from tnml.data import available, fetch
from tnml.errors import InputError, choose

EXAMPLES = ("tnml data list", "tnml data fetch mnist")


def run(words: Sequence[str]) -> int:
    """The exit code of `tnml data` with these arguments.

    Raises:
        InputError: a name is unknown, or a download failed.
    """
    parser = new_parser(
        "tnml data list|fetch [NAME] [options]",
        "Lists the data sets known by name, or downloads one.",
        EXAMPLES,
    )
    parser.add_argument("action", help="list or fetch")
    parser.add_argument("name", nargs="?", help="name of the data set to fetch")
    parser.add_argument(
        "--cache", type=str, metavar="FOLDER", help="folder for downloads; null: the user's cache"
    )
    asked = parse(parser, words)
    if choose("action", asked.action, {"list": False, "fetch": True}):
        return _fetch(asked.name, asked.cache)
    rows = [
        [r.name, "yes" if r.present else "no", str(r.n_train), str(r.n_test), r.where]
        for r in available(asked.cache)
    ]
    lines = table(["name", "here", "train", "test"], [row[:4] for row in rows]).splitlines()
    say(
        "\n".join(
            f"{line}  {where}"
            for line, where in zip(lines, ["where", *(row[4] for row in rows)], strict=True)
        )
    )
    return 0


def _fetch(name: str | None, cache: str | None) -> int:
    names = {record.name: record for record in available(cache)}
    if name is None:
        raise InputError(f"`tnml data fetch` needs a name; choose from: {', '.join(names)}")
    record = choose("data set", name, names)
    if record.present:
        say(f"{name} is here: {record.where}")
    else:
        say(f"{name} is in {fetch(name, cache=cache, report=say)}")
    return 0

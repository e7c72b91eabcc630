"""Code and documentation avoid unidiomatic phrases, most of them literal translations."""

import re
from pathlib import Path

import pytest

# Each pattern with what to write instead. A phrase may continue on the next line.
PHRASES = {
    r"leav(?:e|es|ing) (?:it|them|-{0,2}\w+(?:\.\w+)*|the \w+) away": "leave it out",
    r"by custom": "by convention",
    r"(?:go|goes|went) before (?:all|the|them|these|it)": "take precedence over",
    r"(?:start|starts|started|starting) anew": "start a new run, or start again",
    r"(?:whoever|who) is told(?! apart)": "the reporter",
    r"is silence": "reports nothing",
    r"is no matter": "does not matter",
    r"as good as a ctrl": "has the same effect as Ctrl-C",
    r"(?:after|every|on|than|train|training|with) so many(?! that)": "that many",
    r"is no loss": "is not a loss",
    r"what a person sees": "progress output",
}
PATTERNS = {
    re.compile(rf"\b(?:{phrase})\b".replace(" ", r"\s+")): better for phrase, better in PHRASES.items()
}
COMMENT = re.compile(r"\n[ \t]*(?:#|>)[ \t]+")  # the next line of a comment, where a phrase may continue


def found_in(text: str) -> list[str]:
    """Line number, phrase and replacement of every hit."""
    flat = COMMENT.sub(lambda mark: "\n" + " " * (len(mark[0]) - 1), text.lower())
    return [
        f"{flat.count(chr(10), 0, hit.start()) + 1}: {' '.join(hit[0].split())!r}; write {better!r}"
        for pattern, better in PATTERNS.items()
        for hit in pattern.finditer(flat)
    ]


def test_texts_are_plain_english(project_files: list[Path], project_root: Path) -> None:
    found = []
    for path in project_files:
        if path.suffix not in {".py", ".md"} or path.name == Path(__file__).name:
            continue
        text = path.read_text(encoding="utf-8")
        found += [f"{path.relative_to(project_root)}:{hit}" for hit in found_in(text)]
    assert not found, "\n".join(found)


SAMPLES = [
    "use a file; leave --out away",
    "leave --train.lr away",
    "leave\n    it away",
    "# leave\n    # the name away",
    "where to; by custom it ends in .pt",
    "the file goes before them",
    "Options, which go before these.",
    "use the same or start anew",
    "Starts whoever is told about the run.",
    "reporter: who is told",
    "None is silence",
    "where it starts is no matter",
    "a kill is as good as a Ctrl-C",
    "then train so many epochs",
    "also after every so many epochs",
    "it is no loss, or no name of one",
    "What a person sees of a run",
]


@pytest.mark.parametrize("sample", SAMPLES)
def test_the_search_notices(sample: str) -> None:
    assert found_in(sample)


def test_every_phrase_has_a_sample() -> None:
    assert not [p.pattern for p in PATTERNS if not any(p.search(sample.lower()) for sample in SAMPLES)]


@pytest.mark.parametrize(
    "plain",
    [
        "away from it local tensors are smaller",
        "samples are drawn anew at every step",
        "a file goes before a test sees it",
        "there are so many that none fits",
        "who is told apart by name",
        "at most so many samples",
        "the rates for so many threads",
        "it is no lossy format",
    ],
)
def test_the_search_leaves_plain_words(plain: str) -> None:
    assert not found_in(plain)

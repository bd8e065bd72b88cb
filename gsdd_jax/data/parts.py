"""Parts of a data set (training, test, ...) by the names of folders and in lists."""

import re
from collections.abc import Mapping
from typing import NamedTuple

TRAIN, TEST, VALIDATION, UNLABELED = "train", "test", "validation", "unlabeled"
_WORDS = {
    TRAIN: ("train", "training", "trainset", "trainval"),
    TEST: ("test", "testing", "testset", "eval", "evaluation"),
    VALIDATION: ("val", "valid", "validation", "valset", "dev"),
    UNLABELED: ("unlabeled", "unlabelled", "pred", "predict", "prediction", "background"),
}
_PART = {word: part for part, words in _WORDS.items() for word in words}
_FILLERS = {"set", "data", "dataset", "split", "image", "images", "img", "imgs", "pictures"}


class Chosen(NamedTuple):
    train: str
    test: str | None
    left_out: list[str]


def of(name: str) -> str | None:
    """Returns the part that a name stands for; None if it stands for none or several."""
    found = {_PART[word] for word in _words(name) if word in _PART}
    return found.pop() if len(found) == 1 else None


def are_parts(folders: Mapping[str, bool]) -> bool:
    """Returns whether sibling folders are parts of a data set instead of classes.

    `folders` maps names to whether pictures lie directly inside. Folders are parts if all names
    are parts' and either two or more parts occur or no pictures lie directly inside. They also
    are if two or more parts occur among plain names and folders without direct pictures. A
    single class of trains, or one named "test strip", is a class.
    """
    found = {of(name) for name in folders}
    if folders and None not in found and (len(found) > 1 or not any(folders.values())):
        return True
    sure = {of(name) for name, direct in folders.items() if not direct or _is_plain(name)}
    return len(sure & {TRAIN, TEST, VALIDATION}) > 1


def choose(names: list[str]) -> Chosen | None:
    """Returns names to train and test on; None if ambiguous. Validation only replaces a missing
    test part."""
    by_part = {part: [name for name in names if of(name) == part] for part in _WORDS}
    test = by_part[TEST] or by_part[VALIDATION]
    if len(by_part[TRAIN]) != 1 or len(test) > 1:
        return None
    used = [*by_part[TRAIN], *test]
    return Chosen(used[0], test[0] if test else None, [n for n in names if n not in used])


def _words(name: str) -> list[str]:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return [word.lower() for word in re.findall(r"[^\W\d_]+", spaced)]


def _is_plain(name: str) -> bool:
    return all(word in _PART or word in _FILLERS for word in _words(name))

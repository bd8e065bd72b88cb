"""Finds duplicate pictures: under two labels, or in both the training and the test split."""

import hashlib
from typing import NamedTuple

from gsdd_jax.core.errors import counted
from gsdd_jax.data.items import Item, some


class _First(NamedTuple):
    split: str
    label: str
    name: str


class Twice:
    """Finds pictures with equal stored pixels, given all of "train", then all of "test"."""

    def __init__(self, noun: str = "picture"):
        self.noun = noun
        self._first: dict[bytes, _First] = {}
        self._labels: list[str] = []  # pairs with two labels
        self._splits: list[str] = []  # pairs of a test and a training picture

    def add(self, stored: bytes, split: str, item: Item) -> None:
        digest = hashlib.blake2b(stored, digest_size=16).digest()
        first = self._first.setdefault(digest, _First(split, item.label, item.name))
        pair = f"{first.name} = {item.name}"
        if first.label != item.label:
            self._labels.append(f"{pair} ({first.label}, {item.label})")
        if first.split != split:
            self._splits.append(pair)

    def notes(self) -> list[str]:
        notes = []
        if self._labels:
            notes.append(
                f"warning: {counted(len(self._labels), self.noun)} there under another label, too: "
                f"{some(self._labels)}"
            )
        if self._splits:
            several = counted(len(self._splits), f"test {self.noun}")
            notes.append(
                f"warning: {several} also to train on, so the "
                f"test accuracy is too high: {some(self._splits)}"
            )
        return notes

"""Hugging Face export: a folder that the Hub shows, with the set's own file."""

import json
import pathlib

import numpy as np

from gsdd_jax.core.errors import printable, ranged
from gsdd_jax.exports import png
from gsdd_jax.exports.place import Pictures
from gsdd_jax.formats import file
from gsdd_jax.formats.distilled import DistilledSet
from gsdd_jax.formats.info import info, labels, mixtures

DATA = "data/train-00000-of-00001.parquet"
CARD = """---
license: other
task_categories:
- image-classification
tags:
- dataset-distillation
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
---
# {title}

{count} synthetic images, distilled from {data} by [gsdd-jax](https://github.com/gsdd-jax/gsdd-jax).
Networks trained on them classify real images.

License: **fill in**, as that of the source data demands.

| | |
| --- | --- |
{rows}

```python
import datasets

pictures = datasets.load_dataset("ORGANIZATION/NAME", split="train")  # 8 bits, clipped to [0, 1]
```

The pictures are for viewing and for any library. `{name}` is the set itself, exact and at any
resolution:

```python
import gsdd_jax

distilled = gsdd_jax.load("hf://datasets/ORGANIZATION/NAME/{name}")
images, targets = distilled.numpy()  # transformed as in training
test = distilled.transform(test)  # test images in [0, 1] need the same transform
```
"""


def write(path: pathlib.Path, pictures: Pictures) -> None:
    """Writes a parquet file, the set and a dataset card, for `datasets.load_dataset(path)`.

    Columns: `image` (PNG), `label` (class) and, with soft labels, `target` (probabilities).
    """
    import pyarrow
    from pyarrow import parquet

    names = [str(name) for name in pictures.names or range(int(pictures.labels.max()) + 1)]
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    labels = np.asarray(pictures.labels)
    columns = {
        "image": pyarrow.array(
            [{"bytes": png.encode(pixels), "path": None} for pixels in pictures.pixels],
            pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()}),
        ),
        "label": pyarrow.array(labels.astype(np.int64)),
    }
    if pictures.soft is not None:
        value = {"_type": "Value", "dtype": "float32"}
        features["target"] = {"_type": "Sequence", "feature": value, "length": len(names)}
        of_list = pyarrow.list_(pyarrow.float32(), len(names))
        columns["target"] = pyarrow.array(list(np.float32(pictures.soft)), of_list)
    said = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pyarrow.table(columns).replace_schema_metadata(said)
    (path / "data").mkdir()
    parquet.write_table(table, path / DATA)
    file.save(path / file.NAME, pictures.distilled)
    (path / "README.md").write_text(card(pictures.distilled), encoding="utf-8")


def card(distilled: DistilledSet) -> str:
    """Returns the dataset card of a set, in Markdown."""
    kind, said = distilled.format, info(distilled)
    name = _plain(said["data"] or "a data set")
    transform = _plain((said["transform"] or {}).get("name", "unknown"))
    num_classes = said["num_classes"]
    rows = {
        "images": f"{ranged(distilled.class_counts)} per class of {num_classes} classes, "
        f"{'x'.join(map(str, kind.image_shape))}{mixtures(said)}",
        "stored as": kind.name,
        "labels": labels(said),
        "bytes": f"{distilled.num_bytes:,}, {said['bytes_per_class']:,.1f} per class",
        "transform of inputs": transform,
        "learning rate (SGD)": f"{distilled.learning_rate:.3g}",
    }
    return CARD.format(
        title=f"Distilled {name}",
        count=len(distilled.labels),
        data=name,
        rows="\n".join(f"| {key} | {value} |" for key, value in rows.items()),
        name=file.NAME,
    )


def _plain(text: object) -> str:
    """Returns a foreign text for a line of Markdown."""
    return "".join(c for c in printable(str(text)[:100]) if c.isalnum() or c in " _-./:")

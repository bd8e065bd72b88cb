"""Writes a data set for TFDS: an array_record file per split, and their description.

TFDS's own writers need TensorFlow from a gigabyte on, and order the fields of an example at
random. Here the same examples give the same bytes.
"""

import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from gsdd_jax.core.fields import check_value


def write(
    folder: str | os.PathLike,
    name: str,
    features: Mapping[str, Any],
    splits: Mapping[str, Iterable[dict[str, Any]]],
    description: str,
) -> None:
    """Writes the set `name` into an existing folder, named for its version.

    `features` are TFDS's, among them `image` or `video`, encoded, and `label`. `splits` holds
    examples, with a value per feature. Raises UsageError if the folder's path is not UTF-8, which
    array_record needs, and OSError, naming the file, if one cannot be written.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import dataset_info, example_serializer, naming

    folder = pathlib.Path(folder).absolute()
    check_value("the folder of the data set", "str", os.fspath(folder))
    features = tfds.features.FeaturesDict(dict(features))
    serializer = example_serializer.ExampleSerializer(features.get_serialized_info())
    infos = []
    for split, examples in splits.items():
        template = naming.ShardedFileTemplate(
            data_dir=folder, dataset_name=name, split=split, filetype_suffix="array_record"
        )
        path = template.sharded_filepath(shard_index=0, num_shards=1)
        records = (
            # Otherwise the order of fields differs from process to process.
            serializer.get_tf_example(features.encode_example(e)).SerializeToString(
                deterministic=True
            )
            for e in examples
        )
        count, size = _write_records(path, records)
        infos.append(
            tfds.core.SplitInfo(
                name=split, shard_lengths=[count], num_bytes=size, filename_template=template
            )
        )
    identity = dataset_info.DatasetIdentity(
        name=name, version=folder.name, data_dir=os.fspath(folder), module_name=""
    )
    info = dataset_info.DatasetInfo(
        builder=identity,
        description=description,
        features=features,
        supervised_keys=("image" if "image" in features else "video", "label"),
        disable_shuffling=True,
    )
    info.set_file_format("array_record")
    info.set_splits(tfds.core.splits.SplitDict(infos))
    info.write_to_directory(folder)


def _write_records(path: os.PathLike, records: Iterable[bytes]) -> tuple[int, int]:
    from array_record.python.array_record_module import ArrayRecordWriter

    count = size = 0
    try:
        writer = ArrayRecordWriter(os.fspath(path), "group_size:1")
        for record in records:
            writer.write(record)
            count, size = count + 1, size + len(record)
        writer.close()
    except RuntimeError as error:
        raise OSError(0, str(error).split(";")[0], os.fspath(path)) from None
    return count, size

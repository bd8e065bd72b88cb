"""Image classification sets of TensorFlow Datasets (TFDS), read without TensorFlow.

A set is a folder that TFDS prepared in array_record format. `load` decodes its two splits once,
keeps them as .npy files in a cache, and from then on maps those files into memory.
"""

import concurrent.futures
import dataclasses
import difflib
import hashlib
import io
import json
import os
import pathlib
import shlex

import numpy as np
import PIL
from absl import logging
from jaxtyping import Int32, UInt8
from PIL import Image
from tqdm import tqdm

from gsdd_jax import files
from gsdd_jax.errors import UsageError
from gsdd_jax.files import write_atomically

# tensorflow_datasets is imported where it is used: it is slow to import, and much of the package
# never touches a data set.

# ImageNet-1k classes of the six subsets; a class's place in its row is its new label.
IMAGENET_SUBSETS = {
    "nette": (0, 217, 482, 491, 497, 566, 569, 571, 574, 701),
    "woof": (193, 182, 258, 162, 155, 167, 159, 273, 207, 229),
    "fruit": (953, 954, 949, 950, 951, 957, 952, 945, 943, 948),
    "yellow": (309, 986, 954, 951, 987, 779, 599, 291, 72, 11),
    "meow": (281, 282, 283, 284, 285, 291, 292, 290, 289, 287),
    "squawk": (84, 130, 88, 144, 145, 22, 96, 9, 100, 89),
}

_CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_MEAN_STD = {
    "cifar10": _CIFAR10,
    "cifar10_mini": _CIFAR10,
    "imagenette": _IMAGENET,
    "imagenet2012": _IMAGENET,
}

_EMBEDDED = pathlib.Path(__file__).parent / "datasets"  # prepared sets shipped with the package
_PIL_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_CHUNK = 1024  # examples held encoded in memory at a time
RESIZES = ("crop", "squash")
_CACHE_VERSION = 2  # raise it when the same source would be decoded to other arrays
# `tfds` imports all three whatever it is asked to do.
_TFDS_NEEDS = "in an environment with `pip install tensorflow apache-beam mlcroissant`"


@dataclasses.dataclass(frozen=True)
class Split:
    """Images in [0, 255], one size, and their labels in [0, num_classes). Both read-only."""

    images: UInt8[np.ndarray, "n h w c"]
    labels: Int32[np.ndarray, "n"]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One data set, whole.

    Attributes:
        name: as given to `load`.
        train, test: the splits. `test` is the set's "test" split, or "validation" where there is
            none or where, as in imagenet2012, the test split has no labels.
        num_classes: number of classes.
        class_names: a name for every class, in label order.
        mean, std: per-channel constants of the normalisation, for images in [0, 1]: the published
            ones for CIFAR-10, Imagenette and ImageNet, otherwise those of the training pixels.
        fingerprint: SHA-256, in hexadecimal, of the four arrays with their shapes. Equal
            fingerprints mean equal data; what is derived from a data set is filed under it.
    """

    name: str
    train: Split
    test: Split
    num_classes: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        return self.train.images.shape[1:]


def load(
    name: str,
    *,
    subset: str | None = None,
    resolution: int | None = None,
    resize: str = "crop",
    data_dir: str | os.PathLike | None = None,
    cache_dir: str | os.PathLike | None = None,
) -> Dataset:
    """Load a TFDS image classification set: paper, appendix A.1.1.

    Args:
        name: "cifar10_mini", which is part of this package (300 training and 100 test images of
            each CIFAR-10 class), or any set that TFDS has prepared on this machine in array_record
            format: "cifar10", "cifar100", "imagenette/160px-v2", "imagenet2012", ...
        subset: one of `IMAGENET_SUBSETS`, for "imagenet2012" only. Only its ten classes are kept,
            labelled 0 to 9 in the order listed there.
        resolution: side of the square images, in pixels. None keeps the images as they are.
        resize: how they get there (bilinear, antialiased): "crop" resizes the shorter side, then
            cuts out the centre; "squash" resizes both sides, whatever the shape, as the published
            runs do on ImageNet.
        data_dir: where TFDS keeps its sets; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
        cache_dir: where decoded arrays are kept; default $XDG_CACHE_HOME/gsdd_jax, else
            ~/.cache/gsdd_jax. It may be deleted at any time. Where it cannot be written, nothing
            is cached.

    Raises:
        UsageError: the set is unknown, not on disk, in a format that needs TensorFlow, damaged or
            not one of labelled 8-bit images; its image sizes vary and no resolution was given;
            `subset` or `resolution` is out of place.
    """
    base = name.split("/")[0].split(":")[0]
    if subset is not None and (base != "imagenet2012" or subset not in IMAGENET_SUBSETS):
        raise UsageError(
            f"no subset {subset!r} of data set {name!r}: imagenet2012 has"
            f" {', '.join(IMAGENET_SUBSETS)}, other sets have none"
        )
    if resolution is not None and resolution < 1:
        raise UsageError(f"resolution {resolution}: expected a positive number of pixels")
    if resize not in RESIZES:
        raise UsageError(f"resize: expected one of {', '.join(RESIZES)}, got {resize!r}")

    builder, repair = _open(name, base, data_dir)
    image_key, label_key = _feature_keys(builder, name)
    label = builder.info.features[label_key]
    if reason := _wrong_classes(builder, base, label_key):
        raise UsageError(f"data set {name!r} in {builder.data_dir} is damaged ({reason}); {repair}")
    classes = range(label.num_classes) if subset is None else IMAGENET_SUBSETS[subset]
    if max(classes) >= label.num_classes:
        raise UsageError(
            f"subset {subset!r} needs the 1000 classes of ImageNet-1k, but {name!r} in"
            f" {builder.data_dir} has {label.num_classes}"
        )

    if cache_dir is None:
        cache_dir = files.cache_dir()
    folder = pathlib.Path(cache_dir).expanduser() / "datasets"
    size = None if resolution is None else (resolution, resize)
    folder /= f"{base}-{_cache_key(builder, subset, size)}"
    cached = _read_cache(folder)
    if cached is None:
        try:
            arrays = _decode(builder, base, image_key, label_key, classes, size)
        except (UsageError, ImportError):
            raise
        except Exception as error:  # PIL's, array_record's, and any that TFDS makes of damage
            raise UsageError(
                f"data set {name!r} in {builder.data_dir} is damaged ({_line(error)}); {repair}"
            ) from error
        mean, std = _MEAN_STD.get(base) or _channel_mean_std(arrays["train_images"])
        info = {"fingerprint": _fingerprint(arrays), "mean": mean, "std": std}
        _write_cache(folder, arrays, info)
        # From here on the cache's mapping replaces the copy in memory.
        cached = _read_cache(folder) or (arrays, info)
    arrays, info = cached

    train_shape, test_shape = (arrays[f"{split}_images"].shape[1:] for split in ("train", "test"))
    if train_shape != test_shape:
        raise UsageError(
            f"the training images of data set {name!r} are {_size(train_shape)}, its test images"
            f" {_size(test_shape)}; give a resolution"
        )
    return Dataset(
        name=name,
        train=Split(arrays["train_images"], arrays["train_labels"]),
        test=Split(arrays["test_images"], arrays["test_labels"]),
        num_classes=len(classes),
        class_names=tuple(label.names[index] for index in classes),
        mean=tuple(info["mean"]),
        std=tuple(info["std"]),
        fingerprint=info["fingerprint"],
    )


# Finding a prepared set.


def _open(name, base, data_dir):
    """Return the TFDS builder of a prepared set, and the advice for when its files are damaged."""
    import tensorflow_datasets as tfds

    if base == "cifar10_mini":
        root, repair = _EMBEDDED, "install gsdd-jax again"
    else:
        root = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
        root = pathlib.Path(root).expanduser().absolute()
        repair = f"delete it and run {_build_command(name, root)}"
    try:
        tfds.core.naming.parse_builder_name_kwargs(name)
    except Exception:  # a name that TFDS cannot parse
        raise _unknown(name) from None
    try:
        # Unlike `tfds.builder`, this never looks for the set on the network.
        builder = tfds.core.read_only_builder.builder_from_files(name, data_dir=root)
    except Exception as error:  # of any kind: TFDS takes what its files say as it comes
        reason = _damaged_description(root, name.partition(":")[0])
        if reason is None:
            if isinstance(error, tfds.core.DatasetNotFoundError):
                raise _not_found(name, base, root) from None
            if not (root / base).is_dir():
                raise _unknown(name) from None
            reason = f"its dataset_info.json or features.json: {_line(error)}"
        raise UsageError(
            f"data set {name!r} in {root / base} is damaged ({reason}); {repair}"
        ) from None

    array_record = tfds.core.file_adapters.FileFormat.ARRAY_RECORD
    if array_record not in builder.info.available_file_formats():
        folder = shlex.quote(str(builder.data_dir))
        raise UsageError(
            f"data set {name!r} in {builder.data_dir} is in {builder.info.file_format.value}"
            " format, which cannot be read without TensorFlow; convert it with"
            f" `tfds convert_format --dataset_version_dir={folder} --out_file_format=array_record`"
            f" {_TFDS_NEEDS}"
        )
    return builder, repair


def _line(error: Exception) -> str:
    return (str(error).strip() or "it cannot be read").splitlines()[0]


def _damaged_description(root: pathlib.Path, name: str) -> str | None:
    """Which of the files that describe a set is missing or no JSON object, and why."""
    names = ("dataset_info.json", "features.json")
    for folder in sorted({path.parent for file in names for path in (root / name).rglob(file)}):
        for path in (folder / file for file in names):
            try:
                value = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError) as error:
                return f"{path}: {_line(error)}"
            if not isinstance(value, dict) or not value:
                return f"{path}: expected a JSON object with its fields"
    return None


def _not_found(name, base, root) -> UsageError:
    import tensorflow_datasets as tfds

    if base not in tfds.list_builders(with_community_datasets=False):
        return _unknown(name)
    builder_class = tfds.builder_cls(base)
    configs = [config.name for config in builder_class.BUILDER_CONFIGS]
    config = name.partition(":")[0].partition("/")[2]
    if config and config not in configs:
        return UsageError(
            f"data set {base!r} has no configuration {config!r}: expected"
            f" {', '.join(configs) or 'none'}"
        )
    if configs and not config:  # `tfds build` would prepare every configuration
        name = name.replace(base, f"{base}/{builder_class.default_builder_config.name}", 1)
    by_hand = ""
    if builder_class.MANUAL_DOWNLOAD_INSTRUCTIONS:
        by_hand = f", after putting the archives that it names into {root / 'downloads' / 'manual'}"
    return UsageError(
        f"data set {name!r} is not on disk (looked in {root / base}); prepare it with"
        f" {_build_command(name, root)}{by_hand}"
    )


def _build_command(name, root) -> str:
    folder = shlex.quote(str(root))
    return f"`tfds build {name} --file_format=array_record --data_dir={folder}` {_TFDS_NEEDS}"


def _unknown(name) -> UsageError:
    import tensorflow_datasets as tfds

    known = ["cifar10_mini", *tfds.list_builders(with_community_datasets=False)]
    close = difflib.get_close_matches(name, known, n=3)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    return UsageError(
        f"unknown data set {name!r}: expected cifar10_mini or a TFDS set such as cifar10,"
        f" imagenette/160px-v2{hint}"
    )


def _feature_keys(builder, name) -> tuple[str, str]:
    """Return the names of the image and label features."""
    from tensorflow_datasets import features as kinds

    features = builder.info.features
    if not isinstance(features, kinds.FeaturesDict):
        raise UsageError(
            f"data set {name!r} in {builder.data_dir} has {type(features).__name__} for its "
            "features: expected an image and a class label by name"
        )
    keys = []
    for kind in (kinds.Image, kinds.ClassLabel):
        found = [key for key, feature in features.items() if type(feature) is kind]
        supervised = [key for key in builder.info.supervised_keys or () if key in found]
        keys.append((supervised or found or [None])[0])
    image_key, label_key = keys
    if image_key is None or label_key is None:
        raise UsageError(
            f"data set {name!r} has the features {', '.join(features)}: expected an image and a"
            " class label among them"
        )
    image = features[image_key]
    if image.np_dtype != np.uint8 or image.shape[-1] not in _PIL_MODES:
        raise UsageError(
            f"data set {name!r} has {image.np_dtype} images of shape {image.shape}: expected"
            " 8-bit images of 1, 3 or 4 channels"
        )
    return image_key, label_key


def _wrong_classes(builder, base, label_key) -> str | None:
    """What is wrong with the number of classes or with their names, which a set may not have."""
    folder, label = pathlib.Path(builder.data_dir), builder.info.features[label_key]
    if not label.num_classes or label.num_classes < 1:
        return f"{folder / 'features.json'}: expected at least one class, got {label.num_classes}"
    path = folder / f"{label_key}.labels.txt"
    if not path.exists() and base != "cifar10_mini":  # that its own set has names, we know
        return None
    try:
        names = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        return f"{path}: {_line(error)}"
    different = {name.strip() for name in names} - {""}
    if len(different) != label.num_classes or different != set(label.names):
        return f"{path}: expected {label.num_classes} different names, got {len(different)}"
    return None


# Decoding.


def _decode(builder, base, image_key, label_key, classes, size) -> dict[str, np.ndarray]:
    """Decode the training and the test split; the keys of the result are the cache's file names."""
    # The test split of imagenet2012 has no labels.
    test_names = ["validation"] if base == "imagenet2012" else ["test", "validation"]
    present = list(builder.info.splits)
    test = next((name for name in test_names if name in present), None)
    if "train" not in present or test is None:
        raise UsageError(
            f"the data set in {builder.data_dir} has the splits {', '.join(present)}: expected"
            f" train and {' or '.join(test_names)}"
        )
    arrays = {}
    for name, split in (("train", "train"), ("test", test)):
        arrays[f"{name}_images"], arrays[f"{name}_labels"] = _decode_split(
            builder, split, image_key, label_key, classes, size
        )
    return arrays


def _decode_split(builder, split, image_key, label_key, classes, size):
    """Decode the images of `classes`; return images uint8 [n, h, w, c] and labels int32 [n]."""
    import tensorflow_datasets as tfds

    _check_records(builder, split)
    features = builder.info.features
    channels = features[image_key].shape[-1]
    new_labels = {old: new for new, old in enumerate(classes)}
    every_class = len(classes) == features[label_key].num_classes
    # Other images, such as segmentation masks, are left encoded as well.
    encoded = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
    source = builder.as_data_source(
        split,
        decoders={key: tfds.decode.SkipDecoding() for key in encoded},
        file_format="array_record",
    )

    pixels, labels, shape = bytearray(), [], None  # a bytearray grows without a second copy
    progress = tqdm(total=len(source), desc=f"decoding {builder.info.name} {split}", disable=None)
    with concurrent.futures.ThreadPoolExecutor() as pool, progress:
        for start in range(0, len(source), _CHUNK):
            indices = range(start, min(start + _CHUNK, len(source)))
            examples = source.__getitems__(indices)
            if every_class and any(int(e[label_key]) not in new_labels for e in examples):
                raise UsageError(
                    f"data set {builder.info.name!r} has examples without a label in its split"
                    f" {split!r}; expected a class label for each"
                )
            examples = [e for e in examples if int(e[label_key]) in new_labels]
            labels += [new_labels[int(e[label_key])] for e in examples]
            images = pool.map(
                lambda example: _decode_image(example[image_key], channels, size), examples
            )
            for image in images:
                shape = shape or image.shape
                if image.shape != shape:
                    raise UsageError(
                        f"the image sizes of data set {builder.info.name!r} vary"
                        f" ({_size(shape)}, {_size(image.shape)}, ...); give a resolution"
                    )
                pixels += image.data
            progress.update(len(indices))
    if not labels:
        raise UsageError(
            f"data set {builder.info.name!r} has no examples of the classes asked for in its split"
            f" {split!r}"
        )
    arrays = np.frombuffer(pixels, np.uint8).reshape(-1, *shape), np.array(labels, np.int32)
    for array in arrays:
        array.setflags(write=False)
    return arrays


def _check_records(builder, split) -> None:
    """Raises ValueError, naming the file, where one does not hold its number of examples."""
    from array_record.python.array_record_module import ArrayRecordReader

    info = builder.info.splits[split]
    if not info.shard_lengths:
        raise ValueError(f"dataset_info.json: its split {split!r} has no files")
    for path, expected in zip(info.filepaths, info.shard_lengths, strict=True):
        try:
            reader = ArrayRecordReader(str(path))
            found = reader.num_records()
            reader.close()
        except Exception as error:
            raise ValueError(f"{path}: {_line(error)}") from None
        if found != expected:
            raise ValueError(f"{path}: expected {expected} examples, got {found}")


def _decode_image(encoded: bytes, channels: int, size: tuple[int, str] | None):
    """Decode one image to uint8 [h, w, channels], brought to a resolution where one is given.

    Sizes and offsets are rounded as torchvision's Resize and CenterCrop round them.
    """
    resolution, resize = size or (None, "")
    with Image.open(io.BytesIO(encoded)) as image:
        image = image.convert(_PIL_MODES[channels])
    if resize == "squash":
        image = image.resize((resolution, resolution), Image.Resampling.BILINEAR)
    elif resize == "crop" and image.size != (resolution, resolution):
        short = min(image.size)
        width, height = (side * resolution // short for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = round((width - resolution) / 2), round((height - resolution) / 2)
        image = image.crop((left, top, left + resolution, top + resolution))
    return np.ascontiguousarray(image, np.uint8).reshape(image.height, image.width, channels)


def _size(shape) -> str:
    return f"{shape[0]}x{shape[1]}"


def _channel_mean_std(images: UInt8[np.ndarray, "n h w c"]):
    """Return the mean and the standard deviation of each channel, pixels in [0, 1]."""
    counts = np.zeros((images.shape[-1], 256), np.int64)  # exact, however many pixels
    for image in images:
        for channel, count in enumerate(counts):
            count += np.bincount(image[..., channel].ravel(), minlength=256)
    values = np.arange(256) / 255
    weights = counts / counts.sum(axis=1, keepdims=True)
    mean = weights @ values
    std = np.sqrt((weights * (values - mean[:, None]) ** 2).sum(axis=1))
    return tuple(mean.tolist()), tuple(std.tolist())


# The cache: a folder for each set, subset and resolution. Every file appears whole or not at all,
# and info.json, without which a folder does not count, comes last. Processes that write the same
# folder at the same time replace files by equal ones.


def _cache_key(builder, subset, size) -> str:
    """Identify what would be decoded: the prepared files, what is asked of them, the decoder."""
    folder = pathlib.Path(builder.data_dir)
    files = [(path.name, path.stat()) for path in sorted(folder.iterdir()) if path.is_file()]
    identity = {
        "files": [(name, stat.st_size, stat.st_mtime_ns) for name, stat in files],
        "dataset_info": (folder / "dataset_info.json").read_text(),
        "subset": subset,
        "size": size,
        "decoder": [_CACHE_VERSION, PIL.__version__],
    }
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]


def _fingerprint(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}\n".encode())
        digest.update(arrays[name].data)
    return digest.hexdigest()


def _read_cache(folder: pathlib.Path):
    """Return (arrays, info), or None where the folder is absent, incomplete or damaged."""
    try:
        info = json.loads((folder / "info.json").read_text())
        if info.pop("sha256") != _info_digest(info):
            return None
        arrays = {
            f"{split}_{part}": np.asarray(np.load(folder / f"{split}_{part}.npy", mmap_mode="r"))
            for split in ("train", "test")
            for part in ("images", "labels")
        }
        # Hashing 150 MB takes a tenth of a second, and it catches whatever happened to the files.
        if _fingerprint(arrays) == info["fingerprint"]:
            return arrays, info
    except Exception:  # of any kind that readers raise at what is not theirs: it is made again
        pass
    return None


def _info_digest(info: dict) -> str:
    return hashlib.sha256(json.dumps(info, sort_keys=True).encode()).hexdigest()


def _write_cache(folder: pathlib.Path, arrays: dict[str, np.ndarray], info: dict) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in arrays.items():
            write_atomically(folder / f"{name}.npy", lambda file, array=array: np.save(file, array))
        text = json.dumps({**info, "sha256": _info_digest(info)})
        write_atomically(folder / "info.json", text.encode())
    except OSError as error:
        logging.warning("Decoded images are not cached: %s", error)

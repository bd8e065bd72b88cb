"""Tests each operation against float64 loops, and random draws against their distributions."""

import functools
import inspect
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gsdd_jax.core.errors import UsageError
from gsdd_jax.data import augment as dsa
from gsdd_jax.data.augment import augment

pytestmark = pytest.mark.usefixtures("quickly_compiled")

NAMES = ["color", "crop", "cutout", "flip", "scale", "rotate"]
RESAMPLED = ["crop", "scale", "rotate"]


def sample(image, y, x):
    """Interpolates bilinearly at one position; zero outside."""
    height, width, channels = image.shape
    result = np.zeros(channels)
    top, left = math.floor(y), math.floor(x)
    for i, j in itertools.product((top, top + 1), (left, left + 1)):
        if 0 <= i < height and 0 <= j < width:
            result += (1 - abs(y - i)) * (1 - abs(x - j)) * image[i, j]
    return result


def normalized(index, size):
    return 2 * index / (size - 1) - 1 if size > 1 else 0.0


def pixels(coordinate, size):
    return (coordinate + 1) * (size - 1) / 2


def reference(name, image, numbers):
    """Applies one operation to one image [h, w, c] in float64."""
    image = np.asarray(image, np.float64)
    height, width, channels = image.shape
    output = np.zeros_like(image)
    every = list(itertools.product(range(height), range(width)))
    if name == "color":
        brightness, saturation, contrast = numbers
        bright = image + brightness - 0.5
        for i, j in every:
            mean = sum(bright[i, j]) / channels
            output[i, j] = (bright[i, j] - mean) * 2 * saturation + mean
        mean = output.sum() / output.size
        return (output - mean) * (contrast + 0.5) + mean
    if name == "crop":
        for i, j in every:
            y, x = i + numbers[0], j + numbers[1]
            if 0 <= y < height and 0 <= x < width:
                output[i, j] = image[y, x]
    elif name == "cutout":
        output[:] = image
        sides = [math.floor(size / 2 + 0.5) for size in (height, width)]
        corner = [center - side // 2 for center, side in zip(numbers, sides, strict=True)]
        for i, j in itertools.product(range(sides[0]), range(sides[1])):
            y = min(max(corner[0] + i, 0), height - 1)
            x = min(max(corner[1] + j, 0), width - 1)
            output[y, x] = 0
    elif name == "flip":
        for i, j in every:
            output[i, j] = image[i, width - 1 - j if numbers[0] else j]
    else:
        for i, j in every:
            y, x = normalized(i, height), normalized(j, width)
            if name == "scale":
                y, x = y * numbers[0], x * numbers[1]
            else:
                sin, cos = math.sin(numbers[0]), math.cos(numbers[0])
                y, x = x * sin + y * cos, x * cos - y * sin
            output[i, j] = sample(image, pixels(y, height), pixels(x, width))
    return output


def dense(name, shape, numbers):
    """Returns the matrix of the operation's linear part, from its action on every unit image."""
    height, width, channels = shape
    if name == "color":
        zero = reference(name, np.zeros(shape), numbers)
        units = np.eye(math.prod(shape)).reshape(-1, *shape)
        return np.stack([(reference(name, u, numbers) - zero).ravel() for u in units], axis=1)
    # The others treat channels alike: the unit images can be the channels of one image.
    size = height * width
    plane = reference(name, np.eye(size).reshape(height, width, size), numbers)
    return np.kron(plane.reshape(size, size), np.eye(channels))


def random_images(shape, seed=0):
    return np.float32(np.random.default_rng(seed).normal(size=shape))


def scalars(numbers, index):
    """Returns the numbers of one image as Python scalars."""
    return [np.asarray(n)[index % len(n)].item() for n in numbers]


@functools.partial(jax.jit, static_argnums=0)
def with_gradient(name, images, numbers, cotangent):
    output, pullback = jax.vjp(lambda x: dsa.apply(name, x, numbers), images)
    return output, pullback(cotangent)[0]


def output_and_gradient(*arguments):
    return map(np.asarray, with_gradient(*arguments))


augmented = jax.jit(augment, static_argnames=("strategy", "shared"))


def numbers_of(name, height, width):
    """Returns numbers at the ends of their ranges, and one set inside, as a tuple of arrays."""
    rows, columns = (size // 8 + (size % 8 >= 4) for size in (height, width))
    angle = math.radians(15)
    sets = {
        "color": [(0.0, 0.0, 0.0), (0.999, 0.999, 0.999), (0.2, 0.9, 0.4)],
        "crop": [(-rows, columns), (rows, -columns), (0, 0), (rows, columns)],
        "cutout": [(0, width - 1), (height - 1, 0), (height // 2, width // 3)],
        "flip": [(True,), (False,)],
        "scale": [(1.2, 1 / 1.2), (1 / 1.2, 1.2), (1.2, 1.2), (1.0, 0.93)],
        "rotate": [(angle,), (-angle,), (0.0,), (0.127,)],
    }[name]
    dtype = {"crop": np.int32, "cutout": np.int32, "flip": bool}.get(name, np.float32)
    return tuple(np.array(column, dtype) for column in zip(*sets, strict=True))


SHAPES = [(10, 7, 4), (1, 9, 2)]
LONG_SHAPES = [(3, 17, 1), (20, 1, 1), (1, 1, 1)]


@pytest.mark.parametrize(
    "name, shape", [*itertools.product(NAMES, SHAPES), *itertools.product(RESAMPLED, LONG_SHAPES)]
)
def test_operation_and_derivative_equal_the_matrix(name, shape):
    numbers = numbers_of(name, *shape[:2])
    num = len(numbers[0])
    images, cotangent = random_images((num, *shape)), random_images((num, *shape), 1)
    output, gradient = output_and_gradient(name, images, numbers, cotangent)
    assert output.shape == images.shape and output.dtype == images.dtype
    for i in range(num):
        expected = reference(name, images[i], scalars(numbers, i))
        np.testing.assert_allclose(output[i], expected, rtol=0, atol=2e-5)
        expected = dense(name, shape, scalars(numbers, i)).T @ np.asarray(cotangent[i]).ravel()
        np.testing.assert_allclose(np.ravel(gradient[i]), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_one_set_of_numbers_for_all_images(name):
    shape = (5, 6, 9, 3)
    images, cotangent = random_images(shape), random_images(shape, 1)
    numbers = dsa.draw(name, jax.random.key(4), 1, *shape[1:3])
    output, gradient = output_and_gradient(name, images, numbers, cotangent)
    matrix = dense(name, shape[1:], scalars(numbers, 0))
    for i in range(len(images)):
        expected = reference(name, images[i], scalars(numbers, 0))
        np.testing.assert_allclose(output[i], expected, rtol=0, atol=2e-5)
        expected = matrix.T @ np.asarray(cotangent[i]).ravel()
        np.testing.assert_allclose(np.ravel(gradient[i]), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", RESAMPLED)
def test_adjoint_identity(name, size=(64, 48)):
    images, cotangent = random_images((6, *size, 3)), random_images((6, *size, 3), 1)
    numbers = dsa.draw(name, jax.random.key(5), 6, *size)
    output, gradient = output_and_gradient(name, images, numbers, cotangent)
    left = (np.asarray(output, np.float64) * cotangent).sum(axis=(1, 2, 3))
    right = (np.asarray(gradient, np.float64) * images).sum(axis=(1, 2, 3))
    scale = np.linalg.norm(images[0]) * np.linalg.norm(cotangent[0])
    np.testing.assert_allclose(left, right, rtol=0, atol=2e-6 * scale)


@pytest.mark.parametrize("shared", [False, True])
def test_derivative_has_no_scatter(shared):
    def gradient(key, images, cotangent):
        def one(key, images):
            return augment(key, images, strategy=dsa.DSA, shared=shared)

        return jax.vjp(lambda x: jax.vmap(one)(key, x), images)[1](cotangent)

    images = np.zeros((2, 3, 16, 16, 3), np.float32)
    jaxpr = jax.make_jaxpr(gradient)(jax.random.split(jax.random.key(0)), images, images)
    assert "scatter" not in str(jaxpr)


def uniform(values, low, high):
    values = np.asarray(values, np.float64)
    assert low <= values.min() and values.max() <= high
    return stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 1e-4


def uniform_integers(values, low, high):
    values, counts = np.unique(np.asarray(values), return_counts=True)
    assert values.tolist() == list(range(low, high + 1))
    return len(counts) == 1 or stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize(
    "size, shift, last_center",
    # Sides of the cutout: 16, 14, 7, 2.
    [(32, 4, 32), (28, 4, 28), (13, 2, 12), (3, 0, 3)],
)
def test_drawn_integers(size, shift, last_center):
    key, num = jax.random.key(0), 6000
    rows, _ = dsa.draw("crop", key, num, size, 64)
    _, columns = dsa.draw("crop", key, num, 64, size)
    assert uniform_integers(rows, -shift, shift) and uniform_integers(columns, -shift, shift)
    rows, _ = dsa.draw("cutout", key, num, size, 64)
    _, columns = dsa.draw("cutout", key, num, 64, size)
    assert uniform_integers(rows, 0, last_center) and uniform_integers(columns, 0, last_center)


@pytest.mark.parametrize(
    "name, count, low, high",
    [
        ("color", 3, 0, 1),
        ("crop", 2, -4, 4),
        ("cutout", 2, 0, 32),
        ("flip", 1, 0, 1),
        ("scale", 2, 1 / 1.2, 1.2),
        ("rotate", 1, -math.pi / 12, math.pi / 12),
    ],
)
def test_drawn_numbers(name, count, low, high):
    num = 6000
    numbers = dsa.draw(name, jax.random.key(2), num, 32, 32)
    assert len(numbers) == count and all(n.shape == (num,) for n in numbers)
    check = uniform if name in ("color", "scale", "rotate") else uniform_integers
    assert all(check(n, np.float32(low) if check is uniform else low, high) for n in numbers)
    correlation = np.atleast_2d(np.corrcoef(np.stack(numbers)))
    assert np.abs(correlation - np.eye(count)).max() < 4.5 / math.sqrt(num)


def telltale(num, size):
    """Returns images that reveal each operation: a ramp of rows, and noise, by channel."""
    images = 1 + np.random.default_rng(0).random((num, size, size, 2)).astype(np.float32)
    images[..., 0] = 1 + np.arange(size)[:, None] / size
    return images


def shifts(image, limit):
    size = len(image)
    padded = np.pad(image, ((limit, limit), (limit, limit), (0, 0)))
    for i, j in itertools.product(range(2 * limit + 1), repeat=2):
        yield padded[i : i + size, j : j + size]


def classify(images, output):
    """Returns the operation that made `output`, judged by its pixels."""
    size = images.shape[1]
    mirrored = images[:, :, ::-1]

    def each(test):
        return all(test(i) for i in range(len(images)))

    if each(lambda i: any(np.array_equal(output[i], v[i]) for v in (images, mirrored))):
        return "flip"
    zero = output == 0
    if zero.any() and np.array_equal(np.where(zero, images, output), images):
        return "cutout"
    if each(lambda i: any(np.array_equal(output[i], s) for s in shifts(images[i], size // 8))):
        return "crop"
    middle = output[:, size // 4 : -size // 4, size // 4 : -size // 4, 0]
    if np.ptp(middle, axis=2).max() < 1e-5:
        return "scale"
    brightness = np.stack([images.mean(axis=3), output.mean(axis=3)]).reshape(2, len(images), -1)
    if each(lambda i: np.corrcoef(brightness[:, i])[0, 1] > 0.99999):
        return "color"
    return "rotate"


@pytest.mark.parametrize(
    "strategy, names, shared",
    [(dsa.DSA, NAMES, False), (dsa.DSA, NAMES, True), ("flip_cutout", ["flip", "cutout"], False)],
)
def test_each_call_draws_one_operation(strategy, names, shared):
    num = 60 * len(names)
    images = telltale(6, 16)
    keys = jax.random.split(jax.random.key(0), num)
    each = jax.vmap(functools.partial(augment, strategy=strategy, shared=shared), (0, None))
    outputs = np.asarray(jax.jit(each)(keys, images))
    drawn = [classify(images, output) for output in outputs]
    counts = [drawn.count(name) for name in names]
    assert sum(counts) >= 0.85 * num  # 1 in 25 shared crops shifts by nothing
    assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("strategy", ["crop_cutout_flip_scale_rotate", "color"])
def test_shared_numbers_are_those_of_the_key_alone(strategy):
    """Checks equal bits for batches of 5 and 16, except color, whose sums XLA may reorder."""
    images = random_images((16, 24, 18, 3))
    for key in jax.random.split(jax.random.key(0), 20):
        whole = np.asarray(augmented(key, images, strategy=strategy, shared=True))
        part = augmented(key, images[-5:], strategy=strategy, shared=True)
        tolerance = 4e-6 if strategy == "color" else 0
        np.testing.assert_allclose(part, whole[-5:], rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_shared_or_independent(name):
    images = random_images((1, 32, 32, 3)).repeat(12, axis=0)
    output = np.asarray(augmented(jax.random.key(1), images, strategy=name, shared=True))
    assert len({image.tobytes() for image in output}) == 1
    output = np.asarray(augmented(jax.random.key(1), images, strategy=name))
    assert len({image.tobytes() for image in output}) >= (2 if name == "flip" else 8)


def test_raw_key():
    key, images = jax.random.key(0), random_images((4, 12, 16, 3))
    raw = augmented(jax.random.key_data(key), images, strategy="cutout")
    np.testing.assert_array_equal(raw, augmented(key, images, strategy="cutout"))


def test_differentiated_through_unrolled_training():
    """Checks the gradient through unrolled, recomputed training with respect to the images."""
    num, size, steps = 4, (6, 7, 2), 5
    images = random_images((num, *size))
    targets = random_images((num,), 2)
    start = np.float32(0.1) * random_images((math.prod(size),), 3)
    keys = jax.random.split(jax.random.key(7), steps)
    names = ["color", "rotate"]
    draw_and_apply = functools.partial(augment, strategy="_".join(names))

    def train(seen, wrap):
        def loss(theta, batch):
            return ((jnp.tanh(batch.reshape(num, -1) @ theta) - targets) ** 2).mean()

        def step(theta, t):
            return theta - 0.1 * jax.grad(loss)(theta, seen(t)), None

        theta, _ = jax.lax.scan(wrap(step), start, jnp.arange(steps))
        return (theta**2).sum()

    # The batches of each step as the variables, pulled back by the dense matrices.
    batches = jax.jit(jax.vmap(draw_and_apply, (0, None)))(keys, images)
    of_batches = jax.jit(jax.grad(lambda b: train(lambda t: b[t], lambda step: step)))(batches)
    of_batches = np.asarray(of_batches)
    expected, drawn = np.zeros(images.shape), set()
    for t, key in enumerate(keys):
        operation_key, number_key = jax.random.split(key)
        name = names[int(jax.random.randint(operation_key, (), 0, len(names)))]
        drawn.add(name)
        numbers = dsa.draw(name, number_key, num, *size[:2])
        for i in range(num):
            matrix = dense(name, size, scalars(numbers, i))
            expected[i] += (matrix.T @ np.ravel(of_batches[t, i])).reshape(size)
    assert len(drawn) == 2

    def through(images):
        return train(lambda t: draw_and_apply(keys[t], images), jax.checkpoint)

    gradient = jax.jit(jax.grad(through))(images)
    np.testing.assert_allclose(gradient, expected, atol=1e-5 * np.abs(expected).max())


def test_bfloat16_images():
    name = "rotate"
    images = random_images((3, 10, 10, 3))
    numbers = dsa.draw(name, jax.random.key(0), 3, 10, 10)
    half = images.astype(jnp.bfloat16)  # a type of NumPy
    output, gradient = output_and_gradient(name, half, numbers, half)
    assert output.dtype == gradient.dtype == jnp.bfloat16
    expected, _ = output_and_gradient(name, images, numbers, images)
    np.testing.assert_allclose(output.astype(np.float32), expected, atol=0.08)


def test_no_strategy_is_no_augmentation():
    images = random_images((2, 8, 8, 3))
    output = augmented(jax.random.key(0), images, strategy="")
    np.testing.assert_array_equal(output, images)


@pytest.mark.parametrize("strategy", ["color_blur", "Flip", "color__crop", "flip_", "_", "none"])
def test_unknown_operation(strategy):
    with pytest.raises(UsageError, match=r"unknown operation .* color, crop, cutout, flip") as info:
        augment(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), strategy=strategy)
    assert repr(strategy) in str(info.value) and "\n" not in str(info.value)


@pytest.mark.parametrize("shape, dtype", [((2, 8, 8, 3), jnp.uint8), ((8, 8, 3), jnp.float32)])
def test_wrong_images(shape, dtype):
    unchecked = inspect.unwrap(augment)  # without the shape checks of the test run
    with pytest.raises(ValueError, match=r"expected floating-point \[b, h, w, c\]"):
        unchecked(jax.random.key(0), jnp.zeros(shape, dtype))

"""Decodes `pixels`, `idc`, `fred` and `ddif` in float64 by the formulas, as a reference."""

import numpy as np


def bilinear(images, height, width):
    """Resizes bilinearly: pixel i of n samples at (i + 1/2) / n; edges are repeated."""
    for axis, size in ((1, height), (2, width)):
        native = images.shape[axis]
        at = (np.arange(size) + 0.5) * native / size - 0.5
        below = np.floor(at).astype(int)
        part = (at - below).reshape([-1 if a == axis else 1 for a in range(images.ndim)])
        low, high = (np.clip(i, 0, native - 1) for i in (below, below + 1))
        images = (1 - part) * images.take(low, axis) + part * images.take(high, axis)
    return images


def nearest(images, height, width):
    """Returns the pixel that contains the center of each new pixel."""
    rows = (2 * np.arange(height) + 1) * images.shape[1] // (2 * height)
    columns = (2 * np.arange(width) + 1) * images.shape[2] // (2 * width)
    return images[:, rows][:, :, columns]


def spectrum(images):
    """Computes the orthonormal 2-D DCT-II of each channel, one coefficient at a time."""
    height, width = images.shape[1:3]
    waves = [[wave(u, v, height, width) for v in range(width)] for u in range(height)]
    return np.einsum("uvyx,myxc->muvc", np.array(waves), images)


def wave(u, v, height, width):
    """Returns the image of the single coefficient (u, v)."""
    y, x = np.mgrid[:height, :width] + 0.5
    scale = np.sqrt((1 if u == 0 else 2) * (1 if v == 0 else 2) / (height * width))
    return scale * np.cos(np.pi * u * y / height) * np.cos(np.pi * v * x / width)


def from_spectrum(coefficients, frequencies, native, height, width):
    """Returns images of `coefficients` [m, k, c] at flat native `frequencies` [m, k].

    At another size the spectrum is padded with zeros, or cut, and scaled with the root of the area.
    """
    coefficients, frequencies = np.asarray(coefficients), np.asarray(frequencies)
    images = np.zeros((len(coefficients), height, width, coefficients.shape[-1]))
    for image, values, places in zip(images, coefficients, frequencies, strict=True):
        for value, place in zip(values, places, strict=True):
            u, v = divmod(int(place), native[1])
            if u < height and v < width:
                image += wave(u, v, height, width)[..., None] * value
    return images * np.sqrt(height * width / (native[0] * native[1]))


class Siren:
    """Represents one image by a network of sines; forward, backward and Adam, layer by layer."""

    def __init__(self, layers, w0):
        """Takes `layers`: (weights [in, out], biases [out]) of each layer."""
        self.layers = [[np.array(p, np.float64) for p in layer] for layer in layers]
        self.rates = [30.0, *[w0] * (len(layers) - 2)]
        self.moments = [[[np.zeros_like(p), np.zeros_like(p)] for p in la] for la in self.layers]
        self.steps = 0

    def image(self, height, width):
        """Returns the image [height, width, c], for rows and columns from -1 to 1."""
        row, column = (
            2 * np.arange(n) / (n - 1) - 1 if n > 1 else np.zeros(1) for n in (height, width)
        )
        x = np.array([[r, c] for r in row for c in column])
        self.inputs, self.angles = [], []
        for i, (weights, biases) in enumerate(self.layers):
            self.inputs.append(x)
            x = x @ weights + biases
            if i < len(self.rates):
                self.angles.append(self.rates[i] * x)
                x = np.sin(self.angles[i])
        return x.reshape(height, width, -1)

    def gradients(self, cotangent):
        """Returns (weights, biases) gradients per layer, for a cotangent of the last `image`."""
        d = cotangent.reshape(-1, cotangent.shape[-1])
        result = []
        for i in reversed(range(len(self.layers))):
            if i < len(self.rates):
                d = d * self.rates[i] * np.cos(self.angles[i])
            result.append([self.inputs[i].T @ d, d.sum(0)])
            d = d @ self.layers[i][0].T
        return result[::-1]

    def fit(self, target, steps, learning_rate):
        """Minimizes the mean squared error by Adam."""
        for _ in range(steps):
            error = self.image(*target.shape[:2]) - target
            self.steps += 1
            for layer, moments, found in zip(
                self.layers, self.moments, self.gradients(2 * error / error.size), strict=True
            ):
                for p, (first, second), g in zip(layer, moments, found, strict=True):
                    first += 0.1 * (g - first)
                    second += 0.001 * (g**2 - second)
                    scale = np.sqrt(second / (1 - 0.999**self.steps)) + 1e-8
                    p -= learning_rate * first / (1 - 0.9**self.steps) / scale

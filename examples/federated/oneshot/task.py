"""What a client has, what it computes, and the network that all train."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gsdd_jax
from gsdd_jax import data, federated, networks


def share(config, client):
    """Returns the images of a client, and their labels as class names."""
    dataset = data.load(config["data"])
    labels, names = dataset.train.labels, np.array(dataset.class_names)
    parts = federated.partition(
        labels, config["clients"], split=config["split"], seed=config["seed"]
    )
    mine = np.asarray(parts[client])
    return dataset.train.images[mine], names[labels[mine]]


def distilled(config, client):
    """Returns the file of a client: a set of its images, within its bytes."""
    images, labels = share(config, client)
    # A class of few images has few in the set: where many of its images are, others send more.
    fields = {"budget": {"split": "proportional"}}
    fields |= {"network": {"options": {"width": config["width"]}}}
    if config["objective"] != "none":
        fields |= {"init": {"num_steps": config["fit-steps"]}}
        fields |= {"distill": {"num_steps": config["steps"]}}
        fields |= {"parameterization": {"name": config["storage"]}}
    if config["workdir"]:
        name = "-".join(config[of] for of in ("data", "split", "objective", "storage"))
        fields |= {"workdir": pathlib.Path(config["workdir"], name, str(client))}
    made = gsdd_jax.distill(
        images, labels, config["bytes"] // len(set(labels)), objective=config["objective"],
        test=(), verbose=False, seed=config["seed"], **fields,
    )  # fmt: skip
    if spent := gsdd_jax.info(made)["privacy"]:
        print(f"client {client}: epsilon {spent['epsilon']:.3g}", flush=True)  # stays here
    return federated.pack(made)


def network_of(config):
    """Returns the network, and a function from a flat list to its parameters."""
    dataset = data.load(config["data"])
    size = dict(image_shape=dataset.image_shape, num_classes=dataset.num_classes)
    network = networks.build("convnet", **size, width=config["width"])
    structure = jax.tree.structure(jax.eval_shape(network.init, jax.random.key(0)))
    return network, lambda arrays: jax.tree.unflatten(structure, map(jnp.asarray, arrays))


def first(config):
    """Returns the initial parameters as a flat list."""
    params = network_of(config)[0].init(jax.random.key(config["seed"]))
    return [np.asarray(array) for array in jax.tree.leaves(params)]


def normalized(config, images):
    dataset = data.load(config["data"])
    return (images / np.float32(255) - np.float32(dataset.mean)) / np.float32(dataset.std)


@functools.partial(jax.jit, static_argnums=0)
def step(network, learning_rate, params, images, labels):
    """Returns the parameters after a step of SGD."""

    def loss(params):
        logits = network.apply(params, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    gradient = jax.grad(loss)(params)
    return jax.tree.map(lambda p, g: p - learning_rate * g, params, gradient)


def trained(config, arrays, client, number, epochs=1):
    """Returns parameters after epochs of SGD on a client's images, and the number of these."""
    (network, params_of), (images, labels) = network_of(config), share(config, client)
    images, names = normalized(config, images), data.load(config["data"]).class_names
    labels = np.array([names.index(name) for name in labels])

    params = params_of(arrays)
    draws, size = np.random.default_rng([config["seed"], client, number]), min(64, len(images))
    for _ in range(epochs):
        order = draws.permutation(len(images))
        for batch in order[: len(order) // size * size].reshape(-1, size):
            params = step(network, config["learning-rate"], params, images[batch], labels[batch])
    return [np.asarray(array) for array in jax.tree.leaves(params)], len(images)


def accuracy(config, arrays):
    """Returns the accuracy of parameters on the test images, in percent."""
    network, params_of = network_of(config)
    test, logits = data.load(config["data"]).test, jax.jit(network.apply)
    params, right = params_of(arrays), 0
    for images, labels in zip(
        np.array_split(test.images, 20), np.array_split(test.labels, 20), strict=True
    ):
        found = np.asarray(logits(params, normalized(config, images))).argmax(-1)
        right += (found == labels).sum()
    return 100 * right / len(test.labels)

"""The server: trains on the sets that it accepts, or averages networks in rounds."""

import contextlib
import pathlib
import time

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

import gsdd_jax
from gsdd_jax import data, federated
from oneshot import task
from oneshot.results import keep, read

# TensorFlow Datasets replaces Python's import for a moment, in all threads: not while another one
# imports the engine of the simulation.
with contextlib.suppress(ImportError):
    import ray  # noqa: F401

HEADER = 16_384  # bytes of a file besides its images: labels, sizes, class names, digests

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    methods = {"distill": one_shot, "fedavg": averaged, "local": alone, "central": central}
    if config["method"] not in methods:
        print(f"method: expected one of {', '.join(methods)}, got {config['method']}", flush=True)
        return
    if config["results"]:
        read(config)
        pathlib.Path(config["results"]).parent.mkdir(parents=True, exist_ok=True)
    if config["method"] != "central":
        wait(config, grid)
    methods[config["method"]](config, grid)


def wait(config, grid):
    """Waits for all clients, and says so once."""
    said = False
    while (there := len(list(grid.get_node_ids()))) < config["clients"]:
        if not said:
            print(f"waiting for {config['clients']} clients, {there} are there", flush=True)
        said = True
        time.sleep(1)


def asked(grid, content=None):
    """Returns a message to every client."""
    nodes = sorted(grid.get_node_ids())
    return [Message(content or RecordDict(), dst_node_id=of, message_type="train") for of in nodes]


def one_shot(config, grid):
    """Asks every client for its set, and trains on those that are accepted."""
    dataset, sets, known, total = data.load(config["data"]), [], set(), 0
    for reply in grid.send_and_receive(asked(grid)):
        if reply.has_error():
            print(f"a client failed: {reply.error.reason}", flush=True)
            continue
        try:
            client, content = sender(config, reply.content, known)
            total += len(content)
            _, owned = task.share(config, client)
            found = federated.receive(
                content, client=f"client {client}", most_bytes=config["bytes"] + HEADER,
                classes=sorted(set(owned.tolist())), image_shape=dataset.image_shape,
            )  # fmt: skip
        except gsdd_jax.UsageError as error:
            print(f"refused: {error}", flush=True)
            continue
        known.add(client)
        sets.append(found)
    if not sets:
        print("no client sent a set that was accepted", flush=True)
        return
    labels = np.array(dataset.class_names)[dataset.test.labels]
    there = np.isin(labels, [name for of in sets for name in of.class_names])
    each_epoch = -(-sum(len(of.labels) for of in sets) // 256)
    epochs = max(1, config["server-steps"] // each_epoch)
    found = gsdd_jax.evaluate(
        sets, dataset.test.images[there], labels[there], learning_rate=config["server-rate"],
        evaluate={"num_networks": config["networks"], "epochs": epochs},
        network={"options": {"width": config["width"]}}, seed=config["seed"], verbose=False,
    )  # fmt: skip
    # Images of classes that nobody sent are wrong.
    accuracies = [each * there.mean() for each in found.accuracies]
    keep(config, total, accuracies, clients=len(sets), images=sum(of.num_stored for of in sets))
    accuracy = float(np.mean(accuracies))
    print(f"{len(sets)} sets, {total:,} bytes sent, test accuracy {accuracy:.1f} %", flush=True)


def sender(config, content, known):
    """Returns who says that it sent a reply, and the file, both of the expected type.

    Raises UsageError for another reply, and for a client that sent a set before.
    """
    sent = content.get("set", {})
    client, file = sent.get("client"), sent.get("file")
    if type(client) is not int or not 0 <= client < config["clients"] or client in known:
        raise gsdd_jax.UsageError(f"client: expected a new one of {config['clients']}")
    if not isinstance(file, bytes):
        raise gsdd_jax.UsageError(f"client {client}: expected a file")
    return client, file


def averaged(config, grid):
    """Averages networks by Flower's strategy, and tests the result after every round."""
    arrays = task.first(config)
    each_round = 2 * config["clients"] * sum(array.nbytes for array in arrays)

    def tested(number, arrays):
        accuracy = task.accuracy(config, arrays.to_numpy_ndarrays())
        if number:
            keep(config, number * each_round, [accuracy], round=number)
        print(f"round {number}, {number * each_round:,} bytes sent, {accuracy:.1f} %", flush=True)
        return MetricRecord({"accuracy": accuracy})

    strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=config["clients"])
    strategy.start(
        grid=grid, initial_arrays=ArrayRecord(arrays), num_rounds=config["rounds"],
        train_config=ConfigRecord({"epochs": config["local-epochs"]}), evaluate_fn=tested,
    )  # fmt: skip


def alone(config, grid):
    """Tests a network of every client that nobody else's images or networks reached."""
    epochs = {"server-round": 1, "epochs": config["rounds"] * config["local-epochs"]}
    content = RecordDict(
        {"arrays": ArrayRecord(task.first(config)), "config": ConfigRecord(epochs)}
    )
    replies = [of for of in grid.send_and_receive(asked(grid, content)) if not of.has_error()]
    arrays = [of.content["arrays"].to_numpy_ndarrays() for of in replies if "arrays" in of.content]
    if not arrays:
        print("no client sent a network", flush=True)
        return
    accuracies = [task.accuracy(config, each) for each in arrays]
    keep(config, 0, accuracies)
    print(f"{len(accuracies)} clients alone, {np.mean(accuracies):.1f} % on average", flush=True)


def central(config, grid):
    """Tests a network that is trained on the images of all clients in one place."""
    everything = dict(config) | {"clients": 1, "split": "iid"}
    epochs = config["rounds"] * config["local-epochs"]
    arrays, _ = task.trained(everything, task.first(config), 0, 1, epochs)
    accuracy = task.accuracy(config, arrays)
    keep(config, 0, [accuracy])
    print(f"all images in one place, {accuracy:.1f} %", flush=True)

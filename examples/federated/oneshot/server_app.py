"""The server: trains on the sets that it accepts, or averages networks in rounds."""

import contextlib
import time

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

import gsdd_jax
from gsdd_jax import data, federated
from oneshot import task

# TensorFlow Datasets replaces Python's import for a moment, in all threads: not while another one
# imports the engine of the simulation.
with contextlib.suppress(ImportError):
    import ray  # noqa: F401

HEADER = 16_384  # bytes of a file besides its images: labels, sizes, class names, digests

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    while len(list(grid.get_node_ids())) < config["clients"]:
        time.sleep(1)
    if config["method"] == "distill":
        one_shot(config, grid)
    else:
        averaged(config, grid)


def one_shot(config, grid):
    """Asks every client for its set, and trains on those that are accepted."""
    dataset, sets, known, total = data.load(config["data"]), [], set(), 0
    asked = [
        Message(RecordDict(), dst_node_id=node, message_type="train")
        for node in sorted(grid.get_node_ids())
    ]
    for reply in grid.send_and_receive(asked):
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
    found = gsdd_jax.evaluate(
        sets, dataset.test.images[there], labels[there], learning_rate=0.03, verbose=False,
        evaluate={"num_networks": 1, "epochs": config["epochs"]}, seed=config["seed"],
        network={"options": {"width": config["width"]}},
    )  # fmt: skip
    accuracy = float(found) * there.mean()  # images of classes that nobody sent are wrong
    print(f"{len(sets)} sets, {total:,} bytes sent, test accuracy {accuracy:.1f} %", flush=True)


def sender(config, content, known):
    """Returns who says that it sent a reply, and the file, both of the expected type.

    Raises UsageError for another reply, and for a client that sent a set before.
    """
    sent = content.get("set", {})
    client, file = sent.get("client"), sent.get("file")
    if not isinstance(client, int) or not 0 <= client < config["clients"] or client in known:
        raise gsdd_jax.UsageError(f"client: expected a new one of {config['clients']}")
    if not isinstance(file, bytes):
        raise gsdd_jax.UsageError(f"client {client}: expected a file")
    return client, file


def averaged(config, grid):
    """Averages networks by Flower's strategy, and tests the result after every round."""
    arrays = task.first(config)
    each_round = 2 * config["clients"] * sum(array.nbytes for array in arrays)

    def tested(number, arrays):
        found = task.accuracy(config, arrays.to_numpy_ndarrays())
        print(f"round {number}, {number * each_round:,} bytes sent, {found:.1f} %", flush=True)
        return MetricRecord({"accuracy": found})

    strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=config["clients"])
    strategy.start(
        grid=grid, initial_arrays=ArrayRecord(arrays), num_rounds=config["rounds"],
        evaluate_fn=tested,
    )  # fmt: skip

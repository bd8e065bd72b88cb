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
    dataset, sets, total = data.load(config["data"]), [], 0
    asked = [
        Message(RecordDict(), dst_node_id=node, message_type="train")
        for node in sorted(grid.get_node_ids())
    ]
    for reply in grid.send_and_receive(asked):
        if reply.has_error():
            print(f"a client failed: {reply.error.reason}", flush=True)
            continue
        sent = reply.content["set"]
        total += len(sent["file"])
        _, owned = task.share(config, int(sent["client"]))
        expected = dict(classes=sorted(set(owned.tolist())), image_shape=dataset.image_shape)
        try:
            found = federated.receive(
                sent["file"], client=f"client {sent['client']}",
                most_bytes=config["bytes"] + HEADER, **expected,
            )  # fmt: skip
        except gsdd_jax.UsageError as error:
            print(f"refused: {error}", flush=True)
            continue
        sets.append(found)
    labels = np.array(dataset.class_names)[dataset.test.labels]
    known = np.isin(labels, [name for of in sets for name in of.class_names])
    found = gsdd_jax.evaluate(
        sets, dataset.test.images[known], labels[known], learning_rate=0.03, verbose=False,
        evaluate={"num_networks": 1, "epochs": config["epochs"]}, seed=config["seed"],
        network={"options": {"width": config["width"]}},
    )  # fmt: skip
    accuracy = float(found) * known.mean()  # images of classes that nobody sent are wrong
    print(f"{len(sets)} sets, {total:,} bytes sent, test accuracy {accuracy:.1f} %", flush=True)


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

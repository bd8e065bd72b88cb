"""A client: sends its distilled set, or in rounds a network that it trained."""

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from oneshot import task

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    config, client = context.run_config, int(context.node_config["partition-id"])
    if config["method"] == "distill":
        found = {"client": client, "file": task.distilled(config, client)}
        return Message(RecordDict({"set": ConfigRecord(found)}), reply_to=message)
    arrays = message.content["arrays"].to_numpy_ndarrays()
    told = message.content["config"]
    number, epochs = int(told["server-round"]), int(told["epochs"])
    arrays, count = task.trained(config, arrays, client, number, epochs)
    content = {"arrays": ArrayRecord(arrays), "metrics": MetricRecord({"num-examples": count})}
    return Message(RecordDict(content), reply_to=message)

"""A federation like Flower's examples for transformers: FedAvg, and a ClientApp that loads everything each time."""

from typing import Any

import torch
import transformers
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict


def build(folder: str) -> Any:
    """Load base model and adapter from the disk."""
    transformers.logging.set_verbosity_error()
    base = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
    config = LoraConfig(r=8, lora_alpha=8, target_modules=["query", "value"], task_type="SEQ_CLS")
    return get_peft_model(base, config)


def train(model: Any, records: list[dict[str, Any]], folder: str) -> None:
    """Train one epoch in batches of 8, padded to the longest text."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    for start in range(0, len(records), 8):
        rows = records[start : start + 8]
        batch = tokenizer([row["text"] for row in rows], padding=True, truncation=True, return_tensors="pt")
        labels = torch.tensor([int(row["label"] == "positive") for row in rows])
        optimizer.zero_grad()
        model(**batch, labels=labels).loss.backward()
        optimizer.step()


def run_example(shares: list[list[dict[str, Any]]], folder: str) -> None:
    """Run one round over all institutions on Flower's Ray engine."""
    client = ClientApp()

    @client.train()
    def fit(message: Message, context: Context) -> Message:
        model = build(folder)
        set_peft_model_state_dict(model, message.content["arrays"].to_torch_state_dict())  # type: ignore[union-attr]
        records = shares[int(context.node_config["partition-id"])]
        train(model, records, folder)
        content = {
            "arrays": ArrayRecord(get_peft_model_state_dict(model)),
            "metrics": MetricRecord({"num-examples": len(records)}),
        }
        return Message(RecordDict(content), reply_to=message)  # type: ignore[arg-type]

    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        strategy = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_available_nodes=len(shares))
        arrays = ArrayRecord(get_peft_model_state_dict(build(folder)))
        result = strategy.start(grid, arrays, num_rounds=1, train_config=ConfigRecord())
        if result.train_metrics_clientapp.get(1) is None:
            raise RuntimeError("Flower's example did not train")

    run_simulation(
        server_app=server,
        client_app=client,
        num_supernodes=len(shares),
        backend_config={"client_resources": {"num_cpus": 1}},
    )

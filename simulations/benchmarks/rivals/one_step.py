"""The same work as users write it today: PEFT with the Hugging Face Trainer's defaults, and unmodified Opacus.

Both train LoRA factors A and B of rank 8 on query and value, and a classification head, in float32. Batches are padded
to their longest text. The Trainer's batch is 8; Opacus' is ours.
"""

import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset
from opacus import PrivacyEngine  # noqa: TID251 - the rival
from opacus.utils.batch_memory_manager import BatchMemoryManager
from peft import LoraConfig, get_peft_model
from torch.utils.data import DataLoader

Seconds = Callable[[int], float]


def _model(folder: Path, targets: list[str]) -> tuple[Any, Any]:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    base = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2, dtype=torch.float32)
    base.config.pad_token_id = tokenizer.pad_token_id
    config = LoraConfig(r=8, lora_alpha=8, target_modules=targets, task_type="SEQ_CLS")
    return get_peft_model(base, config), tokenizer


def _encoded(records: list[dict[str, Any]], tokenizer: Any) -> list[dict[str, Any]]:
    rows = []
    for record in records:
        ids = tokenizer(record["text"], truncation=True, max_length=128)["input_ids"]
        rows.append({"input_ids": ids, "labels": int(record["label"] == "positive")})
    return rows


def trainer(records: list[dict[str, Any]], folder: Path, targets: list[str]) -> Seconds:
    """Return ``seconds(examples)``: the Trainer's time for so many examples, at its defaults."""
    model, tokenizer = _model(folder, targets)
    data = Dataset.from_list(_encoded(records, tokenizer))
    collator = transformers.DataCollatorWithPadding(tokenizer)

    def seconds(examples: int) -> float:
        with tempfile.TemporaryDirectory() as output:
            settings = transformers.TrainingArguments(
                output, max_steps=examples // 8, report_to=[], save_strategy="no", disable_tqdm=True, log_level="error"
            )
            learner = transformers.Trainer(model, settings, train_dataset=data, data_collator=collator)
            learner.remove_callback(transformers.trainer_callback.PrinterCallback)  # standard output is for figures
            began = time.perf_counter()
            learner.train()
            return time.perf_counter() - began

    return seconds


def opacus(records: list[dict[str, Any]], folder: Path, targets: list[str], batch: int) -> Seconds:
    """Return ``seconds(examples)``: the time of Opacus' PrivacyEngine, in physical batches of 32."""
    warnings.simplefilter("ignore")
    model, tokenizer = _model(folder, targets)
    collator = transformers.DataCollatorWithPadding(tokenizer)
    rows: Any = _encoded(records, tokenizer)
    loader: Any = DataLoader(rows, batch_size=batch, collate_fn=collator)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    private, optimizer, loader = PrivacyEngine().make_private(
        module=model.train(),
        optimizer=torch.optim.AdamW(trained, lr=1e-3),
        data_loader=loader,
        noise_multiplier=1.3,
        max_grad_norm=1.0,
    )

    def seconds(examples: int) -> float:
        began, seen = time.perf_counter(), 0
        with BatchMemoryManager(data_loader=loader, max_physical_batch_size=32, optimizer=optimizer) as small:
            for inputs in small:
                optimizer.zero_grad()
                private(**inputs).loss.backward()
                optimizer.step()
                seen += len(inputs["input_ids"])
                if seen >= examples:
                    break
        return (time.perf_counter() - began) * examples / seen  # the last batch may run over

    return seconds

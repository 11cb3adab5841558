"""The models of specs/models and of real size as a good user of PyTorch writes them: nn modules
and autograd.

Attention, convolutions, pools, normalisations and recurrent layers are torch's own and fused where
it has fused ones, and so are the optimizers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from contract import Given
from native_torch import DEVICE, place
from torch import Tensor, nn
from torch_attention import Bert, Gpt, Llama, Moe, Vit
from torch_images import Lenet, Resnet, Resnet50, ResnetBottleneck, Unet
from torch_layers import Arrays
from torch_others import Dlrm, Gcn, LstmLanguageModel, Mamba, Mlp, Seq2seq, Tagger, Vae
from torch_parts import Model

MODELS: Mapping[str, type[Model]] = {
    "bert": Bert,
    "bilstm_tagger": Tagger,
    "dlrm": Dlrm,
    "gcn": Gcn,
    "gpt": Gpt,
    "lenet": Lenet,
    "llama": Llama,
    "lstm_language_model": LstmLanguageModel,
    "mamba": Mamba,
    "mlp": Mlp,
    "moe": Moe,
    "resnet": Resnet,
    "resnet50": Resnet50,
    "resnet_bottleneck": ResnetBottleneck,
    "seq2seq_attention": Seq2seq,
    "unet": Unet,
    "vae": Vae,
    "vit": Vit,
}
OPTIMIZERS: Mapping[str, Callable[[Any, float, Mapping[str, Any]], torch.optim.Optimizer]] = {
    "sgd": lambda p, rate, n: torch.optim.SGD(p, rate, fused=True),
    "sgd_momentum": lambda p, rate, n: torch.optim.SGD(p, rate, n["momentum"], fused=True),
    "adam": lambda p, rate, n: torch.optim.Adam(
        p, rate, (n["beta_1"], n["beta_2"]), n["epsilon"], fused=True
    ),
    "adamw": lambda p, rate, n: torch.optim.AdamW(
        p, rate, (n["beta_1"], n["beta_2"]), n["epsilon"], n["weight_decay"], fused=True
    ),
}
# The learning rate of mlp: a warm-up and half a cosine, as its spec says; and the most that its
# gradient may be long.
FIRST, LAST, LONGEST = 50, 5000, 1.0


def warmup_cosine(step: int) -> float:
    """The factor of the learning rate at a step, from 0 on."""
    rest = min(1.0, max(0.0, (step + 1 - FIRST) / (LAST - FIRST)))
    return min(1.0, (step + 1) / FIRST) * (0.5 + 0.5 * math.cos(math.pi * rest))


class Steps:
    """Steps of one model; ``start`` returns the loss, or the output, without waiting."""

    def __init__(
        self,
        mode: str,
        model: Model,
        optimizer: torch.optim.Optimizer,
        scheduled: bool,
        batches: Sequence[Mapping[str, Arrays]],
    ) -> None:
        self.mode, self.model, self.optimizer = mode, model, optimizer
        self.predict, self.lose = model.predict, model.lose
        self.schedule = None
        if scheduled:
            self.schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warmup_cosine)
        self.feed(batches)

    def feed(self, batches: Sequence[Mapping[str, Arrays]]) -> None:
        """Put other batches on the device."""
        self.batches = [(place(b["inputs"]), place(b["targets"])) for b in batches]

    def start(self, index: int) -> Tensor:
        """Begin a step on batch ``index`` modulo their number."""
        inputs, targets = self.batches[index % len(self.batches)]
        if self.mode == "forward":
            with torch.inference_mode():
                return self.predict(inputs)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.lose(inputs, targets)
        loss.backward()
        if self.schedule is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), LONGEST)
        self.optimizer.step()
        if self.schedule is not None:
            self.schedule.step()
        return loss.detach()

    def finish(self, handle: Tensor) -> dict[str, np.ndarray]:
        """Wait for a step: its loss, or its output by name."""
        name = "loss" if self.mode == "train" else f"output.{self.model.output}"
        return {name: handle.cpu().numpy()}


def make(given: Given) -> Steps:
    """Steps of a model in mode ``train`` or ``forward``, from the given parameters."""
    model = MODELS[given.system]({**given.parameters, **given.statistics}, given.sizes)
    model = model.to(DEVICE, memory_format=torch.channels_last).train(given.mode == "train")
    trained = [p for p in model.parameters() if p.requires_grad]
    chosen = OPTIMIZERS[given.optimizer["optimizer"]](trained, given.learning_rate, given.optimizer)
    return Steps(given.mode, model, chosen, given.system == "mlp", given.batches)

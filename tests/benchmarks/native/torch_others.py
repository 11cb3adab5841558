"""The torch models without attention or images: mlp, vae, dlrm, gcn, taggers, readers, mamba."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch_layers import Arrays, FusedGru, fill, gates
from torch_parts import Model, Tensors, dense, embedding, inside, mean_of, part, parts, rms_norm

Sizes = Mapping[str, int]


class Mlp(Model):
    """The next character from embeddings side by side."""

    output = "next_char"

    def __init__(self, arrays: Arrays, sizes: Sizes) -> None:
        super().__init__()
        hidden = [dense(arrays, f"hidden_layers.{n}") for n in range(sizes["depth"])]
        layers = [embedding(arrays["embed.table"]), nn.Flatten(1)]
        for layer in (dense(arrays, "first"), *hidden):
            layers += [layer, nn.GELU()]
        self.layers = nn.Sequential(*layers, dense(arrays, "out"))

    def forward(self, inputs: Tensors) -> Tensor:
        return self.layers(inputs["chars"])


class Vae(Model):
    """An auto-encoder whose code is drawn: the noise comes with the batch, for all sides alike."""

    output = "image"

    def __init__(self, arrays: Arrays, sizes: Sizes) -> None:
        super().__init__()
        self.encoder, self.center, self.log_variance, self.decoder, self.out = (
            dense(arrays, n) for n in ("encoder", "center", "log_variance", "decoder", "out")
        )

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log of the variance of the code."""
        h = torch.tanh(self.encoder(x))
        return self.center(h), self.log_variance(h)

    def decode(self, z: Tensor) -> Tensor:
        """Logits of an image."""
        return self.out(torch.tanh(self.decoder(z)))

    def predict(self, inputs: Tensors) -> Tensor:
        return torch.sigmoid(self.decode(self.encode(inputs["x"])[0]))

    def lose(self, inputs: Tensors, targets: Tensors) -> Tensor:
        x = inputs["x"]
        mu, spread = self.encode(x)
        logits = self.decode(mu + torch.exp(0.5 * spread) * inputs["sample.unit"])
        rebuilt = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        divergence = -0.5 * torch.sum(1 + spread - mu.pow(2) - spread.exp())
        return (rebuilt + divergence) / len(x)


class Dlrm(Model):
    """Numbers and bags of categories, and their inner products."""

    output = "probability"

    def __init__(self, arrays: Arrays, sizes: Sizes) -> None:
        super().__init__()
        self.bottom, self.top = (
            nn.Sequential(dense(arrays, f"{name}_1"), nn.ReLU(), dense(arrays, f"{name}_2"))
            for name in ("bottom", "top")
        )
        self.items, self.users = (
            nn.EmbeddingBag.from_pretrained(
                torch.tensor(arrays[f"{name}_table.table"]), freeze=False, mode="sum"
            )
            for name in ("item", "user")
        )
        row, column = torch.tril_indices(3, 3, -1)
        self.register_buffer("row", row)
        self.register_buffer("column", column)

    def forward(self, inputs: Tensors) -> Tensor:
        x = F.relu(self.bottom(inputs["dense_features"]))
        bags = self.items(inputs["seen_items"]), self.users(inputs["like_users"])
        rows = torch.stack((x, *bags), 1)
        pairs = torch.bmm(rows, rows.mT)[:, self.row, self.column]
        return self.top(torch.cat((x, pairs), 1))[:, 0]

    def predict(self, inputs: Tensors) -> Tensor:
        return torch.sigmoid(self(inputs))

    def lose(self, inputs: Tensors, targets: Tensors) -> Tensor:
        logit = self(inputs)
        return F.binary_cross_entropy_with_logits(logit, targets["followed"].to(logit.dtype))


class Gcn(Model):
    """Two graph convolutions."""

    output = "classes_of_nodes"

    def __init__(self, arrays: Arrays, sizes: Sizes) -> None:
        super().__init__()
        # The bias comes after the sum over the edges.
        for name in ("first", "second"):
            setattr(self, name, dense({f"{name}.W": arrays[f"{name}.W"]}, name))
            setattr(self, f"{name}_bias", nn.Parameter(torch.tensor(arrays[f"{name}.b"])))

    def forward(self, inputs: Tensors) -> Tensor:
        x, sender, receiver = (inputs[n] for n in ("x", "sender", "receiver"))
        degree = 1 + torch.bincount(receiver, minlength=x.shape[1])
        norm = degree.to(x.dtype).rsqrt()
        weight = (norm[sender] * norm[receiver])[:, None]
        own = (norm * norm)[:, None]

        def convolve(layer: nn.Linear, bias: Tensor, x: Tensor) -> Tensor:
            x = layer(x)
            return torch.index_add(own * x, 1, receiver, weight * x[:, sender]) + bias

        return convolve(
            self.second, self.second_bias, F.relu(convolve(self.first, self.first_bias, x))
        )


class Tagger(Model):
    """Two LSTM layers that read in both directions what has not ended: one nn.LSTM."""

    output = "chances"

    def __init__(self, arrays: Arrays, sizes: Sizes) -> None:
        super().__init__()
        self.embed, self.out = embedding(arrays["embed.table"]), dense(arrays, "out")
        self.lstm = nn.LSTM(
            sizes["factors"], sizes["hidden"], 2, batch_first=True, bidirectional=True
        )
        for number in (1, 2):
            for way, end in (("", ""), ("back_", "_reverse")):
                kinds = [f"{way}{letter}" for letter in "WUb"]
                kernel, recurrent, bias = gates(arrays, f"read_{number}", kinds, "ifgo")
                given = {"weight_ih": kernel.T, "weight_hh": recurrent.T, "bias_ih": bias}
                given["bias_hh"] = np.zeros_like(bias)
                fill(self.lstm, **{f"{n}_l{number - 1}{end}": a for n, a in given.items()})
                # Two trained biases would move twice as far as the one that the model has.
                getattr(self.lstm, f"bias_hh_l{number - 1}{end}").requires_grad_(False)

    def forward(self, inputs: Tensors) -> Tensor:
        rows = self.embed(inputs["sentence"])
        # Packed, a row has a step at least.
        lengths = inputs["lengths"].clamp(min=1).cpu()
        packed = pack_padded_sequence(rows, lengths, batch_first=True, enforce_sorted=False)
        read, _ = pad_packed_sequence(
            self.lstm(packed)[0], batch_first=True, total_length=rows.shape[1]
        )
        return self.out(read * inside(rows, inputs["lengths"])[..., None])

    def lose(self, inputs: Tensors, targets: Tensors) -> Tensor:
        kept = inside(inputs["sentence"], inputs["lengths"])
        return mean_of(kept, self(inputs), targets["tag"])


class LstmLanguageModel(Model):
    """Two LSTM layers as one nn.LSTM."""

    output = "next_words"

    def __init__(self, arrays: Arrays, sizes: Sizes) -> None:
        super().__init__()
        self.embed, self.out = embedding(arrays["embed.table"]), dense(arrays, "out")
        self.lstm = nn.LSTM(sizes["units"], sizes["units"], 2, batch_first=True)
        for number in (1, 2):
            kernel, recurrent, bias = gates(arrays, f"lstm_{number}", "WUb", "ifgo")
            given = {"weight_ih": kernel.T, "weight_hh": recurrent.T, "bias_ih": bias}
            given["bias_hh"] = np.zeros_like(bias)
            fill(self.lstm, **{f"{n}_l{number - 1}": a for n, a in given.items()})
            # Two trained biases would move twice as far as the one that the model has.
            getattr(self.lstm, f"bias_hh_l{number - 1}").requires_grad_(False)

    def forward(self, inputs: Tensors) -> Tensor:
        return self.out(self.lstm(self.embed(inputs["words"]))[0])


class Seq2seq(Model):
    """A reader and a writer that looks at all that was read."""

    output = "next_words"

    def __init__(self, arrays: Arrays, sizes: Sizes) -> None:
        super().__init__()
        self.embed_read, self.embed_written = (
            embedding(arrays[f"embed_{name}.table"]) for name in ("read", "written")
        )
        self.reader, self.writer = (
            FusedGru({f"gru.{n}": a for n, a in part(arrays, name).items()})
            for name in ("reader", "writer")
        )
        self.join, self.out = dense(arrays, "join"), dense(arrays, "out")

    def forward(self, inputs: Tensors) -> Tensor:
        memory, _ = self.reader(self.embed_read(inputs["read"]), ())
        h, _ = self.writer(self.embed_written(inputs["before"]), ())
        ended = ~inside(memory, inputs["lengths"])
        scores = torch.bmm(h, memory.mT).masked_fill(ended[:, None], -1e30)
        context = torch.bmm(scores.softmax(-1), memory)
        return self.out(torch.tanh(self.join(torch.cat((context, h), -1))))


class MambaBlock(nn.Module):
    """A short convolution and a selective scan, gated, beside what goes by."""

    def __init__(self, arrays: Arrays, sizes: Sizes) -> None:
        super().__init__()
        self.norm = rms_norm(arrays, "norm")
        self.up, self.gate, self.down = (dense(arrays, n) for n in ("up", "gate", "down"))
        kernel, inner = arrays["conv.W"].shape
        self.conv = nn.Conv1d(inner, inner, kernel, groups=inner, padding=kernel - 1)
        fill(self.conv, weight=arrays["conv.W"].T[:, None], bias=arrays["conv.b"])
        scan = part(arrays, "scan")
        self.delta = dense({"delta.W": scan["W_delta"], "delta.b": scan["b_delta"]}, "delta")
        both = np.concatenate((scan["W_in"], scan["W_out"]), -1)
        self.both, self.states = dense({"both.W": both}, "both"), both.shape[1] // 2
        self.log_rate = nn.Parameter(torch.tensor(scan["log_rate"]))
        self.direct = nn.Parameter(torch.tensor(scan["direct"]))
        self.register_buffer("counts", torch.arange(self.states) + 1.0)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        inner = self.conv(self.up(h).mT)[..., : x.shape[1]].mT
        return x + self.down(self.scan(F.silu(inner)) * F.silu(self.gate(h)))

    def scan(self, x: Tensor) -> Tensor:
        """A loop over the steps, after all that needs no state."""
        delta = F.softplus(self.delta(x))
        b, c = self.both(x).chunk(2, -1)
        rate = self.log_rate.exp() * self.counts
        decay = torch.exp(-delta[..., None] * rate)
        added = (delta * x)[..., None] * b[:, :, None]
        h, states = torch.zeros_like(added[:, 0]), []
        for decay_t, added_t in zip(decay.unbind(1), added.unbind(1), strict=True):
            h = decay_t * h + added_t
            states.append(h)
        y = torch.einsum("btfs,bts->btf", torch.stack(states, 1), c)
        return y + self.direct * x


class Mamba(Model):
    """Blocks of a state space."""

    def __init__(self, arrays: Arrays, sizes: Sizes) -> None:
        super().__init__()
        self.embed, self.norm = embedding(arrays["embed.table"]), rms_norm(arrays, "norm")
        self.blocks = nn.Sequential(*(MambaBlock(own, sizes) for own in parts(arrays, "blocks")))
        self.out = dense(arrays, "out")

    def forward(self, inputs: Tensors) -> Tensor:
        return self.out(self.norm(self.blocks(self.embed(inputs["chars"]))))

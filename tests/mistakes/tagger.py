"""A tagger of two bidirectional LSTM layers, and the same model with mistakes."""

import torch
from torch import nn


class Right(nn.Module):
    def __init__(self, vocab=23, width=6, hidden=5, tags=4):
        super().__init__()
        self.emb = nn.Embedding(vocab, width)
        self.drop = nn.Dropout(0.3)
        self.lstm = nn.LSTM(width, hidden, num_layers=2, batch_first=True, bidirectional=True)
        self.norm = nn.LayerNorm(2 * hidden)
        self.fc = nn.Linear(2 * hidden, tags)
        self.plant()

    def plant(self):
        pass

    def read(self, words):
        return self.drop(self.emb(words))

    def states(self, x):
        return self.lstm(x)[0]

    def tag(self, x):
        return self.fc(self.norm(x))

    def forward(self, words):
        return self.tag(self.states(self.read(words)))


class OrderOfGates(Right):
    """The gates have the order of ONNX: input, output, forget, cell."""

    def change(self, parameter):
        i, f, g, o = parameter.chunk(4)
        return torch.cat([i, g, o, f])

    def states(self, x):
        before = {n: p.clone() for n, p in self.lstm.named_parameters()}
        with torch.no_grad():
            for name, parameter in self.lstm.named_parameters():
                parameter.copy_(self.change(before[name]))
        try:
            return super().states(x)
        finally:
            with torch.no_grad():
                for name, parameter in self.lstm.named_parameters():
                    parameter.copy_(before[name])


class ForgetBias(OrderOfGates):
    def change(self, parameter):
        i, f, g, o = parameter.chunk(4)
        return torch.cat([i, f + 1, g, o]) if parameter.ndim == 1 else parameter


class BackwardsFirst(Right):
    def states(self, x):
        return torch.cat(super().states(x).chunk(2, -1)[::-1], -1)


class NotReversedBack(Right):
    """The steps of the backward direction keep their reversed order."""

    def states(self, x):
        forwards, backwards = super().states(x).chunk(2, -1)
        return torch.cat([forwards, backwards.flip(1)], -1)


class ForwardsTwice(Right):
    def states(self, x):
        forwards, _ = super().states(x).chunk(2, -1)
        return torch.cat([forwards, forwards], -1)


class TimeFirst(Right):
    def plant(self):
        self.lstm.batch_first = False


class NormOverTime(Right):
    def tag(self, x):
        return super().tag(x.transpose(1, 2).reshape(x.shape))


class NormWithoutMean(Right):
    """The norm is an RMS norm."""

    def plant(self):
        norm = self.norm
        norm.forward = lambda x: (
            x * (x.square().mean(-1, keepdim=True) + norm.eps).rsqrt() * norm.weight + norm.bias
        )


class SampleDeviation(Right):
    def plant(self):
        norm = self.norm
        norm.forward = lambda x: (
            (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + norm.eps) * norm.weight
            + norm.bias
        )


class NormBeforeLstm(Right):
    """An embedding is normalised although the spec does not do so."""

    def read(self, words):
        return nn.functional.layer_norm(super().read(words), [self.emb.embedding_dim])


class ActiveDropout(Right):
    def read(self, words):
        return nn.functional.dropout(self.emb(words), 0.3)


class LogSoftmax(Right):
    def tag(self, x):
        return super().tag(x).log_softmax(-1)

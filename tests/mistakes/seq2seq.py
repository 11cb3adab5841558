"""An encoder and a decoder of GRUs with attention, and the same model with mistakes. The spec is
``seq2seq_attention``."""

import torch
from torch import nn


class Right(nn.Module):
    def __init__(self, vocab=40, words=30, factors=16, hidden=24):
        super().__init__()
        self.emb_read, self.emb_written = nn.Embedding(vocab, factors), nn.Embedding(words, factors)
        self.reader = nn.GRU(factors, hidden, batch_first=True)
        self.writer = nn.GRU(factors, hidden, batch_first=True)
        self.join = nn.Linear(2 * hidden, hidden, bias=False)
        self.out = nn.Linear(hidden, words)

    def start(self, last):
        return None

    def scores(self, h, memory):
        return h @ memory.transpose(1, 2)

    def chances(self, scores, inside):
        return scores.masked_fill(~inside[:, None], -1e30).softmax(-1)

    def joined(self, context, h):
        return self.join(torch.cat([context, h], -1)).tanh()

    def forward(self, read, lengths, before):
        memory, last = self.reader(self.emb_read(read))
        h, _ = self.writer(self.emb_written(before), self.start(last))
        inside = torch.arange(read.shape[1])[None] < lengths[:, None]
        context = self.chances(self.scores(h, memory), inside) @ memory
        return self.out(self.joined(context, h))


class StartsFromReader(Right):
    def start(self, last):
        return last


class IgnoresPadding(Right):
    def chances(self, scores, inside):
        return scores.softmax(-1)


class ScaledScores(Right):
    def scores(self, h, memory):
        return super().scores(h, memory) / memory.shape[-1] ** 0.5


class OtherAxis(Right):
    def chances(self, scores, inside):
        return scores.masked_fill(~inside[:, None], -1e30).softmax(1)


class OtherOrder(Right):
    def joined(self, context, h):
        return super().joined(h, context)


class NoTanh(Right):
    def joined(self, context, h):
        return self.join(torch.cat([context, h], -1))


class ReadsBackwards(Right):
    def forward(self, read, lengths, before):
        return super().forward(read.flip(1), lengths, before)

"""A language model of two layers of LSTM, and the same model with mistakes."""

import torch
from torch import nn
from torch.nn.functional import dropout


class Right(nn.Module):
    first = True

    def __init__(self, vocab=19, factors=12, hidden=10):
        super().__init__()
        self.emb = nn.Embedding(vocab, factors)
        self.rnn = nn.LSTM(factors, hidden, num_layers=2, batch_first=self.first)
        self.fc = nn.Linear(hidden, vocab)
        self.plant()

    def plant(self):
        pass

    def read(self, chars):
        return self.emb(chars)

    def states(self, x):
        return self.rnn(x)[0]

    def forward(self, chars):
        return self.fc(self.states(self.read(chars)))


class TimeFirst(Right):
    first = False


class ActiveDropout(Right):
    def states(self, x):
        return dropout(super().states(x), 0.5)


class ScaledEmbedding(Right):
    def read(self, chars):
        return super().read(chars) * self.emb.embedding_dim**0.5


class LastStateOnly(Right):
    def states(self, x):
        y, (h, _) = self.rnn(x)
        return h[-1][:, None].expand_as(y)


class ForgetBias(Right):
    def states(self, x):
        size = self.rnn.hidden_size
        with torch.no_grad():
            self.rnn.bias_ih_l0[size : 2 * size] += 1
        try:
            return super().states(x)
        finally:
            with torch.no_grad():
                self.rnn.bias_ih_l0[size : 2 * size] -= 1


class Backwards(Right):
    def states(self, x):
        return super().states(x.flip(1))


class ExtraTanh(Right):
    def states(self, x):
        return super().states(x).tanh()

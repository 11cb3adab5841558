"""Models of torch in small sizes, with random weights, for ``ports.py``."""

from __future__ import annotations

from torch import nn

# The inputs of each model.
INPUTS = {
    "Mlp": ["x=batch,12"],
    "lstm": ["chars=batch,time:40"],
    "gru": ["chars=batch,time:40"],
    "transformer_encoder": ["src=batch,time,32"],
}


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(12, 32), nn.Linear(32, 5)

    def forward(self, x):
        return self.down(self.up(x).relu())


class Recurrent(nn.Module):
    def __init__(self, kind=nn.LSTM, **options):
        super().__init__()
        self.embed = nn.Embedding(40, 12)
        self.rnn = kind(12, 16, batch_first=True, **options)
        self.out = nn.Linear(32 if options.get("bidirectional") else 16, 5)

    def forward(self, chars):
        return self.out(self.rnn(self.embed(chars))[0])


def lstm():
    return Recurrent(num_layers=2, bidirectional=True)


def gru():
    return Recurrent(nn.GRU)


def transformer_encoder():
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2)

"""Models of other libraries that ``python tests/benchmarks/ports.py`` ports, in small sizes.

Each function returns a model with random weights. The environment needs transformers, timm and
torchvision.
"""

from __future__ import annotations

import timm
import torchvision
import transformers
from torch import nn

TEXT = {"vocab_size": 86, "bos_token_id": 0, "eos_token_id": 0}
WIDTHS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


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


def gpt2():
    sizes = {"n_positions": 64, "n_embd": 32, "n_layer": 3, "n_head": 4, "use_cache": False}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**TEXT, **sizes))


def llama():
    sizes = {"intermediate_size": 48, "num_key_value_heads": 2, "use_cache": False}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**TEXT, **WIDTHS, **sizes))


def qwen2():
    sizes = {"intermediate_size": 48, "num_key_value_heads": 2, "use_cache": False}
    return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**TEXT, **WIDTHS, **sizes))


def bert():
    config = transformers.BertConfig(vocab_size=86, intermediate_size=48, **WIDTHS)
    return transformers.BertForMaskedLM(config)


def distilbert():
    config = transformers.DistilBertConfig(
        vocab_size=86, dim=32, hidden_dim=48, n_layers=2, n_heads=4
    )
    return transformers.DistilBertForMaskedLM(config)


def hf_vit():
    config = transformers.ViTConfig(image_size=16, patch_size=4, intermediate_size=48, **WIDTHS)
    return transformers.ViTForImageClassification(config)


def t5():
    config = transformers.T5Config(
        vocab_size=86, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, use_cache=False
    )
    return transformers.T5EncoderModel(config)


def mixtral():
    sizes = {"intermediate_size": 48, "num_key_value_heads": 2, "use_cache": False}
    return transformers.MixtralForCausalLM(transformers.MixtralConfig(**TEXT, **WIDTHS, **sizes))


def timm_vit():
    return timm.models.VisionTransformer(
        img_size=16, patch_size=4, embed_dim=32, depth=2, num_heads=4, num_classes=10
    )


def convnext():
    return timm.models.ConvNeXt(depths=(2, 2, 2, 2), dims=(8, 16, 24, 32), num_classes=10)


def mixer():
    return timm.models.MlpMixer(
        img_size=16, patch_size=4, num_blocks=2, embed_dim=32, num_classes=10
    )


def resnet18():
    return torchvision.models.resnet18(num_classes=10)


def resnet50():
    return torchvision.models.resnet50(num_classes=10)


def vgg11_bn():
    return torchvision.models.vgg11_bn(num_classes=10)


def mobilenet_v3_small():
    return torchvision.models.mobilenet_v3_small(num_classes=10)


def densenet121():
    return torchvision.models.densenet121(num_classes=10)


def efficientnet_b0():
    return torchvision.models.efficientnet_b0(num_classes=10)

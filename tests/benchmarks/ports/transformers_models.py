"""Models of transformers in small sizes, with random weights, for ``ports.py``."""

from __future__ import annotations

import transformers

# The inputs of each model.
INPUTS = {
    "gpt2": ["input_ids=batch,time:86"],
    "llama": ["input_ids=batch,time:86"],
    "qwen2": ["input_ids=batch,time:86"],
    "bert": ["input_ids=batch,time:86"],
    "distilbert": ["input_ids=batch,time:86"],
    "vit": ["pixel_values=batch,3,16,16"],
    "t5_encoder": ["input_ids=batch,time:86"],
    "t5": ["input_ids=batch,time:86", "decoder_input_ids=batch,steps:86"],
    "whisper": ["input_features=batch,8,32", "decoder_input_ids=batch,time:86"],
    "mamba": ["input_ids=batch,8:86"],
    "mixtral": ["input_ids=batch,time:86"],
}

TEXT = {"vocab_size": 86, "bos_token_id": 0, "eos_token_id": 0}
WIDTHS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


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


def vit():
    config = transformers.ViTConfig(image_size=16, patch_size=4, intermediate_size=48, **WIDTHS)
    return transformers.ViTForImageClassification(config)


def t5_config():
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    return transformers.T5Config(vocab_size=86, use_cache=False, **sizes)


def t5_encoder():
    return transformers.T5EncoderModel(t5_config())


def t5():
    return transformers.T5ForConditionalGeneration(t5_config())


def whisper():
    sizes = {"d_model": 32, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "num_mel_bins": 8}
    sizes |= {"encoder_layers": 2, "decoder_layers": 2, "max_source_positions": 16}
    sizes |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "use_cache": False}
    tokens = {"pad_token_id": 0, "decoder_start_token_id": 1, "bos_token_id": 1, "eos_token_id": 2}
    config = transformers.WhisperConfig(vocab_size=86, max_target_positions=64, **sizes, **tokens)
    return transformers.WhisperForConditionalGeneration(config)


def mamba():
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "use_cache": False}
    return transformers.MambaForCausalLM(transformers.MambaConfig(vocab_size=86, **sizes))


def mixtral():
    sizes = {"intermediate_size": 48, "num_key_value_heads": 2, "use_cache": False}
    return transformers.MixtralForCausalLM(transformers.MixtralConfig(**TEXT, **WIDTHS, **sizes))

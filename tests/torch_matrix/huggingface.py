"""Models of Hugging Face transformers, tiny, with random weights; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from tests.torch_matrix.case import FOLDED, PLAIN, Case, Feed, f, ids

WORDS = 30


class Named(nn.Module):
    """Calls a model with its arguments by name, and returns one of its results."""

    def __init__(self, model: nn.Module, names: tuple[str, ...], result: str, **fixed: Any) -> None:
        super().__init__()
        self.model, self.names, self.result, self.fixed = model, names, result, fixed

    def forward(
        self, x: torch.Tensor, y: torch.Tensor | None = None, z: torch.Tensor | None = None
    ) -> torch.Tensor:
        given = {n: a for n, a in zip(self.names, (x, y, z), strict=False) if a is not None}
        return getattr(self.model(**given, **self.fixed), self.result)


TEXT = ("input_ids", "attention_mask")
TOKENS = ids(WORDS, "N", 6)
MASK = Feed(("N", 6), "mask")
IMAGE = f("N", 3, 16, 16)


def bert(attention: str) -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=WORDS,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=12,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=3,
        attn_implementation=attention,
    )
    return Named(BertForSequenceClassification(config), TEXT, "logits")


def gpt2(attention: str) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=WORDS,
        n_positions=12,
        n_embd=8,
        n_layer=2,
        n_head=2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        attn_implementation=attention,
    )
    return Named(GPT2LMHeadModel(config), TEXT, "logits", use_cache=False)


def llama(attention: str) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=12,
        attn_implementation=attention,
    )
    return Named(LlamaForCausalLM(config), TEXT, "logits", use_cache=False)


def t5(attention: str) -> nn.Module:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=WORDS,
        d_model=8,
        d_kv=4,
        d_ff=16,
        num_layers=1,
        num_decoder_layers=1,
        num_heads=2,
        dropout_rate=0.0,
        attn_implementation=attention,
        decoder_start_token_id=0,
    )
    names = ("input_ids", "attention_mask", "decoder_input_ids")
    return Named(T5ForConditionalGeneration(config), names, "logits", use_cache=False)


def vit(attention: str) -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        image_size=16,
        patch_size=8,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=3,
        attn_implementation=attention,
    )
    return Named(ViTForImageClassification(config), ("pixel_values",), "logits")


def resnet() -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", num_labels=3
    )
    return Named(ResNetForImageClassification(config), ("pixel_values",), "logits")


def mobilenet() -> nn.Module:
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

    config = MobileNetV2Config(
        image_size=16,
        depth_multiplier=0.1,
        min_depth=4,
        depth_divisible_by=4,
        output_stride=8,
        classifier_dropout_prob=0.0,
        num_labels=3,
    )
    return Named(MobileNetV2ForImageClassification(config), ("pixel_values",), "logits")


def convnext() -> nn.Module:
    from transformers import ConvNextConfig, ConvNextForImageClassification

    config = ConvNextConfig(
        patch_size=2,
        num_stages=2,
        hidden_sizes=[4, 8],
        depths=[1, 1],
        drop_path_rate=0.0,
        num_labels=3,
    )
    return Named(ConvNextForImageClassification(config), ("pixel_values",), "logits")


def swin(attention: str) -> nn.Module:
    from transformers import SwinConfig, SwinForImageClassification

    config = SwinConfig(
        image_size=16,
        patch_size=2,
        embed_dim=4,
        depths=[2, 1],
        num_heads=[1, 2],
        window_size=2,
        mlp_ratio=2.0,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        drop_path_rate=0.0,
        num_labels=3,
        attn_implementation=attention,
    )
    return Named(SwinForImageClassification(config), ("pixel_values",), "logits")


def whisper(attention: str) -> nn.Module:
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    config = WhisperConfig(
        vocab_size=WORDS,
        num_mel_bins=4,
        d_model=8,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_source_positions=6,
        max_target_positions=8,
        dropout=0.0,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        attn_implementation=attention,
    )
    names = ("input_features", "decoder_input_ids")
    return Named(WhisperForConditionalGeneration(config), names, "logits", use_cache=False)


def clip(attention: str) -> nn.Module:
    from transformers import CLIPConfig, CLIPModel

    both = {
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "projection_dim": 6,
    }
    config = CLIPConfig(
        text_config={
            **both,
            "vocab_size": WORDS,
            "max_position_embeddings": 12,
            "eos_token_id": 2,
            "bos_token_id": 1,
            "pad_token_id": 0,
        },
        vision_config={**both, "image_size": 16, "patch_size": 8},
        projection_dim=6,
        attn_implementation=attention,
    )
    names = ("input_ids", "attention_mask", "pixel_values")
    return Named(CLIPModel(config), names, "logits_per_image")


def mamba() -> nn.Module:
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(
        vocab_size=WORDS,
        hidden_size=8,
        state_size=4,
        num_hidden_layers=1,
        conv_kernel=3,
        time_step_rank=2,
    )
    return Named(MambaForCausalLM(config), ("input_ids",), "logits", use_cache=False)


def _twice(
    name: str, build: Callable[[str], nn.Module], feeds: tuple[Feed, ...], **more: Any
) -> Iterator[Case]:
    for attention in ("eager", "sdpa"):
        variants = FOLDED if attention == "eager" and more.get("classes") else PLAIN
        yield Case(
            f"{name} ({attention})", lambda a=attention: build(a), feeds, variants=variants, **more
        )


def cases() -> Iterator[Case]:
    """Yield all of them."""
    for case in _cases():
        yield replace(case, single=True)


def _cases() -> Iterator[Case]:
    text = (TOKENS, MASK)
    yield from _twice("BERT", bert, text, classes=3)
    yield from _twice("GPT-2", gpt2, text, classes=WORDS)
    yield from _twice("LLaMA", llama, text, classes=WORDS)
    yield from _twice("T5", t5, (*text, ids(WORDS, "N", 5)), classes=WORDS)
    yield from _twice("ViT", vit, (IMAGE,), classes=3)
    yield from _twice("Swin", swin, (IMAGE,), classes=3)
    yield from _twice("Whisper", whisper, (f("N", 4, 12), ids(WORDS, "N", 5)), classes=WORDS)
    yield from _twice("CLIP", clip, (*text, IMAGE))
    yield Case("ResNet", resnet, (f("N", 3, 32, 32),), classes=3, variants=FOLDED)
    yield Case("MobileNetV2", mobilenet, (f("N", 3, 32, 32),), classes=3, variants=FOLDED)
    yield Case("ConvNext", convnext, (IMAGE,), classes=3, variants=FOLDED)
    yield Case("Mamba", mamba, (TOKENS,), classes=WORDS)

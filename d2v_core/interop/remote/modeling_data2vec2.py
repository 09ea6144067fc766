"""data2vec 2.0 for Hugging Face's library: an encoder of waveforms, images or text, and the heads it is fine-tuned with.

    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    features = model(**inputs).last_hidden_state

The library has classes for data2vec 1.0 only. This file has those for 2.0 (Baevski et al. 2022, arXiv 2212.07525), and
for encoders of 1.0 that mix its parts in another way. What pretraining needs beside the encoder is not here: teacher,
decoder and masks. It needs torch and transformers, and no code of the project that trained the weights.

Shapes: B samples · N audio samples · S side of an image in pixels · T tokens · D width · H heads · C labels
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import (
    BaseModelOutput,
    CausalLMOutput,
    ImageClassifierOutput,
    SequenceClassifierOutput,
)
from transformers.utils import can_return_tuple


class Data2Vec2Config(PretrainedConfig):
    """The sizes of an encoder, as the project that trained it writes them.

    ``modality`` is speech, vision or text; ``table`` says what an input is (such as the size of images); ``model`` holds
    the blocks ``local`` (signal to tokens), ``trunk`` (the transformer), and others that matter in training alone.
    ``head`` is how a fine-tuned model sums up its tokens: ctc, mean, class or first. Letters and classes are in
    ``id2label``.
    """

    model_type = "data2vec2"

    def __init__(self, modality="speech", version=2, table=None, model=None, head=None, **kwargs):
        self.modality, self.version, self.head = modality, version, head
        self.table, self.model = table or {}, model or {}
        super().__init__(**kwargs)

    local = property(lambda self: self.model["local"])
    trunk = property(lambda self: self.model["trunk"])
    hidden_size = property(lambda self: self.trunk["width"])
    num_hidden_layers = property(lambda self: self.trunk["depth"])
    num_attention_heads = property(lambda self: self.trunk["heads"])
    intermediate_size = property(lambda self: self.trunk["feedforward"])
    initializer_range = property(lambda self: self.trunk["init_std"] if self.model else 0.02)
    inputs_to_logits_ratio = property(lambda self: math.prod(self.local.get("strides", [1])))


class SpeechTokens(nn.Module):
    """Waveforms to frames: convolutions, a norm and a projection, then convolutional positions and a bias by distance."""

    def __init__(self, config: Data2Vec2Config):
        super().__init__()
        local, width = config.local, config.hidden_size
        channels = [1] + [local["channels"]] * len(local["kernels"])
        self.extractor = nn.ModuleList(map(Convolution, channels, channels[1:], local["kernels"], local["strides"]))
        self.feature_norm = nn.LayerNorm(local["channels"])
        self.projection = nn.Linear(local["channels"], width)
        kernel, groups = local["position_kernel"], local["position_groups"]
        self.positions = nn.ModuleList(PositionBlock(width, kernel, groups) for _ in range(local["position_layers"]))
        self.mask_token = nn.Parameter(torch.zeros(width)) if local["mask_token"] else None
        self.alibi_scale = nn.Parameter(torch.ones(config.num_attention_heads, 1, 1)) if local["alibi"] else None

    def forward(self, waves: Tensor, attention_mask: Tensor | None, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Turn waves [B, N], padded on the right, into frames [B, T, D]; also return which of them are padding [B, T].

        Padding is zero before every convolution over frames, so that an utterance is the same alone and in a batch.
        """
        x = waves.to(self.projection.weight.dtype).unsqueeze(1)
        for layer in self.extractor:
            x = layer(x)
        x = hide(self.projection(self.feature_norm(x.transpose(1, 2))), mask, self.mask_token)
        padding, keep = None, 1
        if attention_mask is not None:
            padding = torch.arange(x.shape[1], device=x.device) >= self.frames(attention_mask.sum(dim=1))[:, None]
            keep = (~padding).unsqueeze(-1)
        positions = x = x * keep
        for layer in self.positions:
            positions = layer(positions) * keep
        return x + positions, padding

    def frames(self, samples: Tensor) -> Tensor:
        """Return how many frames the convolutions make of ``samples`` [B]."""
        for layer in self.extractor:
            samples = (samples - layer.kernel_size[0]) // layer.stride[0] + 1
        return samples

    def bias(self, tokens: int) -> Tensor | None:
        """Return ALiBi [1, H, T, T]: minus the distance of two frames times a slope per head and its learned scale."""
        if self.alibi_scale is None:
            return None
        heads, device = len(self.alibi_scale), self.alibi_scale.device
        power = 2 ** (heads.bit_length() - 1)  # of two; slopes between its own ones fill up other numbers of heads
        slopes = [2 ** (-8 * (head + 1) / power) for head in range(power)]
        slopes += [2 ** (-4 * (head + 1) / power) for head in range(0, 2 * power, 2)][: heads - power]
        places = torch.arange(tokens, device=device)
        distance = (places[:, None] - places).abs()
        slopes = torch.tensor(slopes, dtype=torch.float32, device=device)[:, None, None]
        return -(distance * (slopes * self.alibi_scale.float().clamp(min=0))).unsqueeze(0)


class Convolution(nn.Conv1d):
    """Conv1d without bias, a norm over channels, GELU."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int):
        super().__init__(channels_in, channels_out, kernel, stride, bias=False)
        self.norm = nn.LayerNorm(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, channels_in, N] to [B, channels_out, N / stride]."""
        return F.gelu(self.norm(super().forward(x).transpose(1, 2))).transpose(1, 2)


class PositionBlock(nn.Module):
    """A grouped convolution over frames, a norm without weights, GELU."""

    def __init__(self, width: int, kernel: int, groups: int):
        super().__init__()
        self.convolution = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, T, D] to [B, T, D]; an even kernel makes one frame more, which is cut off."""
        y = self.convolution(x.transpose(1, 2)).transpose(1, 2)[:, : x.shape[1]]
        return F.gelu(F.layer_norm(y, y.shape[-1:]))


class ImageTokens(nn.Module):
    """Images to patches behind a class token; positions are fixed and added, or learned biases of the attention."""

    def __init__(self, config: Data2Vec2Config):
        super().__init__()
        local, width = config.local, config.hidden_size
        self.side, self.position_scale = config.table["size"] // local["patch"], local["positions"]
        self.patches = nn.Conv2d(config.table["channels"], width, local["patch"], local["patch"])
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width)) if local["mask_token"] else None
        shape = ((2 * self.side - 1) ** 2 + 3, config.num_attention_heads)
        tables = {"shared": shape, "block": (config.num_hidden_layers, *shape)}  # for all blocks, or one for each
        self.relative_bias = nn.Parameter(torch.zeros(tables[local["bias"]])) if local["bias"] in tables else None

    def forward(self, images: Tensor, attention_mask: None, mask: Tensor | None) -> tuple[Tensor, None]:
        """Turn images [B, channels, S, S] into a class token and patches, row by row, [B, 1 + T, D]; none is padding."""
        x = self.patches(images.to(self.patches.weight.dtype)).flatten(2).transpose(1, 2)
        x = hide(x, mask, self.mask_token)
        if self.position_scale:
            x = x + (self.position_scale * self.positions(x.shape[-1])).to(x)
        return torch.cat([self.class_token.expand(len(x), -1, -1), x], dim=1), None

    def positions(self, width: int) -> Tensor:
        """Return sines and cosines [T, D]: of the column in the first half of the channels, then of the row."""
        quarter = width // 4
        frequencies = 10000 ** (-torch.arange(quarter, dtype=torch.float64) / (width / 4))
        angles = torch.arange(self.side)[:, None] * frequencies
        waves = torch.cat([angles.sin(), angles.cos()], dim=1).float()
        column = waves.expand(self.side, -1, -1)
        return torch.cat([column, column.transpose(0, 1)], dim=-1).flatten(0, 1)

    def bias(self, tokens: int) -> Tensor | list[Tensor] | None:
        """Return the bias [1, H, 1 + T, 1 + T] by how far apart patches are, or in a list that of every block.

        The last three entries of a table are for class token to patch, patch to class token, and class token to itself.
        """
        if self.relative_bias is None:
            return None
        device, span = self.relative_bias.device, 2 * self.side - 1
        places = torch.arange(self.side**2, device=device)
        row, column = places // self.side, places % self.side
        rows, columns = (place[:, None] - place + self.side - 1 for place in (row, column))
        entry = torch.full((tokens, tokens), span**2, device=device)
        entry[1:, 1:] = rows * span + columns
        entry[1:, 0], entry[0, 0] = span**2 + 1, span**2 + 2
        shared = self.relative_bias.ndim == 2
        biases = [table[entry].permute(2, 0, 1)[None] for table in (self.relative_bias[None] if shared else self.relative_bias)]
        return biases[0] if shared else biases


class TextTokens(nn.Module):
    """Pieces of words to embeddings: of the piece plus of its place, then a norm."""

    PAD = 1

    def __init__(self, config: Data2Vec2Config):
        super().__init__()
        table, width = config.table, config.hidden_size
        self.tokens = nn.Embedding(table["vocabulary"], width, padding_idx=self.PAD)
        self.positions = nn.Embedding(table["tokens"] + self.PAD + 1, width, padding_idx=self.PAD)
        self.norm = nn.LayerNorm(width, config.trunk["epsilon"])
        self.dropout = nn.Dropout(config.local["dropout"])
        self.positions.weight.requires_grad_(config.local["train_positions"])

    def forward(self, ids: Tensor, attention_mask: Tensor | None, mask: None) -> tuple[Tensor, Tensor]:
        """Turn ids [B, T] into embeddings [B, T, D]; also return which are padding [B, T]: by their id or the mask.

        Places count from PAD + 1 over what is no padding. Text is masked in its ids, by the symbol ``<mask>``.
        """
        padding = ids == self.PAD
        if attention_mask is not None:
            padding = padding | (attention_mask == 0)
        places = ((~padding).cumsum(dim=1) + self.PAD).masked_fill(padding, self.PAD)
        x = self.dropout(self.norm(self.tokens(ids) + self.positions(places)))
        return x.masked_fill(padding.unsqueeze(-1), 0), padding

    def bias(self, tokens: int) -> None:
        """Return nothing: attention is the same at any distance."""


def hide(x: Tensor, mask: Tensor | None, token: Tensor | None) -> Tensor:
    """Put the learned ``token``, or zeros, in place of tokens [B, T, D] where ``mask`` [B, T] is True."""
    if mask is None:
        return x
    return torch.where(mask.bool().unsqueeze(-1), torch.zeros_like(x[0, 0]) if token is None else token, x)


class Attention(nn.Module):
    """Multi-head self-attention; in BEiT's form without ``key_bias`` only queries and values have a bias."""

    def __init__(self, width: int, heads: int, dropout: float, key_bias: bool):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv, self.output = nn.Linear(width, 3 * width, bias=key_bias), nn.Linear(width, width)
        if not key_bias:
            self.query_bias, self.value_bias = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Mix tokens [B, T, D]; ``bias``, which broadcasts to [B, H, T, T], is added to the logits."""
        qkv_bias = self.qkv.bias
        if qkv_bias is None:
            qkv_bias = torch.cat([self.query_bias, torch.zeros_like(self.query_bias), self.value_bias])
        qkv = F.linear(x, self.qkv.weight, qkv_bias).unflatten(-1, (3, self.heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout)
        return self.output(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Two linear layers around a GELU."""

    def __init__(self, width: int, inner: int, dropout: float):
        super().__init__()
        self.expand, self.contract, self.dropout = nn.Linear(width, inner), nn.Linear(inner, width), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Transform every token of [B, T, D] by itself."""
        return self.contract(self.dropout(F.gelu(self.expand(x))))


class Block(nn.Module):
    """Attention and feed-forward with residuals, normalised after them (data2vec 2.0) or before (BEiT)."""

    def __init__(self, trunk: dict, drop_path: float):
        super().__init__()
        width, scale = trunk["width"], trunk["layer_scale"]
        self.pre_norm, self.drop_path, self.dropout = trunk["norm"] == "pre", drop_path, nn.Dropout(trunk["dropout"])
        self.attention = Attention(width, trunk["heads"], trunk["attention_dropout"], trunk["key_bias"])
        self.feedforward = FeedForward(width, trunk["feedforward"], trunk["activation_dropout"])
        self.attention_norm = nn.LayerNorm(width, trunk["epsilon"])
        self.feedforward_norm = nn.LayerNorm(width, trunk["epsilon"])
        scales = [None if scale is None else nn.Parameter(torch.full((width,), float(scale))) for _ in range(2)]
        self.attention_scale, self.feedforward_scale = scales

    def branch(self, x: Tensor, scale: Tensor | None) -> Tensor:
        """Return what a sub-layer adds to the residual [B, T, D]; in training whole samples drop out (DropPath)."""
        x = self.dropout(x) if scale is None else self.dropout(x) * scale
        if not self.training or not self.drop_path:
            return x
        return x * (torch.rand(len(x), 1, 1, device=x.device) >= self.drop_path) / (1 - self.drop_path)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Map [B, T, D] to [B, T, D]."""
        if self.pre_norm:
            x = x + self.branch(self.attention(self.attention_norm(x), bias), self.attention_scale)
            return x + self.branch(self.feedforward(self.feedforward_norm(x)), self.feedforward_scale)
        x = self.attention_norm(x + self.branch(self.attention(x, bias), self.attention_scale))
        return self.feedforward_norm(x + self.branch(self.feedforward(x), self.feedforward_scale))


class Transformer(nn.Module):
    """The blocks, with a norm before or after all of them where the configuration has one."""

    def __init__(self, trunk: dict):
        super().__init__()
        width, depth, epsilon = trunk["width"], trunk["depth"], trunk["epsilon"]
        self.layer_drop = trunk["layer_drop"]
        self.input_norm = nn.LayerNorm(width, epsilon) if trunk["input_norm"] else nn.Identity()
        self.input_dropout = nn.Dropout(trunk["dropout"] if trunk["input_norm"] else 0.0)
        self.blocks = nn.ModuleList(Block(trunk, trunk["drop_path"] * i / max(depth - 1, 1)) for i in range(depth))
        self.final_norm = nn.LayerNorm(width, epsilon) if trunk["final_norm"] else nn.Identity()

    def forward(
        self, x: Tensor, padding: Tensor | None, bias: Tensor | list[Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Contextualise tokens [B, T, D], of which ``padding`` [B, T] are to ignore.

        Returns the output and the states [B, T, D]: what enters the first block, and what every block makes of it.
        """
        biases = bias if isinstance(bias, list) else [bias]
        biases = [with_padding(bias, padding, x.dtype) for bias in biases]
        x = self.input_dropout(self.input_norm(x))
        states = [x]
        for number, block in enumerate(self.blocks):
            if not (self.training and torch.rand(()) < self.layer_drop):
                x = block(x, biases[number % len(biases)])
            states.append(x)
        return self.final_norm(x), tuple(states)


def with_padding(bias: Tensor | None, padding: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Join a bias [1, H, T, T] of the attention and padding [B, T] to one that is finite even where all is padding."""
    bias = None if bias is None else bias.to(dtype)
    if padding is None:
        return bias
    bias = torch.zeros((), dtype=dtype, device=padding.device) if bias is None else bias
    return bias.masked_fill(padding[:, None, None], torch.finfo(dtype).min)

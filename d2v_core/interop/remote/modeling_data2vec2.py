"""data2vec 2.0 for Hugging Face's library: an encoder of waveforms, images or text, and heads to fine-tune it with.

    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    features = model(**inputs).last_hidden_state

The library has classes for data2vec 1.0 only. This file has those for 2.0 (Baevski et al. 2022, arXiv 2212.07525), and
for encoders of 1.0 that mix its parts in another way. What pretraining needs beside the encoder is not here: teacher,
decoder and masks. Of what drops out in training only dropout is, not whole layers or branches.

Shapes: B samples · N audio samples · S side of an image in pixels · T tokens · D width · H heads · C labels
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput, SequenceClassifierOutput
from transformers.utils import can_return_tuple

PAD = 1  # the id of padding in text
Tokens = tuple[Tensor, Tensor | None, list[Tensor | None]]  # tokens, which are padding [B, T], biases of the attention


class Data2Vec2Config(PretrainedConfig):
    """The sizes of an encoder, as the project that trained it writes them.

    ``modality`` is speech, vision or text; ``table`` says what an input is; ``model`` has the blocks ``local`` (signal
    to tokens), ``trunk`` (the transformer), and others that matter in training alone. ``head`` of a fine-tuned model:
    ctc, mean, class, first or score. Letters or classes are in ``id2label``.
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
    initializer_range = property(lambda self: self.trunk["init_std"])
    inputs_to_logits_ratio = property(lambda self: math.prod(self.local.get("strides", [1])))


class SpeechTokens(nn.Module):
    """Waveforms to frames: convolutions, norm, projection; convolutional positions, and a bias by distance (ALiBi)."""

    def __init__(self, config: Data2Vec2Config):
        super().__init__()
        local, width = config.local, config.hidden_size
        channels = [1] + [local["channels"]] * len(local["kernels"])
        self.extractor = nn.ModuleList(map(Convolution, channels, channels[1:], local["kernels"], local["strides"]))
        self.feature_norm = nn.LayerNorm(local["channels"])
        self.projection = nn.Linear(local["channels"], width)
        kernel, more = local["position_kernel"], {"groups": local["position_groups"]}
        layers = (nn.Conv1d(width, width, kernel, padding=kernel // 2, **more) for _ in range(local["position_layers"]))
        self.positions = nn.ModuleList(nn.ModuleDict({"convolution": layer}) for layer in layers)
        self.mask_token = nn.Parameter(torch.zeros(width)) if local["mask_token"] else None
        self.alibi_scale = nn.Parameter(torch.ones(config.num_attention_heads, 1, 1)) if local["alibi"] else None

    def forward(self, waves: Tensor, attention_mask: Tensor | None, mask: Tensor | None) -> Tokens:
        """Turn waves [B, N], padded on the right, into frames [B, T, D].

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
            y = layer["convolution"](positions.transpose(1, 2)).transpose(1, 2)[:, : x.shape[1]]
            positions = F.gelu(F.layer_norm(y, y.shape[-1:])) * keep
        return x + positions, padding, [self.bias(x.shape[1])]

    def frames(self, samples: Tensor) -> Tensor:
        """Return how many frames the convolutions make of ``samples`` [B]."""
        for layer in self.extractor:
            samples = (samples - layer.kernel_size[0]) // layer.stride[0] + 1
        return samples

    def bias(self, tokens: int) -> Tensor | None:
        """Return [1, H, T, T] for the attention: minus the distance of frames, times a slope per head and its scale."""
        if self.alibi_scale is None:
            return None
        heads, device = len(self.alibi_scale), self.alibi_scale.device
        power = 2 ** (heads.bit_length() - 1)  # of two; other numbers of heads take slopes between its own as well
        slopes = [2 ** (-8 * (head + 1) / power) for head in range(power)]
        slopes += [2 ** (-4 * (head + 1) / power) for head in range(0, 2 * power, 2)][: heads - power]
        places = torch.arange(tokens, device=device)
        distance = (places[:, None] - places).abs()
        return -distance * (torch.tensor(slopes, device=device)[:, None, None] * self.alibi_scale.clamp(min=0))[None]


class Convolution(nn.Conv1d):
    """Conv1d without bias, a norm over channels, GELU."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int):
        super().__init__(channels_in, channels_out, kernel, stride, bias=False)
        self.norm = nn.LayerNorm(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, channels_in, N] to [B, channels_out, about N / stride]."""
        return F.gelu(self.norm(super().forward(x).transpose(1, 2))).transpose(1, 2)


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

    def forward(self, images: Tensor, attention_mask: None, mask: Tensor | None) -> Tokens:
        """Turn images [B, channels, S, S] into a class token and patches, row by row: [B, 1 + T, D]."""
        x = self.patches(images.to(self.patches.weight.dtype)).flatten(2).transpose(1, 2)
        x = hide(x, mask, self.mask_token) + (self.position_scale * self.positions(x.shape[-1])).to(x)
        return torch.cat([self.class_token.expand(len(x), -1, -1), x], dim=1), None, self.biases(x.shape[1] + 1)

    def positions(self, width: int) -> Tensor:
        """Return sines and cosines [T, D]: of the column in the first half of the channels, then of the row."""
        frequencies = 10000 ** (-torch.arange(width // 4, dtype=torch.float64) / (width / 4))
        angles = torch.arange(self.side)[:, None] * frequencies
        column = torch.cat([angles.sin(), angles.cos()], dim=1).float().expand(self.side, -1, -1)
        return torch.cat([column, column.transpose(0, 1)], dim=-1).flatten(0, 1)

    def biases(self, tokens: int) -> list[Tensor | None]:
        """Return [1, H, 1 + T, 1 + T] for the attention of all blocks or of each, by how far apart patches are.

        The last entries of a table are for class token to patch, patch to class token, and class token to itself.
        """
        if self.relative_bias is None:
            return [None]
        span, places = 2 * self.side - 1, torch.arange(self.side**2, device=self.relative_bias.device)
        rows, columns = (at[:, None] - at + self.side - 1 for at in (places // self.side, places % self.side))
        entry = torch.full((tokens, tokens), span**2, device=places.device)
        entry[1:, 1:] = rows * span + columns
        entry[1:, 0], entry[0, 0] = span**2 + 1, span**2 + 2
        tables = self.relative_bias if self.relative_bias.ndim == 3 else [self.relative_bias]
        return [table[entry].permute(2, 0, 1)[None] for table in tables]


class TextTokens(nn.Module):
    """Pieces of words to embeddings: of the piece plus of its place, then a norm."""

    def __init__(self, config: Data2Vec2Config):
        super().__init__()
        table, width = config.table, config.hidden_size
        self.tokens = nn.Embedding(table["vocabulary"], width, padding_idx=PAD)
        self.positions = nn.Embedding(table["tokens"] + PAD + 1, width, padding_idx=PAD)
        self.norm = nn.LayerNorm(width, config.trunk["epsilon"])
        self.dropout = nn.Dropout(config.local["dropout"])

    def forward(self, ids: Tensor, attention_mask: Tensor | None, mask: None) -> Tokens:
        """Turn ids [B, T] into embeddings [B, T, D]; padding is what is so by its id or by the mask.

        Places count from PAD + 1 over what is no padding. Text is masked in its ids, by the symbol ``<mask>``.
        """
        padding = ids == PAD if attention_mask is None else (ids == PAD) | (attention_mask == 0)
        places = ((~padding).cumsum(dim=1) + PAD).masked_fill(padding, PAD)
        x = self.dropout(self.norm(self.tokens(ids) + self.positions(places)))
        return x.masked_fill(padding.unsqueeze(-1), 0), padding, [None]


def hide(x: Tensor, mask: Tensor | None, token: Tensor | None) -> Tensor:
    """Put the learned ``token``, or zeros, in place of tokens [B, T, D] where ``mask`` [B, T] is True."""
    token = x.new_zeros(()) if token is None else token
    return x if mask is None else torch.where(mask.bool().unsqueeze(-1), token, x)


class Attention(nn.Module):
    """Multi-head self-attention; in BEiT's form, without ``key_bias``, only queries and values have a bias."""

    def __init__(self, trunk: dict):
        super().__init__()
        width, self.heads, self.dropout = trunk["width"], trunk["heads"], trunk["attention_dropout"]
        self.qkv, self.output = nn.Linear(width, 3 * width, bias=trunk["key_bias"]), nn.Linear(width, width)
        if not trunk["key_bias"]:
            self.query_bias, self.value_bias = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Mix tokens [B, T, D]; ``bias``, which broadcasts to [B, H, T, T], is added to the logits."""
        qkv_bias = self.qkv.bias
        if qkv_bias is None:
            qkv_bias = torch.cat([self.query_bias, torch.zeros_like(self.query_bias), self.value_bias])
        qkv = F.linear(x, self.qkv.weight, qkv_bias).unflatten(-1, (3, self.heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, bias, self.dropout * self.training)
        return self.output(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and feed-forward with residuals, normalised after them (data2vec 2.0) or before (BEiT)."""

    def __init__(self, trunk: dict):
        super().__init__()
        width, inner, scale = trunk["width"], trunk["feedforward"], trunk["layer_scale"]
        self.pre_norm, self.attention = trunk["norm"] == "pre", Attention(trunk)
        self.feedforward = nn.ModuleDict({"expand": nn.Linear(width, inner), "contract": nn.Linear(inner, width)})
        self.dropout, self.inner_dropout = nn.Dropout(trunk["dropout"]), nn.Dropout(trunk["activation_dropout"])
        self.attention_norm, self.feedforward_norm = (nn.LayerNorm(width, trunk["epsilon"]) for _ in range(2))
        scales = (1.0 if scale is None else nn.Parameter(torch.full((width,), float(scale))) for _ in range(2))
        self.attention_scale, self.feedforward_scale = scales

    def attend(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return what the attention adds to tokens [B, T, D]."""
        return self.dropout(self.attention(x, bias)) * self.attention_scale

    def transform(self, x: Tensor) -> Tensor:
        """Return what the feed-forward layers add to tokens [B, T, D]."""
        inner = self.inner_dropout(F.gelu(self.feedforward["expand"](x)))
        return self.dropout(self.feedforward["contract"](inner)) * self.feedforward_scale

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Map [B, T, D] to [B, T, D]."""
        if self.pre_norm:
            x = x + self.attend(self.attention_norm(x), bias)
            return x + self.transform(self.feedforward_norm(x))
        x = self.attention_norm(x + self.attend(x, bias))
        return self.feedforward_norm(x + self.transform(x))


class Transformer(nn.Module):
    """The blocks, with a norm before or after all of them where the configuration has one."""

    def __init__(self, trunk: dict):
        super().__init__()
        width, epsilon = trunk["width"], trunk["epsilon"]
        self.input_norm = nn.LayerNorm(width, epsilon) if trunk["input_norm"] else nn.Identity()
        self.input_dropout = nn.Dropout(trunk["dropout"] if trunk["input_norm"] else 0.0)
        self.blocks = nn.ModuleList(Block(trunk) for _ in range(trunk["depth"]))
        self.final_norm = nn.LayerNorm(width, epsilon) if trunk["final_norm"] else nn.Identity()

    def forward(self, x: Tensor, biases: list[Tensor | None]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Contextualise tokens [B, T, D] with one bias [B or 1, H or 1, T or 1, T] for all blocks, or one for each.

        Returns the output and the states [B, T, D]: what enters the first block, and what every block makes of it.
        """
        states = [self.input_dropout(self.input_norm(x))]
        for number, block in enumerate(self.blocks):
            states.append(block(states[-1], biases[number % len(biases)]))
        return self.final_norm(states[-1]), tuple(states)


def with_padding(bias: Tensor | None, padding: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Join a bias [1, H, T, T] of the attention and padding [B, T] to one, finite even where all is padding."""
    if padding is None:
        return None if bias is None else bias.to(dtype)
    bias = torch.zeros((), device=padding.device) if bias is None else bias
    return bias.to(dtype).masked_fill(padding[:, None, None], torch.finfo(dtype).min)


class Data2Vec2PreTrainedModel(PreTrainedModel):
    """What the classes below share."""

    config_class, base_model_prefix, _supports_sdpa = Data2Vec2Config, "data2vec2", True

    def __init__(self, config: Data2Vec2Config):
        super().__init__(config)
        names = {"speech": "input_values", "vision": "pixel_values", "text": "input_ids"}
        self.main_input_name = names[config.modality]


class Data2Vec2Model(Data2Vec2PreTrainedModel):
    """The encoder."""

    def __init__(self, config: Data2Vec2Config):
        super().__init__(config)
        tokens = {"speech": SpeechTokens, "vision": ImageTokens, "text": TextTokens}[config.modality]
        self.local, self.trunk = tokens(config), Transformer(config.trunk)
        self.post_init()

    @can_return_tuple
    def forward(
        self, input_values=None, attention_mask=None, pixel_values=None, input_ids=None, mask=None, **kwargs
    ) -> BaseModelOutput:
        """Encode ``input_values`` [B, N], ``pixel_values`` [B, channels, S, S] or ``input_ids`` [B, T].

        ``attention_mask`` [B, N] or [B, T] is 0 at padding; frames or patches at ``mask`` [B, T] are hidden. Gives
        ``last_hidden_state`` [B, T, D], for images with the class token in front; with ``output_hidden_states`` also
        what enters the first block and what leaves each of them, before the last norm if there is one.
        """
        inputs = next(given for given in (input_values, pixel_values, input_ids) if given is not None)
        x, padding, biases = self.local(inputs, attention_mask, mask)
        x, states = self.trunk(x, [with_padding(bias, padding, x.dtype) for bias in biases])
        wanted = kwargs.get("output_hidden_states", self.config.output_hidden_states)
        return BaseModelOutput(last_hidden_state=x, hidden_states=states if wanted else None)


class Data2Vec2ForCTC(Data2Vec2PreTrainedModel):
    """The encoder of speech with a linear layer that tells letters; letter 0 is the blank of CTC."""

    def __init__(self, config: Data2Vec2Config):
        super().__init__(config)
        self.data2vec2 = Data2Vec2Model(config)
        self.head = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(self, input_values, attention_mask=None, labels=None, **kwargs) -> CausalLMOutput:
        """Give logits [B, T, C] and, with ``labels`` [B, letters] padded with -100, the loss summed over utterances."""
        encoded = self.data2vec2(input_values, attention_mask, return_dict=True, **kwargs)
        logits, loss = self.head(encoded.last_hidden_state), None
        if labels is not None:
            samples = torch.ones_like(input_values) if attention_mask is None else attention_mask
            lengths = self.data2vec2.local.frames(samples.long().sum(dim=1))
            odds, known = F.log_softmax(logits.float(), dim=-1).transpose(0, 1), labels >= 0
            loss = F.ctc_loss(odds, labels[known], lengths, known.sum(dim=1), 0, reduction="sum", zero_infinity=True)
        return CausalLMOutput(loss=loss, logits=logits, hidden_states=encoded.hidden_states)


class Data2Vec2ForClassification(Data2Vec2PreTrainedModel):
    """The encoder of images or text, with a head on the mean of patches, the class token or the first token."""

    def __init__(self, config: Data2Vec2Config):
        super().__init__(config)
        self.kind = config.head or {"vision": "mean", "text": "first"}[config.modality]
        self.data2vec2 = Data2Vec2Model(config)
        width, head = config.hidden_size, nn.Linear(config.hidden_size, config.num_labels)
        dense = [nn.Linear(width, width), nn.Tanh()]
        before = {"mean": [nn.LayerNorm(width, eps=1e-6)], "class": [], "first": dense, "score": dense}[self.kind]
        self.head = nn.Sequential(*before, head) if before else head
        self.post_init()

    @can_return_tuple
    def forward(self, pixel_values=None, input_ids=None, attention_mask=None, labels=None, **kwargs):
        """Give logits [B, C] and, with ``labels`` [B], the mean cross-entropy, or for ``score`` squared error."""
        encoded = self.data2vec2(None, attention_mask, pixel_values, input_ids, return_dict=True, **kwargs)
        x = encoded.last_hidden_state
        logits = self.head(x[:, 1:].mean(dim=1) if self.kind == "mean" else x[:, 0])
        loss, answers, score = None, logits.float(), self.kind == "score"
        if labels is not None:
            loss = F.mse_loss(answers[:, 0], labels.float()) if score else F.cross_entropy(answers, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=encoded.hidden_states)
